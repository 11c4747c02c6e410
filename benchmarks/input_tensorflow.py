"""tf.data's arms of `input.py`, run by a Python that has TensorFlow: reads all clips as often as a line says."""

import json
import sys

import tensorflow as tf


def main() -> None:
    said = json.loads(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(said["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(said["threads"])
    dataset = released(said) if said["authors"] else encoded(said)
    options = tf.data.Options()
    options.threading.private_threadpool_size = said["threads"]
    print("ready", flush=True)
    for passes in sys.stdin:
        batches = dataset.repeat(int(passes)).batch(said["batch"]).prefetch(2).with_options(options)
        sums = (batch["rgb"][:, :, ::8, ::8].sum(dtype="int64") for batch in batches.as_numpy_iterator())
        print(int(sum(sums)), flush=True)


def encoded(said: dict) -> tf.data.Dataset:
    """JPEG and PNG bytes of whole clips; the chosen frames are decoded."""
    features = {name: tf.io.RaggedFeature(tf.string) for name in ("rgb", "depth")}
    features["label"] = tf.io.FixedLenFeature([], tf.int64)

    def read(record):
        example = tf.io.parse_single_example(record, features)
        rgb, depth = ([example[name][number] for number in said["chosen"]] for name in ("rgb", "depth"))
        return {
            "rgb": tf.stack([tf.io.decode_jpeg(frame, dct_method="INTEGER_ACCURATE") for frame in rgb]),
            "depth": tf.stack([tf.io.decode_png(frame, dtype=tf.uint16) for frame in depth]),
            "label": example["label"],
        }

    return tf.data.TFRecordDataset(said["paths"]).shuffle(64).map(read, num_parallel_calls=said["threads"])


def released(said: dict) -> tf.data.Dataset:
    """Raw frames of whole clips; the chosen ones are copied out."""
    context = {"label": tf.io.FixedLenFeature([], tf.int64)}
    lists = {name: tf.io.FixedLenSequenceFeature([], tf.string) for name in ("rgb", "depth")}

    def read(record):
        about, frames = tf.io.parse_single_sequence_example(record, context, lists)
        shape = (len(said["chosen"]), said["side"], said["side"], 3)
        clip = {
            name: tf.reshape(tf.io.decode_raw(tf.gather(values, said["chosen"]), tf.uint8), shape)
            for name, values in frames.items()
        }
        return clip | {"label": about["label"]}

    records = tf.data.TFRecordDataset(said["paths"], compression_type="GZIP")
    return records.shuffle(16).map(read, num_parallel_calls=said["threads"])


if __name__ == "__main__":
    main()
