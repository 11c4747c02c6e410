"""Tensors of TensorFlow checkpoints, without TensorFlow.

V1 is one file, a table of `SavedTensorSlices` (tensorflow/core/util/saved_tensor_slice.proto). V2 is a table of
`BundleEntryProto`, `.index`, that says where the numbers are in `.data-00000-of-00001`
(tensorflow/core/protobuf/tensor_bundle.proto).
"""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from hallujax.errors import CheckpointError
from hallujax.models.pretrained import table
from hallujax.models.pretrained.table import Malformed

# DataType's numbers, and TensorProto's fields that hold such values.
_TYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    10: np.dtype(bool),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}
_VALUES = {1: 5, 2: 6, 3: 7, 9: 10, 10: 11, 14: 13, 19: 13}
_CONTENT = 4
_STRING = 7
_LARGEST_RATIO = 8  # of memory to file: an int64 that is small takes one byte there


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A `BundleEntryProto`."""

    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int | None
    sliced: bool


def is_table(path: Path) -> bool:
    """Whether a file ends as the tables do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - len(table.MAGIC)))
        return file.read() == table.MAGIC


def bundle_prefix(path: Path) -> Path | None:
    """What the names of a V2 checkpoint's files start with, if `path` is that, or one of them."""
    prefix = re.sub(r"\.(index|data-\d+-of-\d+)$", "", path.name)
    prefix = path.with_name(prefix) if prefix else path
    return prefix if prefix.with_name(prefix.name + ".index").is_file() and not prefix.is_file() else None


