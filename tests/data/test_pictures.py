"""The fast way of a JPEG against Pillow's: the same bits, and Pillow's own word on all that is not an ordinary one."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hallujax.data import pictures
from hallujax.data.pictures import decode_picture


def encode(array: np.ndarray, kind: str = "JPEG", mode: str | None = None, **options) -> bytes:
    encoded = io.BytesIO()
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(encoded, kind, **options)
    return encoded.getvalue()


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Bands and noise, uint8 [H, W, 3]."""
    bands = np.add.outer(np.arange(height), 2 * np.arange(width))[..., None] * np.array([1, 2, 3])
    return (bands % 200 + np.random.default_rng(seed).integers(0, 55, (height, width, 3))).astype(np.uint8)


def by_pillow(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    optimize=st.booleans(),
    restart=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 9),
)
def test_every_ordinary_jpeg_has_pillows_bits(height, width, restart, seed, **options):
    encoded = encode(scene(height, width, seed), restart_marker_rows=restart, **options)
    out = np.zeros((height, width, 3), np.uint8)
    assert pictures._decode_jpeg(encoded, out)
    np.testing.assert_array_equal(out, by_pillow(encoded))


@pytest.mark.parametrize(
    ("encoded", "shape", "dtype"),
    [
        (encode(scene(30, 20), "PNG"), (30, 20, 3), np.uint8),
        (encode(scene(30, 20)[..., 0].astype(np.uint16) * 250, "PNG"), (30, 20), np.uint16),
        (encode(scene(30, 20)[..., 0]), (30, 20), np.uint8),  # a grey JPEG
        (encode(scene(30, 20), keep_rgb=True), (30, 20, 3), np.uint8),  # a JPEG of red, green and blue
    ],
    ids=["png", "png16", "grey", "rgb"],
)
def test_other_pictures_are_pillows(encoded, shape, dtype):
    out = np.zeros(shape, dtype)
    decode_picture(encoded, out)
    np.testing.assert_array_equal(out, by_pillow(encoded))


def test_only_its_own_frame_is_written():
    out = np.full((3, 24, 40, 3), 7, np.uint8)
    decode_picture(encode(scene(24, 40)), out[1])
    assert (out[[0, 2]] == 7).all() and (out[1] != 7).any()


def test_what_libjpeg_warns_of_is_read_as_ever():
    """Rubbish before a marker: Pillow reads it, and so do we; the same bits."""
    encoded = encode(scene(32, 48))
    scan = encoded.index(b"\xff\xda")
    encoded = encoded[:scan] + b"rubbish" + encoded[scan:]
    out = np.zeros((32, 48, 3), np.uint8)
    assert not pictures._decode_jpeg(encoded, out)
    decode_picture(encoded, out)
    np.testing.assert_array_equal(out, by_pillow(encoded))


@pytest.mark.parametrize(
    ("encoded", "what"),
    [
        (b"", "no picture"),
        (b"\xff\xd8", "(?i:no picture|truncated)"),
        (b"\xff\xd8\xff\xe0 no more", "(?i:no picture|truncated)"),
        (encode(scene(24, 32)), "it is 32x24, not 32x32"),
        (encode(scene(32, 32)[..., 0]), r"it is uint8\[32, 32\], not uint8\[32, 32, 3\]"),
        (encode(scene(32, 32), mode="CMYK"), r"it is uint8\[32, 32, 4\], not uint8\[32, 32, 3\]"),
    ],
)
def test_what_is_refused(encoded, what):
    with pytest.raises(Exception, match=what):
        decode_picture(encoded, np.zeros((32, 32, 3), np.uint8))


def test_no_cut_of_a_jpeg_passes_for_whole():
    """Pillow's verdict on every length: mostly an error; without its last marker alone it is whole."""
    encoded = encode(scene(32, 32))
    for length in range(len(encoded)):
        out, cut = np.zeros((32, 32, 3), np.uint8), encoded[:length]
        try:
            expected = by_pillow(cut)
        except Exception:
            with pytest.raises(Exception):  # noqa: B017 - Pillow raises many kinds
                decode_picture(cut, out)
        else:
            decode_picture(cut, out)
            np.testing.assert_array_equal(out, expected)
