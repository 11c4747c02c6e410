"""Clips from encoded files, through PyAV: every frame of a short one, by seeking of a long one.

A short file is decoded twice, once to learn how many frames it has and when each appears (neither headers nor packets
are to be trusted with that), and once for the frames that are wanted. A file of more than EXACT packets is believed
what these say: it is read once without decoding, and then decoded from the last key frame before each frame that is
wanted. At any length, only frames that are wanted are ever kept.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hallujax.errors import DataError, UsageError

EXACT = 2000  # packets: 80 seconds of 25 frames each
MAX_PIXELS = 2**26  # a frame: twice 8K
# FFmpeg would also show a text file as a film of its letters, and a playlist would have it open other files.
CONTAINERS = (
    "3g2,3gp,apng,asf,avi,dv,flv,gif,h264,hevc,image2,ivf,jpeg_pipe,m4a,m4v,matroska,mj2,mjpeg,mov,mp3,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,ogg,png_pipe,wav,webm,yuv4mpegpipe"
)
RGB, DEPTH = "rgb24", "gray16le"  # FFmpeg's names of what a frame becomes
# What PyAV raises for damaged files beside FFmpeg's own errors: text that is none, times that cannot be, no memory.
_DAMAGE = (ValueError, ArithmeticError, LookupError, MemoryError)


class VideoFile:
    """A clip from a video file: upright as its display matrix has it, grey become RGB, transparency dropped.

    Attributes:
      times, end, unit: see `video.Clip`.
    """

    unit = "s"

    def __init__(self, path: pathlib.Path, pixels: str = RGB):
        """`pixels` is RGB, or DEPTH for uint16 `[H, W]` of a video that keeps 16 bits."""
        self._path, self._pixels = path, pixels
        shown, keys, discarded = [], [], 0
        with self._opened() as (container, stream):
            listed, declared, rate = "mp4" in container.format.name, stream.frames, float(stream.average_rate or 25)
            for packet in container.demux(stream):
                discarded += packet.is_discard
                if packet.size and not packet.is_discard:
                    shown.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
            tick = float(stream.time_base or 0)
        self._pts = self._keys = None  # of a file that is not decoded as a whole
        if len(shown) > EXACT and tick > 0 and None not in shown:
            self._pts, self._keys = np.sort(np.array(shown, np.int64)), np.sort(np.array(keys, np.int64))
            times, last = (self._pts - self._pts[0]) * tick, 0.0
        else:
            times, last = self._decoded_times(rate)
        if not len(times):
            raise DataError(f"{path}: a video without a single frame that can be decoded")
        # MP4 and its kin list their frames one by one; AVI counts those that it only repeats.
        if listed and len(times) < declared - discarded:
            raise DataError(f"{path}: damaged or cut short: {len(times)} of {declared - discarded} frames are there")
        self.times = np.maximum.accumulate(np.array(times) - times[0])
        usual = float(np.median(np.diff(self.times))) if len(times) > 1 else 1 / rate
        self.end = float(self.times[-1]) + (last or usual)

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        """See `video.Clip`."""
        with self._opened() as (container, stream):
            if self._pts is None:
                found = self._counted(container, stream, wanted)
            else:
                found = self._sought(container, stream, wanted)
            for frame in found:
                yield self._picture(frame)

    def _decoded_times(self, rate: float) -> tuple[list[float], float]:
        """When each frame appears, and for how long the last is shown."""
        times, last = [], 0.0
        with self._opened() as (container, stream):
            for frame in container.decode(stream):
                self._check_size(frame)
                times.append(len(times) / rate if frame.time is None else frame.time)
                last = float((frame.duration or 0) * (frame.time_base or 0))
        return times, last

    def _counted(self, container: Any, stream: Any, wanted: Sequence[int]) -> Iterator[Any]:
        """Decodes from the start, and counts."""
        decoded = enumerate(container.decode(stream))
        number, frame = -1, None
        for sought in wanted:
            while number < sought:
                number, frame = next(decoded, (None, None))
                if frame is None:
                    raise DataError(f"{self._path}: it has changed while it was read")
            yield frame

    def _sought(self, container: Any, stream: Any, wanted: Sequence[int]) -> Iterator[Any]:
        """Decodes what lies between the key frame before a wanted frame, or the frame before it, and that frame.

        Where a frame cannot be decoded, it is the next that can, or, at the end, the one that is still shown.
        """
        decoded, frame, at = container.decode(stream), None, -math.inf
        for sought in wanted:
            target = int(self._pts[sought])
            key = self._keys[max(0, np.searchsorted(self._keys, target, side="right") - 1)]
            if at < key <= target and key > self._keys[0]:
                decoded, frame, at = self._land(container, stream, target)
            while at < target:
                following, moment = self._next(decoded)
                if following is None:
                    break
                frame, at = following, moment
            if frame is None:
                raise DataError(f"{self._path}: damaged: no frame can be decoded at {self.times[sought]:.2f} s")
            yield frame

    def _land(self, container: Any, stream: Any, target: int) -> tuple[Iterator[Any], Any, float]:
        """Decoding from a key frame before a moment, with its first frame; MPEG-TS may land after where it is sent."""
        before, back = int(np.searchsorted(self._keys, target, side="right")) - 1, 0
        while True:
            container.seek(int(self._keys[max(0, before - back)]) if back else target, stream=stream)
            decoded = container.decode(stream)
            frame, at = self._next(decoded)
            if (frame is not None and at <= target) or back > before:
                return decoded, frame, at
            back = max(1, 2 * back)

    def _next(self, decoded: Iterator[Any]) -> tuple[Any, float]:
        """The next frame that says when it appears, and when; or None, before everything, at the end."""
        for frame in decoded:
            self._check_size(frame)
            moment = frame.dts if frame.pts is None else frame.pts
            if moment is not None:
                return frame, moment
        return None, -math.inf

    def _picture(self, frame: Any) -> np.ndarray:
        self._check_size(frame)
        if self._pixels == DEPTH and not frame.format.name.startswith("gray16"):
            raise DataError(
                f"{self._path}: depth needs 16 bits a pixel, this video is {frame.format.name}; FFV1 can keep gray16le"
            )
        return np.rot90(frame.to_ndarray(format=self._pixels), round(frame.rotation / 90))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container and its first stream of moving pictures; what FFmpeg raises becomes a DataError."""
        av = require_pyav()
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
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
                streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                streams[0].thread_type = "AUTO"
                yield container, streams[0]
        except (av.FFmpegError, *_DAMAGE) as error:
            raise DataError(f"{self._path}: not a video that FFmpeg can read ({one_line(error)})") from error

    def _check_size(self, picture: Any) -> None:
        if picture.width * picture.height > MAX_PIXELS:
            raise DataError(f"{self._path}: frames of {picture.width}x{picture.height} pixels are too large")


def require_pyav() -> Any:
    """PyAV, or a UsageError that says how to install it."""
    try:
        import av
    except ImportError as error:
        raise UsageError(
            "reading videos needs PyAV: pip install 'hallujax[video]'; folders of pictures need nothing"
        ) from error
    return av


def one_line(error: Exception) -> str:
    """The first line of what an error says, else its kind."""
    said = str(getattr(error, "strerror", None) or error).strip().splitlines()
    return (said or [type(error).__name__])[0][:200]
