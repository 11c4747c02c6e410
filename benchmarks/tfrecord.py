"""TFRecord files and the SequenceExamples in them, without TensorFlow: the layout of the released code.

A record is its length (8 bytes), a checksum of that, the bytes, a checksum of these; the file may be one GZIP stream.
"""

import contextlib
import functools
import gzip
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2


def write_records(path: Path, records: Iterable[bytes], *, compress: bool) -> None:
    opened = gzip.open(path, "wb", compresslevel=6) if compress else path.open("wb")
    with opened as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", masked_crc32c(length)))
            file.write(record + struct.pack("<I", masked_crc32c(record)))


def read_records(path: Path, *, compress: bool) -> Iterator[bytes]:
    """The records in order; like most readers it leaves the checksums alone."""
    with contextlib.closing(gzip.open(path, "rb") if compress else path.open("rb")) as file:
        while header := file.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            record = file.read(length)
            if len(record) < length or len(file.read(4)) < 4:
                raise EOFError(f"{path} ends within a record")
            yield record


def clip_record(label: int, clip: str, **frames: Sequence[bytes]) -> bytes:
    """A SequenceExample as the released code writes it: `label` and `video_id`, and a list of bytes a modality."""
    example = tf_example_pb2.SequenceExample()
    example.context.feature["label"].int64_list.value.append(label)
    example.context.feature["video_id"].bytes_list.value.append(clip.encode())
    for name, values in frames.items():
        listed = example.feature_lists.feature_list[name]
        for value in values:
            listed.feature.add().bytes_list.value.append(value)
    return example.SerializeToString()


def masked_crc32c(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum of at least four bytes.

    The checksum is linear once its start value is moved into the first four bytes: equal parts of the data are taken
    through the table side by side, and each sum so far is moved on by the zeros that stand for the part after it.
    """
    table, parts = _table(), max(1, len(data) // 512)
    ahead = -len(data) % parts  # zeros before the data change nothing
    padded = np.zeros(ahead + len(data), np.uint8)
    padded[ahead:] = np.frombuffer(data, np.uint8)
    padded[ahead : ahead + 4] ^= 0xFF
    lanes = padded.reshape(parts, -1)
    sums = np.zeros(parts, np.uint32)
    for column in lanes.T:
        sums = table[(sums ^ column) & 0xFF] ^ (sums >> 8)
    moved, total = _after_zeros(lanes.shape[1]), 0
    for each in sums.tolist():
        total = moved[0][total & 255] ^ moved[1][total >> 8 & 255] ^ moved[2][total >> 16 & 255] ^ moved[3][total >> 24]
        total ^= each
    return total ^ 0xFFFFFFFF


@functools.cache
def _table() -> np.ndarray:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ np.uint32(0x82F63B78), values >> 1)
    return values


@functools.lru_cache(maxsize=64)
def _after_zeros(count: int) -> list[list[int]]:
    """What becomes of every value of each of a sum's four bytes after so many zero bytes."""
    table = _table()
    sums = (np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]).astype(np.uint32)
    for _ in range(count):
        sums = table[sums & 0xFF] ^ (sums >> 8)
    return sums.tolist()
