"""Clips of any origin: video files through PyAV, folders of pictures, arrays; read in order and in little memory.

A file is decoded twice, once to learn how many frames it has and when each appears (neither headers nor packets are
to be trusted with that), and once for the frames that are wanted: at any length, only these are ever kept.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from hallujax.errors import DataError, UsageError

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 2**26  # a frame: twice 8K
# FFmpeg would also show a text file as a film of its letters, and a playlist would have it open other files.
CONTAINERS = (
    "3g2,3gp,apng,asf,avi,dv,flv,gif,h264,hevc,image2,ivf,jpeg_pipe,m4a,m4v,matroska,mj2,mjpeg,mov,mp3,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,ogg,png_pipe,wav,webm,yuv4mpegpipe"
)


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
    """A clip from the path of a video, the path of a folder of pictures, or frames uint8 `[T, H, W, 3]`.

    Raises:
      DataError: if there is no such file or it cannot be read, or the array is of another shape or type.
      UsageError: if a video is to be read and PyAV is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        return Frames(source)
    path = pathlib.Path(source)
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    return VideoFile(path)


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


class Frames:
    """A clip from an array."""

    unit = "frames"

    def __init__(self, frames: Any):
        self._frames = np.asarray(frames)
        if self._frames.ndim != 4 or self._frames.shape[-1] != 3 or self._frames.dtype != np.uint8:
            raise DataError(
                f"frames must be uint8 [T, H, W, 3], these are {self._frames.dtype}{list(self._frames.shape)}"
            )
        if not self._frames.size:
            raise DataError(f"frames are empty: {list(self._frames.shape)}")
        self.times, self.end = np.arange(len(self._frames), dtype=float), float(len(self._frames))

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            yield self._frames[number]


class Folder:
    """A clip from the pictures in a folder, in natural order (2.png before 10.png); files of other kinds do not count.

    Their orientation is honoured, grey becomes RGB, transparency is dropped.
    """

    unit = "frames"

    def __init__(self, path: pathlib.Path):
        pictures = [file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.is_file()]
        if not pictures:
            raise DataError(f"{path}: no pictures in this folder ({', '.join(PICTURES)})")
        self._pictures = sorted(pictures, key=lambda file: _natural(file.name))
        self.times, self.end = np.arange(len(pictures), dtype=float), float(len(pictures))

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        for number in wanted:
            yield _picture(self._pictures[number])


def _natural(name: str) -> list[tuple[int, str]]:
    """`frame10` as `("frame", 10)`, in a form that compares."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def _picture(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}x{picture.height} pixels are too many")
            if picture.mode.startswith(("I", "F")):
                raise DataError(f"{path}: pictures of 16 bits and more are no RGB; is this depth?")
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable picture ({_one_line(error)})") from error


class VideoFile:
    """A clip from a video file: upright as its display matrix has it, grey become RGB, transparency dropped."""

    unit = "s"

    def __init__(self, path: pathlib.Path):
        self._path = path
        times, durations, discarded = [], [], 0
        with self._opened() as (container, stream):
            listed = "mp4" in container.format.name
            declared, rate = stream.frames, float(stream.average_rate or 25)
            for packet in container.demux(stream):
                discarded += packet.is_discard
                for frame in packet.decode():
                    self._check_size(frame)
                    times.append(len(times) / rate if frame.time is None else frame.time)
                    durations.append(float((frame.duration or 0) * (frame.time_base or 0)))
        if not times:
            raise DataError(f"{path}: a video without a single frame that can be decoded")
        # MP4 and its kin list their frames one by one; AVI counts those that it only repeats.
        if listed and len(times) < declared - discarded:
            raise DataError(f"{path}: damaged or cut short: {len(times)} of {declared - discarded} frames are there")
        self.times = np.maximum.accumulate(np.array(times) - times[0])
        usual = float(np.median(np.diff(self.times))) if len(times) > 1 else 1 / rate
        self.end = float(self.times[-1]) + (durations[-1] or usual)

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        wanted = list(wanted)
        done = 0
        with self._opened() as (container, stream):
            for number, frame in enumerate(container.decode(stream)):
                if done < len(wanted) and wanted[done] == number:
                    picture = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    while done < len(wanted) and wanted[done] == number:
                        yield picture
                        done += 1
                if done == len(wanted):
                    return
        raise DataError(f"{self._path}: it has changed while it was read")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container and its first stream of moving pictures; what FFmpeg raises becomes a DataError."""
        try:
            import av
        except ImportError as error:
            raise UsageError(
                "reading videos needs PyAV: pip install 'hallujax[video]'; folders of pictures need nothing"
            ) from error
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        try:
            with av.open(str(self._path.resolve()), options=options, metadata_errors="replace") as container:
                cover = av.stream.Disposition.attached_pic
                streams = [stream for stream in container.streams.video if not stream.disposition & cover]
                if not streams:
                    what = "sound alone" if container.streams.audio else "no video stream"
                    raise DataError(f"{self._path}: it holds {what}")
                if streams[0].codec_context is None:
                    raise DataError(f"{self._path}: a video that no decoder here knows")
                self._check_size(streams[0].codec_context)
                streams[0].thread_type = "AUTO"
                yield container, streams[0]
        except av.FFmpegError as error:
            raise DataError(f"{self._path}: not a video that FFmpeg can read ({_one_line(error)})") from error

    def _check_size(self, picture: Any) -> None:
        if picture.width * picture.height > MAX_PIXELS:
            raise DataError(f"{self._path}: frames of {picture.width}x{picture.height} pixels are too large")


def _one_line(error: Exception) -> str:
    return (str(getattr(error, "strerror", None) or error).strip().splitlines() or [type(error).__name__])[0][:200]
