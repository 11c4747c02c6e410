"""Prepared datasets with chosen records spoiled: shards written again, counts and digests of dataset.json to match."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from hallujax.data.records import PreparedDataset


def spoil(directory: pathlib.Path, modality: str, change: Mapping[tuple[int, int], Callable[[bytes], bytes]]) -> None:
    """Rewrites the picture (or floats) of {(row, frame): bytes -> bytes} in the shards of a modality.

    What is damaged is inside whole records of whole shards: nothing but decoding them can tell.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    dataset = PreparedDataset.open(directory)
    first = dataset.index[f"{modality}_first"]
    wanted = {int(first[row]) + frame: edit for (row, frame), edit in change.items()}
    info = json.loads((directory / "dataset.json").read_text())
    number = 0
    for shard in info["modalities"][modality]["shards"]:
        path = directory / shard["file"]
        reader = ArrayRecordReader(str(path))
        records = reader.read_all()
        reader.close()
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for record in records:
            if number in wanted:
                example = tf_example_pb2.Example.FromString(record)
                value = example.features.feature[modality].bytes_list.value
                value[0] = wanted[number](value[0])
                record = example.SerializeToString(deterministic=True)
            writer.write(record)
            number += 1
        writer.close()
        shard["bytes"] = path.stat().st_size
        shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "dataset.json").write_text(json.dumps(info))


def cut(encoded: bytes) -> bytes:
    """The first half of a picture."""
    return encoded[: len(encoded) // 2]


def flip_chunk(directory: pathlib.Path, modality: str, row: int, frame: int) -> pathlib.Path:
    """Flips a byte of a record where it lies in its shard: the chunk's checksum no longer fits."""
    dataset = PreparedDataset.open(directory)
    number = int(dataset.index[f"{modality}_first"][row]) + frame
    record = dataset._sources[modality][number]
    for path in sorted((directory / modality / "1.0.0").glob("*array_record*")):
        data = bytearray(path.read_bytes())
        place = data.find(record)
        if place >= 0:
            data[place + len(record) // 2] ^= 0x10
            path.write_bytes(data)
            return path
    raise AssertionError("the record is in no shard")