def read_v1(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a single-file checkpoint, slices put together.

    Raises:
      CheckpointError: if it is damaged, or does not hold what its table of contents says.
    """
    data = path.read_bytes()
    try:
        return _read_v1(data)
    except Malformed as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_bundle(prefix: Path) -> dict[str, np.ndarray]:
    """All tensors of a V2 checkpoint; strings (its graph of objects) are left out.

    Raises:
      CheckpointError: if a file is missing or damaged, or a tensor is partitioned.
    """
    index = prefix.with_name(prefix.name + ".index")
    try:
        shards, found = _read_index(index.read_bytes())
        blobs = {shard: _shard(prefix, shard, shards) for shard in sorted({entry.shard for entry in found.values()})}
        return {name: _bundled(name, entry, blobs[entry.shard]) for name, entry in found.items()}
    except Malformed as error:
        raise CheckpointError(f"{index}: {error}") from error


def _read_v1(data: bytes) -> dict[str, np.ndarray]:
    rows = table.entries(data)
    try:
        _, first = next(rows)
    except StopIteration:
        raise Malformed("an empty table") from None
    contents = _contents(_message(_one(first, 1)))
    if sum(_bytes(*entry) for entry in contents.values()) > _LARGEST_RATIO * len(data):
        raise Malformed("its tensors would be larger than the file")
    tensors = {name: np.zeros(shape, _TYPES[kind]) for name, (kind, shape) in contents.items()}
    missing = {name: array.size for name, array in tensors.items()}
    for _, row in rows:
        saved = _message(_one(row, 2))
        name = _text(_one(saved, 1))
        if name not in tensors:
            raise Malformed(f"{name} is not in its table of contents")
        kind, shape = contents[name]
        where = _extents(name, _message(_one(saved, 2)), shape)
        part = tensors[name][where]
        values = _numbers(_message(_one(saved, 3)), kind)
        if len(values) != part.size:
            raise Malformed(f"{name} has {len(values)} numbers where its slice has {part.size}")
        tensors[name][where] = values.reshape(part.shape)
        missing[name] -= part.size
    for name, count in missing.items():
        if count:
            raise Malformed(f"{name} is not whole: {count} of its numbers are missing")
    return tensors


def _contents(meta: memoryview) -> dict[str, tuple[int, tuple[int, ...]]]:
    """`{name: (type, shape)}` of a `SavedTensorSliceMeta`."""
    found = {}
    for number, value in table.fields(meta):
        if number == 1:
            tensor = _message(value)
            name = _text(_one(tensor, 1))
            kind = _integer(_one(tensor, 3))
            found[name] = kind, _shape(_message(_one(tensor, 2)))
            _known(name, kind)
    return found


def _extents(name: str, saved: memoryview, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Where a `TensorSliceProto` lies; an extent without a length is all of its axis."""
    where = []
    for number, value in table.fields(saved):
        if number == 1:
            said = dict(table.fields(_message(value)))
            start, length = _integer(said.get(1)), _integer(said.get(2))
            where.append(slice(None) if 2 not in said else slice(start, start + length))
            if len(where) > len(shape) or start < 0 or (2 in said and not 0 <= length <= shape[len(where) - 1] - start):
                raise Malformed(f"{name} has a slice outside its shape")
    return tuple(where)


def _numbers(tensor: memoryview, kind: int) -> np.ndarray:
    """The values of a `TensorProto`, flat."""
    pieces, integers = [], []
    for number, value in table.fields(tensor):
        if number == _CONTENT or (number == _VALUES[kind] and kind in (1, 2)):
            pieces.append(bytes(_message(value)))
        elif number == _VALUES[kind]:
            integers += table.varints(value) if isinstance(value, memoryview) else [table.signed(value)]
    if not integers:
        return _from_bytes(b"".join(pieces), kind)
    try:
        if kind in (14, 19):  # the bits of half precision
            return np.array(integers, np.uint16).view(_TYPES[kind])
        return np.array(integers, _TYPES[kind])
    except OverflowError as error:
        raise Malformed(f"a number that does not fit its type ({error})") from error


def _from_bytes(data: bytes | memoryview, kind: int) -> np.ndarray:
    if len(data) % _TYPES[kind].itemsize:
        raise Malformed("a tensor that ends within a number")
    return np.frombuffer(data, _TYPES[kind])


def _read_index(data: bytes) -> tuple[int, dict[str, _Entry]]:
    """The number of data files and `{name: entry}`."""
    shards, found = 0, {}
    for key, value in table.entries(data):
        said = list(table.fields(value))
        first = dict(reversed(said))
        if key == b"":
            if _integer(first.get(2)):
                raise Malformed("written on a big-endian machine")
            shards = _integer(first.get(1))
            continue
        kind = _integer(first.get(1))
        if kind == _STRING:
            continue
        name = _text(memoryview(key))
        checksum = first.get(6)
        found[name] = _Entry(
            kind=kind,
            shape=_shape(_message(first.get(2))),
            shard=_integer(first.get(3)),
            offset=_integer(first.get(4)),
            size=_integer(first.get(5)),
            checksum=None if checksum is None else int.from_bytes(_message(checksum), "little"),
            sliced=7 in first,
        )
        _known(name, kind)
        if not 0 <= found[name].shard < shards:
            raise Malformed(f"{name} lies in data file {found[name].shard} of {shards}")
    return shards, found


def _shard(prefix: Path, shard: int, shards: int) -> memoryview:
    path = prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; a checkpoint is its .index and all of its .data files")
    return memoryview(path.read_bytes())


def _bundled(name: str, entry: _Entry, blob: memoryview) -> np.ndarray:
    if entry.sliced:
        raise Malformed(f"{name} is partitioned, which is not read; save it whole")
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > len(blob):
        raise Malformed(f"{name} lies outside its data file, which is cut short")
    if entry.size != _bytes(entry.kind, entry.shape):
        raise Malformed(f"{name} has {entry.size} bytes, which is not what its shape {entry.shape} needs")
    data = blob[entry.offset : entry.offset + entry.size]
    if entry.checksum is not None and table.masked_crc(data) != entry.checksum:
        raise Malformed(f"{name} is damaged: the checksum of its numbers differs")
    return _from_bytes(data, entry.kind).reshape(entry.shape)


def _shape(message: memoryview) -> tuple[int, ...]:
    """Of a `TensorShapeProto`."""
    sizes = []
    for number, value in table.fields(message):
        if number == 2:
            sizes.append(_integer(dict(table.fields(_message(value))).get(1, 0)))
    if len(sizes) > 8 or any(not 0 <= size < 1 << 40 for size in sizes):
        raise Malformed(f"an impossible shape {tuple(sizes[:8])}")
    return tuple(sizes)


def _bytes(kind: int, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _TYPES[kind].itemsize


def _known(name: str, kind: int) -> None:
    if kind not in _TYPES:
        raise Malformed(f"{name} is of TensorFlow's type {kind}, which is none of numbers")


def _one(message: memoryview, number: int) -> int | memoryview | None:
    """The first field of that number, None if there is none: protocol buffers leave out what is zero or empty."""
    return next((value for found, value in table.fields(message) if found == number), None)


def _message(value: int | memoryview | None) -> memoryview:
    if isinstance(value, int):
        raise Malformed("a number where a message is expected")
    return memoryview(b"") if value is None else value


def _integer(value: int | memoryview | None) -> int:
    if isinstance(value, memoryview):
        raise Malformed("a message where a number is expected")
    return table.signed(value or 0)


def _text(value: int | memoryview | None) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")
