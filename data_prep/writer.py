"""Writes prepared datasets: TFDS directories of ArrayRecord files, one record a frame of a modality.

TensorFlow is needed neither to write them nor to read them. Shards go straight through array_record, which
unlike TFDS's own builder has no limit on the size of a split and lets shards be written in parallel and
resumed; TFDS's metadata is added at the end.

    ROOT/NAME/dataset.json                          what is here, with the digest of every shard
    ROOT/NAME/clips.npy                             one row a clip: see `clip_index`
    ROOT/NAME/MODALITY/1.0.0/NAME-frames.array_record-00000-of-00012, dataset_info.json, features.json
"""

import dataclasses
import errno
import hashlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from hallujax import sealed
from hallujax.data.fingerprint import fingerprint
from hallujax.data.plain_png import encode_depth
from hallujax.errors import DataError

SPLIT = "frames"
VERSION = "1.0.0"
# JPEG and PNG bytes do not compress again; stored as they are, records are read and written faster.
_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True)
class Modality:
    """`kind` is "jpeg" or "png" (uint8 [H,W,3]; the second keeps every value), "png16" (uint16 [H,W], e.g.
    millimetres) or "floats" (float32 `shape`)."""

    kind: str
    shape: tuple[int, ...]
    quality: int = 92

    def encode(self, frame: np.ndarray) -> bytes:
        """A picture as the bytes of its file."""
        if self.kind == "png16":
            return encode_depth(frame)
        encoded = io.BytesIO()
        if self.kind == "jpeg":
            Image.fromarray(frame).save(encoded, "JPEG", quality=self.quality)
        else:
            Image.fromarray(frame).save(encoded, "PNG", compress_level=3)
        return encoded.getvalue()


def features(name: str, modality: Modality):
    """TFDS features of one record: the modality under its own name, beside `clip` and `frame`."""
    import tensorflow_datasets as tfds  # takes half a second to import, and the library never needs it

    if modality.kind == "jpeg":
        value = tfds.features.Image(shape=modality.shape, encoding_format="jpeg")
    elif modality.kind == "png":
        value = tfds.features.Image(shape=modality.shape, encoding_format="png")
    elif modality.kind == "png16":
        value = tfds.features.Image(shape=(*modality.shape, 1), dtype=np.uint16, encoding_format="png")
    else:
        value = tfds.features.Tensor(shape=modality.shape, dtype=np.float32)
    return tfds.features.FeaturesDict({name: value, "clip": tfds.features.Text(), "frame": np.int64})


def record(name: str, modality: Modality, frame: np.ndarray | bytes, clip: str, number: int) -> bytes:
    """One record, the tf.Example of `features`; `frame` may be encoded already.

    TFDS's own `serialize_example` writes the keys of the example in an order that changes from process to
    process; here the same record has the same bytes.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    entries = example.features.feature
    if modality.kind == "floats":
        entries[name].float_list.value.extend(frame.ravel().tolist())
    else:
        entries[name].bytes_list.value.append(frame if isinstance(frame, bytes) else modality.encode(frame))
    entries["clip"].bytes_list.value.append(clip.encode())
    entries["frame"].int64_list.value.append(number)
    return example.SerializeToString(deterministic=True)


def shard_path(directory: pathlib.Path, dataset: str, modality: str, shard: int, shards: int) -> pathlib.Path:
    """Where a shard of a modality lies, as TFDS names it."""
    name = f"{dataset}-{SPLIT}.array_record-{shard:05}-of-{shards:05}"
    return directory / modality / VERSION / name


def write_shard(
    directory: pathlib.Path,
    dataset: str,
    modalities: Mapping[str, Modality],
    shard: int,
    shards: int,
    clips: Iterable[tuple[str, Mapping[str, Sequence[np.ndarray | bytes]]]],
) -> None:
    """Writes one shard of every modality from `clips`: (clip id, {modality: frames [T, ...]}); a clip may lack some.

    Each file appears under its name only when it is whole, so an interrupted run can go on behind it.

    Raises:
        DataError: the disk is full.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    paths = {name: shard_path(directory, dataset, name, shard, shards) for name in modalities}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(directory):
        writers = {name: ArrayRecordWriter(f"{path}.partial", _OPTIONS) for name, path in paths.items()}
        try:
            for clip, frames in clips:
                for name, modality in modalities.items():
                    for number, frame in enumerate(frames.get(name, ())):
                        writers[name].write(record(name, modality, frame, clip, number))
        finally:
            for writer in writers.values():
                writer.close()
        for path in paths.values():
            os.replace(f"{path}.partial", path)


