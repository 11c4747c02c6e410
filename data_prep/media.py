"""Reads videos and pictures of raw datasets; whatever is wrong with a file is a `DataError` that names it."""

import pathlib
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from hallujax.errors import DataError, UsageError

# Named rather than probed: FFmpeg would follow a playlist of that name to other files and hosts.
VIDEOS = {
    ".avi": "avi",
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "matroska",
}
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_MAX_PIXELS = 64_000_000  # a picture that claims more is refused before it is decoded
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def require_pyav() -> None:
    """Raises `UsageError` where videos cannot be decoded."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise UsageError("reading videos needs PyAV: pip install 'hallujax[video]'") from error


def video(path: pathlib.Path, pixel_format: str = "rgb24") -> Iterator[np.ndarray]:
    """Frames of a video, `rgb24` uint8 `[H, W, 3]` or `gray16le` uint16 `[H, W]`.

    Raises:
      DataError: the file is damaged, or has fewer frames than it announces (FFmpeg ends early without an error), or
        fewer than 16 bits where `gray16le` is asked for.
    """
    import av

    count = 0
    try:
        with av.open(
            str(path), format=VIDEOS[path.suffix.lower()], options={"protocol_whitelist": "file"}
        ) as container:
            if not container.streams.video:
                raise DataError(f"{path.name}: no video in it")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # the workers share the cores
            announced = stream.frames
            if pixel_format == "gray16le" and not (stream.format and stream.format.name.startswith("gray16")):
                name = stream.format.name if stream.format else "of an unknown format"
                raise DataError(f"{path.name}: depth must have 16 bits, this video is {name}; FFV1 can keep gray16le")
            for frame in container.decode(stream):
                yield frame.to_ndarray(format=pixel_format)
                count += 1
    except (av.FFmpegError, AttributeError, *_UNREADABLE) as error:  # PyAV has no decoder where the header is damaged
        raise DataError(f"{path.name}: damaged video ({_reason(error)})") from error
    if count == 0:
        raise DataError(f"{path.name}: a video without frames")
    if announced - count > 1:
        raise DataError(f"{path.name}: truncated, {count} of {announced} frames")


def video_size(path: pathlib.Path) -> tuple[int, int, int]:
    """(frames announced, height, width); zeros where the file does not say or cannot be read."""
    import av

    try:
        with av.open(
            str(path), format=VIDEOS[path.suffix.lower()], options={"protocol_whitelist": "file"}
        ) as container:
            stream = container.streams.video[0]
            return stream.frames, stream.height, stream.width
    except (av.FFmpegError, *_UNREADABLE, IndexError, AttributeError):
        return 0, 0, 0


def picture(path: pathlib.Path) -> np.ndarray:
    """A picture of any 8-bit kind as uint8 `[H, W, 3]`.

    Raises:
      DataError: it is damaged, or has 16 bits.
    """
    image = _open(path)
    if image.mode.startswith("I"):
        raise DataError(f"{path.name}: 16 bits where 8 are expected")
    return np.asarray(image.convert("RGB"))


def deep_picture(path: pathlib.Path) -> np.ndarray:
    """A grey picture of 16 bits, uint16 `[H, W]`.

    Raises:
      DataError: it is damaged, or has 8 bits: those of depth are pictures of it, not millimetres.
    """
    image = _open(path)
    if not image.mode.startswith("I;16"):
        raise DataError(f"{path.name}: 16-bit grey is expected, it is {image.mode}")
    return np.asarray(image).astype(np.uint16, copy=False)


def is_deep(path: pathlib.Path) -> bool:
    """Whether a picture or the first frame of a video has 16 bits; False where it cannot be read."""
    if path.suffix.lower() in VIDEOS:
        import av

        try:
            with av.open(str(path), format=VIDEOS[path.suffix.lower()]) as container:
                return container.streams.video[0].format.name.startswith("gray16")
        except (av.FFmpegError, *_UNREADABLE, IndexError, AttributeError):
            return False
    try:
        with Image.open(path) as image:
            return image.mode.startswith("I;16")
    except (*_UNREADABLE, UnidentifiedImageError):
        return False


def numbered(names: list[str]) -> dict[int, str]:
    """File names by the last number in each, in its order; by position where two have the same or one has none."""
    numbers = [re.findall(r"\d+", pathlib.PurePath(name).stem) for name in names]
    found = {int(digits[-1]): name for digits, name in zip(numbers, names, strict=True) if digits}
    if len(found) < len(names):
        found = dict(enumerate(sorted(names)))
    return dict(sorted(found.items()))


def _open(path: pathlib.Path) -> Image.Image:
    """A decoded picture, its checksums compared where the format has any (PNG), which decoding alone does not."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path.name}: empty file")
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DataError(f"{path.name}: {image.width}x{image.height} pixels")
            image.load()
            return image
    except (*_UNREADABLE, UnidentifiedImageError) as error:
        raise DataError(f"{path.name}: damaged picture ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
