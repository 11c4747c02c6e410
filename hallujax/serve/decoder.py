"""The decoding process, `python -m hallujax.serve.decoder SOCKET SETTINGS`: descriptors of videos in, frames out.

It decodes nothing itself. For every file it forks a child that may take so much memory and time and no more, and that a
hostile file may crash: the next file gets a fresh one, 20 ms of Python's start-up paid once. Nothing here imports JAX.

An answer is four bytes, the length of a JSON header, the header, and as many bytes of pixels as its `bytes` says.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import av
import numpy as np

from hallujax.data.clips import uniform_frames
from hallujax.deploy.container import CONTAINERS, VideoFile, one_line
from hallujax.deploy.video import fit
from hallujax.errors import DataError

LENGTH = struct.Struct("!I")
OPEN_FILES = 32  # of a child; it needs a handful


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every child is told: T frames of `frame_size` (height, width), and `limits.Limits`' bounds."""

    frames: int
    frame_size: tuple[int, int]
    clip_seconds: float
    frame_pixels: int
    decode_seconds: float
    decode_bytes: int


class Unsupported(DataError):
    """Not a video, or none that this FFmpeg decodes."""


class Upload(VideoFile):
    """A clip from an open file, within limits."""

    def __init__(self, file: BinaryIO, settings: Settings):
        self._file, self._settings = file, settings
        super().__init__(pathlib.Path("this file"))
        self._check_length(self.end)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """As in VideoFile; whatever else a container refers to, there is no protocol to open it with."""
        self._file.seek(0)
        bound = {"max_pixels": str(self._settings.frame_pixels)}  # FFmpeg itself decodes no larger frame
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none", **bound}
        try:
            container = av.open(self._file, options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as error:
            _raise_if_memory(error)
            raise Unsupported("this is not a video that FFmpeg can read") from error
        with container:
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not streams:
                raise Unsupported(f"there is {'sound alone' if container.streams.audio else 'no video'} in this file")
            if streams[0].codec_context is None:
                raise Unsupported("no decoder here knows this video's codec")
            if container.duration is not None:
                self._check_length(container.duration / av.time_base)
            self._check_size(streams[0].codec_context)
            streams[0].codec_context.options = bound
            try:
                yield container, streams[0]
            except (av.FFmpegError, ValueError, ArithmeticError, LookupError) as error:
                _raise_if_memory(error)
                raise DataError(f"this video is damaged ({one_line(error)})") from error

    def _check_size(self, picture: Any) -> None:
        most, pixels = self._settings.frame_pixels, picture.width * picture.height
        if not 0 < pixels <= most:
            size = f"{picture.width}x{picture.height} pixels" if pixels else "a size that is unknown or too large"
            raise DataError(f"frames of {size}; this server takes up to {most / 1e6:.1f} megapixels")

    def _check_length(self, seconds: float) -> None:
        if seconds > self._settings.clip_seconds:
            raise DataError(
                f"a clip of {seconds:,.0f} seconds is too long; this server takes {self._settings.clip_seconds:g}"
            )


def decode(file: BinaryIO, settings: Settings) -> tuple[dict[str, Any], np.ndarray]:
    """What there is to say of a video, and its frames uint8 `[T, H, W, 3]` as the networks see them.

    Raises:
      DataError: if it cannot be read, or is beyond a limit; Unsupported if it is none of the formats known.
    """
    clip = Upload(file, settings)
    wanted = uniform_frames(len(clip.times), settings.frames)
    frames = np.stack([fit(frame, settings.frame_size) for frame in clip.frames(wanted)])
    about = {"seconds": clip.end, "length": len(clip.times), "sampled": clip.times[wanted].tolist()}
    return about, frames


def main(arguments: Sequence[str]) -> None:
    control = socket.socket(fileno=int(arguments[0]))
    settings = Settings(**json.loads(arguments[1]))
    while True:
        message, files, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        child = os.fork()
        if child == 0:
            try:
                _answer(control, files[0], settings)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(files[0])
        _, status = os.waitpid(child, 0)
        if status:
            _send(control, {"kind": "killed", "signal": -os.waitstatus_to_exitcode(status)})


def _answer(control: socket.socket, descriptor: int, settings: Settings) -> None:
    frames = np.empty(0, np.uint8)
    try:
        _confine(settings)
        with os.fdopen(descriptor, "rb") as file:
            about, frames = decode(file, settings)
        header = {"kind": "frames", "shape": frames.shape, **about}
    except Unsupported as error:
        header = {"kind": "unsupported", "message": str(error)}
    except DataError as error:
        header = {"kind": "unreadable", "message": str(error)}
    except MemoryError:
        header = {"kind": "memory"}
    except Exception as error:  # a file that breaks the decoder in a new way: said to its owner, and in our log
        traceback.print_exc()
        header = {"kind": "unreadable", "message": f"this video cannot be decoded ({type(error).__name__})"}
    signal.setitimer(signal.ITIMER_REAL, 0)
    _send(control, header, frames.tobytes())


def _confine(settings: Settings) -> None:
    """Memory, files and time: a child beyond them gets a MemoryError, an OSError, or the alarm that ends it."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/statm") as file:  # Linux, which enforces RLIMIT_AS
        now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + settings.decode_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, settings.decode_seconds)


def _raise_if_memory(error: Exception) -> None:
    if isinstance(error, MemoryError):
        raise MemoryError from error


def _send(control: socket.socket, header: dict[str, Any], pixels: bytes = b"") -> None:
    text = json.dumps(header | {"bytes": len(pixels)}).encode()
    control.sendall(LENGTH.pack(len(text)) + text + pixels)


if __name__ == "__main__":
    main(sys.argv[1:])
