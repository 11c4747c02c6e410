"""Clips of any origin: video files, folders of pictures, arrays and files of them; read in order, in little memory."""

import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from hallujax.deploy.container import DEPTH, MAX_PIXELS, VideoFile, one_line
from hallujax.errors import DataError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_UNREADABLE = (OSError, SyntaxError, ValueError, MemoryError, Image.DecompressionBombError)


class Clip(Protocol):
    """Frames and the moments at which they appear.

    Attributes:
      times: `[N]`, not decreasing, from 0.
      end: when the last frame is over.
      unit: of both: `s`, or `frames` where there is no clock.
    """

    times: np.ndarray
    end: float
    unit: str

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames of these numbers, which must not decrease, each uint8 `[H, W, 3]`."""
        ...


def open_clip(source: Any) -> Clip:
    """A clip from the path of a video, a folder of pictures or an .npy file, or from frames uint8 `[T, H, W, 3]`.

    Raises:
      DataError: if there is no such file or it cannot be read, or the array is of another shape or type.
      UsageError: if a video is to be read and PyAV is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        return Frames(source)
    path = _existing(source)
    if path.is_dir():
        return Folder(path)
    return Frames(_array(path), f"{path}: ") if path.suffix == ".npy" else VideoFile(path)


def open_depth(source: Any) -> Clip:
    """Depth in millimetres, 0 for no return, of the same kinds: frames are uint16 `[H, W]`.

    A folder holds 16-bit grey pictures; a video keeps 16 bits (FFV1 does, as gray16le).

    Raises:
      DataError, UsageError: as `open_clip`, and for fewer bits.
    """
    if not isinstance(source, str | os.PathLike):
        return DepthFrames(source)
    path = _existing(source)
    if path.is_dir():
        return Folder(path, _depth_picture)
    return DepthFrames(_array(path), f"{path}: ") if path.suffix == ".npy" else VideoFile(path, DEPTH)


def _existing(source: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(source)
    try:
        if path.is_dir() or path.is_file():
            return path
    except (OSError, ValueError) as error:  # a name that is too long, or no name
        raise DataError(f"{str(path)[:200]!r}: {one_line(error)}") from error
    raise DataError(f"{path}: no such file or folder")


def _array(path: pathlib.Path) -> np.ndarray:
    """What an .npy file holds, read as far as it is looked at."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, *_UNREADABLE) as error:
        raise DataError(f"{path}: not a readable .npy file ({one_line(error)})") from error


def fit(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame uint8 `[H, W, 3]` at `size` (height, width): the largest centred part of that shape, resized.

    Shrinking takes the means over areas, enlarging interpolates linearly; a frame of that size is left as it is.
    """
    height, width = frame.shape[:2]
    if (height, width) == size:
        return frame
    scale = min(height / size[0], width / size[1])  # of the frame's pixels to one of the result's
    top, left = max(0.0, (height - scale * size[0]) / 2), max(0.0, (width - scale * size[1]) / 2)
    resampling = Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR
    box = (left, top, width - left, height - top)
    return np.asarray(Image.fromarray(frame).resize(size[::-1], resampling, box=box))


def fit_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A depth map `[H, W]` as `fit` has it, of each pixel the nearest: depths are never mixed."""
    (height, width), scale = depth.shape, min(depth.shape[0] / size[0], depth.shape[1] / size[1])

    def nearest(pixels: int, wanted: int) -> np.ndarray:
        places = (pixels - scale * wanted) / 2 + (np.arange(wanted) + 0.5) * scale - 0.5
        return np.clip(np.rint(places).astype(int), 0, pixels - 1)

    return depth[np.ix_(nearest(height, size[0]), nearest(width, size[1]))]


class Frames:
    """A clip from an array; `where` goes before what is wrong with it."""

    unit, kind, dtype, shape = "frames", "frames", np.uint8, (3,)

    def __init__(self, frames: Any, where: str = ""):
        try:
            self._frames = np.asarray(frames)
        except ValueError as error:
            raise DataError(f"{where}{self.kind} must be all of one size ({one_line(error)})") from error
        dtype, found = self._frames.dtype, self._frames.shape
        if len(found) != 3 + len(self.shape) or found[3:] != self.shape or dtype != self.dtype:
            inside = "".join(f", {side}" for side in self.shape)
            hint = "; scale them to 0..255 and convert them" if dtype.kind == "f" and self.shape else ""
            must = f"{np.dtype(self.dtype)} [T, H, W{inside}]"
            raise DataError(f"{where}{self.kind} must be {must}, these are {dtype}{[*found]}{hint}")
        if not self._frames.size:
            raise DataError(f"{where}{self.kind} are empty: {[*found]}")
        if found[1] * found[2] > MAX_PIXELS:
            raise DataError(f"{where}{self.kind} of {found[2]}x{found[1]} pixels are too large")
        self.times, self.end = np.arange(len(self._frames), dtype=float), float(len(self._frames))

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            yield np.asarray(self._frames[number])


class DepthFrames(Frames):
    """Depth from an array uint16 `[T, H, W]`, millimetres."""

    kind, dtype, shape = "depth", np.uint16, ()


class Folder:
    """A clip from the pictures in a folder, in natural order (2.png before 10.png); files of other kinds do not count.

    Their orientation is honoured, grey becomes RGB, transparency is dropped.
    """

    unit = "frames"

    def __init__(self, path: pathlib.Path, read: Callable[[pathlib.Path], np.ndarray] | None = None):
        """`read` makes a frame of a file; a picture's RGB if not said."""
        self._read = _picture if read is None else read
        try:
            pictures = [file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.is_file()]
        except OSError as error:
            raise DataError(f"{path}: {one_line(error)}") from error
        if not pictures:
            raise DataError(f"{path}: no pictures in this folder ({', '.join(PICTURES)})")
        self._pictures = sorted(pictures, key=lambda file: _natural(file.name))
        self.times, self.end = np.arange(len(pictures), dtype=float), float(len(pictures))

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            yield self._read(self._pictures[number])


def _natural(name: str) -> list[tuple[int, str]]:
    """`frame10` as `("frame", 10)`, in a form that compares."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _picture(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels are too many")
            if picture.mode.startswith(("I", "F")):
                raise DataError(f"{path}: pictures of 16 bits and more are no RGB; is this depth?")
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable picture ({one_line(error)})") from error


def _depth_picture(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels are too many")
            if not picture.mode.startswith("I;16"):
                raise DataError(f"{path}: depth is 16-bit grey in millimetres, this picture is {picture.mode}")
            return np.asarray(picture).astype(np.uint16)
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable picture ({one_line(error)})") from error
