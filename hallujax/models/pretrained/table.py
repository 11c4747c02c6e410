"""The table format of LevelDB, which TensorFlow's checkpoints are kept in, and protocol buffers' wire format.

A table is a file of blocks, each followed by a byte for its compression and a masked CRC-32C; blocks hold sorted keys,
each without what it shares with the one before. The last 48 bytes say where the index block is
(https://github.com/google/leveldb/blob/main/doc/table_format.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from hallujax.errors import CheckpointError

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER = 48
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_LANES = 4096


class Malformed(CheckpointError):
    """Bytes that are not what the format says; the message names no file yet."""


def entries(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The keys and values of a table, in their order.

    Raises:
      Malformed: if it is damaged, cut short, or compressed.
    """
    if len(data) < _FOOTER or data[-8:] != MAGIC:
        raise Malformed("cut short, or no TensorFlow checkpoint: its last bytes are not a table's")
    view = memoryview(data)
    footer = view[-_FOOTER:-8]
    _, at = _varint(footer, 0)  # the index of filters, which these tables do not have
    _, at = _varint(footer, at)
    for _, handle in _block(view, *_handle(footer, at)):
        yield from _block(view, *_handle(handle, 0))


def fields(message: memoryview | bytes) -> Iterator[tuple[int, int | memoryview]]:
    """`(number, value)` of each field of a protocol buffer: an integer, or bytes (of fixed width, or of any length).

    Raises:
      Malformed: if it is none.
    """
    message, at = memoryview(message), 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, at = _varint(message, at)
            if size > len(message) - at:
                raise Malformed("a field that is longer than its message")
            value, at = message[at : at + size], at + size
        else:
            raise Malformed(f"a field of wire type {kind}")
        yield tag >> 3, value


def varints(packed: memoryview) -> list[int]:
    """Packed integers, negative ones as their two's complement says.

    Raises:
      Malformed: if the last is cut short.
    """
    found, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        found.append(signed(value))
    return found


def signed(value: int) -> int:
    """An int32 or int64 from the unsigned number on the wire."""
    return value - (1 << 64) if value >= 1 << 63 else value


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C, rotated and shifted by a constant as LevelDB stores it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C. Long data is cut into lanes that NumPy walks down at once: 100 MB take a second."""
    numbers = np.frombuffer(data, np.uint8)
    length = len(numbers) // _LANES
    head = len(numbers) - length * _LANES
    crc = 0xFFFFFFFF
    for byte in numbers[:head].tolist():
        crc = (crc >> 8) ^ int(_TABLE[(crc ^ byte) & 0xFF])
    if length:
        lanes = np.zeros(_LANES, np.uint32)
        lanes[0] = crc
        for column in numbers[head:].reshape(_LANES, length).T:
            lanes = (lanes >> np.uint32(8)) ^ _TABLE[(lanes ^ column) & np.uint32(0xFF)]
        crc = _joined(lanes, length)
    return crc ^ 0xFFFFFFFF


def _joined(lanes: np.ndarray, length: int) -> int:
    """The register after all lanes of `length` bytes. It is linear: what a lane leaves behind moves on through as many
    zeros as the next lane has bytes, and the two are added."""
    through = _through_zeros(length)
    while len(lanes) > 1:
        lanes = _apply(through, lanes[0::2]) ^ lanes[1::2]
        through = _apply(through, through)
    return int(lanes[0])


def _through_zeros(count: int) -> np.ndarray:
    """What `count` bytes of zeros make of each of the register's 32 bits: a matrix over GF(2), a row a bit."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    result, power = bits, (bits >> np.uint32(8)) ^ _TABLE[bits & np.uint32(0xFF)]
    while count:
        if count & 1:
            result = _apply(power, result)
        power, count = _apply(power, power), count >> 1
    return result


def _apply(matrix: np.ndarray, registers: np.ndarray) -> np.ndarray:
    out = np.zeros_like(registers)
    for bit in range(32):
        out ^= np.where(registers >> np.uint32(bit) & np.uint32(1), matrix[bit], np.uint32(0))
    return out


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> np.uint32(1) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table.astype(np.uint32)


_TABLE = _crc_table()


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise Malformed("a number that does not end")


def _handle(data: memoryview, at: int) -> tuple[int, int]:
    offset, at = _varint(data, at)
    size, _ = _varint(data, at)
    return offset, size


def _block(data: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    if offset + size + 5 > len(data) - _FOOTER or size < 4:
        raise Malformed("cut short, or damaged: a block lies outside the file")
    block = data[offset : offset + size]
    compression, checksum = struct.unpack_from("<BI", data, offset + size)
    if masked_crc(data[offset : offset + size + 1]) != checksum:
        raise Malformed(f"damaged: the checksum of the block at byte {offset} differs")
    if compression:
        raise Malformed(f"a block is compressed (kind {compression}), which TensorFlow does not do to checkpoints")
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    end = size - 4 - 4 * restarts
    if end < 0:
        raise Malformed("a block without room for its own index")
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or own + length > end - at:
            raise Malformed("a block with an entry that is longer than the block")
        key = key[:shared] + bytes(block[at : at + own])
        at += own
        yield key, block[at : at + length]
        at += length
