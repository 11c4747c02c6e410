"""A camera, frame by frame as they come."""

import re
import sys
import time
from collections.abc import Iterator

import numpy as np

from hallujax.deploy.container import RGB, one_line, require_pyav
from hallujax.errors import DataError, UsageError

# FFmpeg's input device for cameras, and what it calls the camera of a number.
DEVICES = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


def watch(camera: str) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of a camera, uint8 `[H, W, 3]`, each with the seconds since the first; ends when the camera does.

    Args:
      camera: a number (0 is the first), the name of a device (`/dev/video2`; on Windows `video=NAME` alone), or
        `FORMAT:DEVICE` for any other of FFmpeg's input devices, say `x11grab::0.0` or `lavfi:testsrc2=duration=5`.

    Raises:
      DataError: if it cannot be opened or read.
      UsageError: if PyAV is missing or has no such input device.
    """
    av = require_pyav()
    kind, device = _device(camera)
    first = None
    try:
        with av.open(device, format=kind, metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataError(f"camera {camera}: it gives no pictures")
            for frame in container.decode(container.streams.video[0]):
                moment = time.monotonic() if frame.time is None else frame.time
                first = moment if first is None else first
                yield moment - first, np.rot90(frame.to_ndarray(format=RGB), round(frame.rotation / 90))
    except (av.FFmpegError, ValueError) as error:
        if "no container format" in str(error):
            raise UsageError(f"camera {camera}: PyAV was built without the input device {kind!r} here") from error
        raise DataError(f"camera {camera}: cannot be read ({one_line(error)})") from error


def _device(camera: str) -> tuple[str, str]:
    """FFmpeg's input device and the name it is opened by."""
    named = re.fullmatch(r"([a-z0-9_]{3,}):(.+)", camera)
    if named:
        return named[1], named[2]
    if sys.platform not in DEVICES:
        raise UsageError(f"no input device is known for {sys.platform}; give --camera FORMAT:DEVICE of FFmpeg")
    kind, numbered = DEVICES[sys.platform]
    return kind, numbered.format(camera) if camera.isdigit() else camera
