"""Unfiltered PNG of depth: Pillow reads what is written, and we read what Pillow does or leave it alone."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from hallujax.data.pictures import decode_picture
from hallujax.data.plain_png import _chunk, _head, decode_depth, encode_depth


def by_pillow(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def depth(height: int = 20, width: int = 30) -> np.ndarray:
    return (np.arange(height)[:, None] * 997 + np.arange(width) * 3).astype(np.uint16)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_pillow_and_we_read_what_was_written(frame):
    encoded = encode_depth(frame)
    np.testing.assert_array_equal(by_pillow(encoded), frame)
    out = np.zeros_like(frame)
    assert decode_depth(encoded, out)
    np.testing.assert_array_equal(out, frame)


def test_however_the_frame_lies_in_memory():
    for frame in (depth().T, depth()[::-1, ::2], depth().astype(">u2"), np.asfortranarray(depth())):
        np.testing.assert_array_equal(by_pillow(encode_depth(frame)), frame)
    with pytest.raises(TypeError):
        encode_depth(depth().astype(np.int32))


def test_pillows_own_files_are_left_to_it():
    encoded = io.BytesIO()
    Image.fromarray(depth()).save(encoded, "PNG")
    out = np.zeros((20, 30), np.uint16)
    assert not decode_depth(encoded.getvalue(), out) and not out.any()
    decode_picture(encoded.getvalue(), out)
    np.testing.assert_array_equal(out, depth())


def test_any_harm_is_noticed_or_does_none():
    """Every cut, and a bit flipped in every byte: the picture as it was, or an error."""
    whole = encode_depth(depth())
    flipped = [whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :] for i in range(len(whole))]
    noticed = 0
    for encoded in [whole[:length] for length in range(len(whole))] + flipped:
        out = np.zeros((20, 30), np.uint16)
        try:
            decode_picture(encoded, out)
        except Exception:
            noticed += 1
        else:
            np.testing.assert_array_equal(out, depth())
    assert noticed > len(whole)


@pytest.mark.parametrize("length", [0, 10, 20 * 61 - 1, 20 * 61 + 1, 1 << 24])
def test_a_stream_of_another_length_is_damage(length):
    encoded = _head(20, 30) + _chunk(b"IDAT", zlib.compress(bytes(length))) + _chunk(b"IEND", b"")
    with pytest.raises((ValueError, OSError), match="do not inflate to 1220 bytes" if length else "truncated"):
        decode_picture(encoded, np.zeros((20, 30), np.uint16))


def test_filtered_rows_are_not_taken():
    rows = np.zeros((20, 61), np.uint8)
    rows[7, 0], rows[6, 6] = 2, 9  # as the row above
    encoded = _head(20, 30) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    out = np.zeros((20, 30), np.uint16)
    assert not decode_depth(encoded, out)
    decode_picture(encoded, out)
    assert out[7, 2] == out[6, 2] == 9 and out.sum() == 18