def finished(directory: pathlib.Path, dataset: str, modalities: Iterable[str], shard: int, shards: int) -> bool:
    """Whether every modality of a shard is there."""
    return all(shard_path(directory, dataset, name, shard, shards).exists() for name in modalities)


def sweep(directory: pathlib.Path) -> None:
    """Removes half-written shards, and `directory` itself when nothing is left in it."""
    for leftover in directory.rglob("*.partial"):
        leftover.unlink()
    if not any(path.is_file() for path in directory.rglob("*")):
        shutil.rmtree(directory)


def clip_index(modalities: Iterable[str], clips: int, id_bytes: int = 48) -> np.ndarray:
    """An empty clip index, to be filled: id, label, subject, camera, setup, repetition, and for each modality
    the number of its first record and how many frames it has (0: the clip lacks it)."""
    columns = [
        ("clip", f"S{id_bytes}"),
        *((n, np.int32) for n in ("label", "subject", "camera", "setup", "repetition")),
    ]
    for name in modalities:
        columns += [(f"{name}_first", np.int64), (f"{name}_length", np.int32)]
    return np.zeros(clips, columns)


def finish(
    directory: pathlib.Path,
    target: pathlib.Path,
    dataset: str,
    modalities: Mapping[str, Modality],
    shards: int,
    index: np.ndarray,
    info: Mapping,
    description: str,
) -> None:
    """Adds the clip index, TFDS's metadata and dataset.json to `directory` and renames it to `target`.

    `info` is added to dataset.json and holds at least `classes`. The fingerprint covers the shards, the index
    and the classes.

    Raises:
        DataError: a shard holds another number of records than the index says, or the disk is full.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    described = {}
    with explain_full_disk(directory):
        for name, modality in modalities.items():
            entries = []
            for shard in range(shards):
                path = shard_path(directory, dataset, name, shard, shards)
                reader = ArrayRecordReader(str(path))
                count = reader.num_records()
                reader.close()
                entries.append(
                    {
                        "file": path.relative_to(directory).as_posix(),
                        "records": count,
                        "bytes": path.stat().st_size,
                        "sha256": file_digest(path),
                    }
                )
            records = sum(entry["records"] for entry in entries)
            expected = int(index[f"{name}_length"].sum())
            if records != expected:
                raise DataError(f"{name}: {records} records were written, the clip index says {expected}: {directory}")
            described[name] = {
                "records": records,
                "kind": modality.kind,
                "shape": modality.shape,
                "shards": entries,
            }
            lengths = [entry["records"] for entry in entries]
            tfds.folder_dataset.write_metadata(
                data_dir=str(directory / name / VERSION),
                features=features(name, modality),
                split_infos=[
                    tfds.core.SplitInfo(
                        name=SPLIT,
                        shard_lengths=lengths,
                        num_bytes=sum(entry["bytes"] for entry in entries),
                        filename_template=tfds.core.ShardedFileTemplate(
                            data_dir=str(directory / name / VERSION),
                            dataset_name=dataset,
                            split=SPLIT,
                            filetype_suffix="array_record",
                        ),
                    )
                ],
                version=VERSION,
                check_data=False,
                description=description,
            )
        describe(directory, {"name": dataset, **info, "modalities": described}, index)
    if target.exists():
        shutil.rmtree(target)
    os.replace(directory, target)


def describe(directory: pathlib.Path, info: Mapping[str, Any], index: np.ndarray) -> None:
    """Writes clips.npy and dataset.json, which hold each other's checksums.

    Also for whoever leaves clips of a prepared dataset out of its index: it is another dataset then, with a fingerprint
    of its own.
    """
    np.save(directory / "clips.npy", index, allow_pickle=False)
    found = fingerprint(info, file_digest(directory / "clips.npy"))
    sealed.write(directory / "dataset.json", {**info, "fingerprint": found})


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class explain_full_disk:
    """Turns a full disk, which array_record reports as a RuntimeError of its own, into one line."""

    def __init__(self, directory: pathlib.Path):
        self._directory = directory

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or (error is not None and "No space left" in str(error)):
            raise DataError(f"no space left on the disk of {self._directory}: free some, then start again") from error
        return False
