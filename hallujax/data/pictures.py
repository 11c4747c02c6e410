"""Decodes pictures, into arrays that are there already."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from hallujax.data.plain_png import decode_depth


def decode_picture(encoded: bytes, out: np.ndarray) -> None:
    """Decodes the bytes of a picture into `out`, uint8 `[H, W, 3]` or `[H, W]`, or uint16 `[H, W]`.

    What Pillow makes of them: an ordinary JPEG comes from libjpeg-turbo itself and a PNG of `plain_png` from zlib, with
    the same bits in less than half the time. Whatever is neither, or gives rise to a warning, is Pillow's to read or to
    refuse.

    Raises:
        ValueError: it is no picture, or one of another size or type.
        Exception: of many kinds, by which Pillow says what is damaged.
    """
    if not (decode_depth if out.dtype == np.uint16 else _decode_jpeg)(encoded, out):
        _decode_any(encoded, out)


def _decode_jpeg(encoded: bytes, out: np.ndarray) -> bool:
    """Whether it was a flawless colour JPEG of the right size."""
    import simplejpeg  # benchmarks of a GPU do without it

    if not encoded.startswith(b"\xff\xd8"):
        return False
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(encoded)
        if (height, width, 3) != out.shape or colors != "YCbCr":
            return False
        simplejpeg.decode_jpeg(encoded, buffer=out)
    except ValueError:  # libjpeg-turbo's warnings too
        return False
    return True


def _decode_any(encoded: bytes, out: np.ndarray) -> None:
    try:
        picture = Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        raise ValueError("it is no picture") from None  # Pillow's own text tells an address in memory
    with picture:
        height, width = out.shape[:2]
        if picture.size != (width, height):  # before anything of that size is made in memory
            raise ValueError(f"it is {picture.size[0]}x{picture.size[1]}, not {width}x{height}")
        decoded = np.asarray(picture)
    if (decoded.shape, decoded.dtype) != (out.shape, out.dtype):
        raise ValueError(f"it is {decoded.dtype}{list(decoded.shape)}, not {out.dtype}{list(out.shape)}")
    out[...] = decoded
