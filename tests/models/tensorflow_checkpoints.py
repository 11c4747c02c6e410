"""Writes TensorFlow checkpoints of both versions, from the formats' descriptions and sharing nothing with the reader.

Tables: LevelDB's table_format.md; messages: tensorflow/core/util/saved_tensor_slice.proto and
tensorflow/core/protobuf/tensor_bundle.proto, tensor.proto, tensor_shape.proto, tensor_slice.proto; keys of V1:
saved_tensor_slice_util.cc and ordered_code.cc.
"""

import itertools
import struct

import numpy as np
from tensorboardX.crc32c import crc32c  # checksums of TensorFlow's event files

FLOAT, INT64, STRING = 1, 9, 7
KINDS = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}


def varint(value):
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def fixed32(field, value):
    return varint(field << 3 | 5) + struct.pack("<I", value)


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def shape(array):
    return b"".join(message(2, number(1, size)) for size in array.shape)


class Block:
    def __init__(self, restart_interval):
        self.data, self.restarts, self.last, self.count, self.interval = b"", [], b"", 0, restart_interval

    def add(self, key, value):
        shared = 0
        if self.count % self.interval == 0:
            self.restarts.append(len(self.data))
        else:
            while shared < min(len(key), len(self.last)) and key[shared] == self.last[shared]:
                shared += 1
        self.data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self.last, self.count = key, self.count + 1

    def finish(self):
        restarts = self.restarts or [0]
        return self.data + b"".join(struct.pack("<I", at) for at in (*restarts, len(restarts)))


def table(rows, block_size=4096):
    """`{key: value}` as a table: uncompressed blocks of about `block_size` bytes."""
    out, index, block = bytearray(), Block(1), Block(16)

    def emit(block):
        data = block.finish() + b"\0"
        place = varint(len(out)) + varint(len(data) - 1)
        out.extend(data + struct.pack("<I", masked(data)))
        return place

    for key, value in sorted(rows.items()):
        block.add(key, value)
        if len(block.data) >= block_size:
            index.add(key + b"\0", emit(block))
            block = Block(16)
    if block.count:
        index.add(block.last + b"\0", emit(block))
    footer = emit(Block(1)) + emit(index)
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def ordered_key(name, start, length):
    """V1's key: 0, the name, the rank and each extent, coded so that bytes sort as the values do."""

    def natural(value):
        digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return bytes([len(digits)]) + digits

    def whole(value):  # of one byte, which covers -64..63; longer ones set more leading bits
        if -64 <= value < 64:
            return bytes([(value & 0xFF) ^ 0x80])
        return struct.pack(">H", (value & 0xFFFF) ^ 0xC000)

    escaped = name.encode().replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0") + b"\0\1"
    extents = b"".join(whole(a) + whole(b) for a, b in zip(start, length, strict=True))
    return natural(0) + escaped + natural(len(start)) + extents


def slices_of(array, parts):
    """A tensor cut along its first axis, as partitioned variables are: (start, length) of each axis, -1 for all."""
    if array.ndim == 0 or parts == 1:
        return [((0,) * array.ndim, (-1,) * array.ndim, array)]
    bounds = np.linspace(0, len(array), parts + 1).astype(int).tolist()
    rest = array.ndim - 1
    return [((a, *(0,) * rest), (b - a, *(-1,) * rest), array[a:b]) for a, b in itertools.pairwise(bounds)]


def extents(start, length):
    said = (
        b"" if count == -1 else (number(1, first) if first else b"") + number(2, count)
        for first, count in zip(start, length, strict=True)
    )
    return b"".join(message(1, extent) for extent in said)


def v1(tensors, parts=1):
    """A single-file checkpoint of `{name: array}`, each tensor in so many slices."""
    meta, rows = b"", {}
    for name, array in tensors.items():
        kind, pieces = KINDS[array.dtype], slices_of(array, parts)
        described = message(1, name.encode()) + message(2, shape(array)) + number(3, kind)
        meta += message(1, described + b"".join(message(4, extents(a, b)) for a, b, _ in pieces))
        for start, length, piece in pieces:
            if kind == FLOAT:
                values = message(5, piece.tobytes())
            else:
                values = message(10, b"".join(varint(int(value)) for value in piece.ravel()))
            saved = message(1, name.encode()) + message(2, extents(start, length)) + message(3, values)
            rows[ordered_key(name, start, length)] = message(2, saved)
    versions = number(1, 1)
    rows[b""] = message(1, meta + message(2, versions))
    return table(rows, block_size=1 << 18)


def v2(tensors, prefix, shards=1):
    """Writes `prefix.index` and its data files, with a string beside the numbers as TensorFlow 2 has it."""
    blobs = [bytearray() for _ in range(shards)]
    rows = {b"": number(1, shards) + message(3, number(1, 1))}
    rows[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = number(1, STRING) + message(2, b"") + number(5, 3)
    for i, (name, array) in enumerate(tensors.items()):
        blob, data = blobs[i % shards], array.tobytes()
        entry = number(1, KINDS[array.dtype]) + message(2, shape(array))
        for field, value in ((3, i % shards), (4, len(blob)), (5, len(data))):
            entry += number(field, value) if value else b""
        rows[name.encode()] = entry + fixed32(6, masked(data))
        blob += data
    prefix.with_name(prefix.name + ".index").write_bytes(table(rows))
    for i, blob in enumerate(blobs):
        prefix.with_name(f"{prefix.name}.data-{i:05}-of-{shards:05}").write_bytes(blob)
