"""Real files for the tests of deployment, encoded with PyAV."""

import fractions
import pathlib

import av
import numpy as np

MILLISECOND = fractions.Fraction(1, 1000)


def write_video(
    path: pathlib.Path,
    frames: np.ndarray,
    *,
    codec: str = "png",
    pixels: str = "rgb24",
    layout: str = "rgb24",
    times: list[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> pathlib.Path:
    """A video of `frames`, lossless by default.

    Args:
      codec, pixels, options: of the encoder.
      layout: PyAV's name for the layout of `frames`.
      times: of the frames, milliseconds; 25 a second if not said.
      rotation: degrees counter-clockwise, in the display matrix.
    """
    in_front = {"movflags": "faststart"} if path.suffix in (".mov", ".mp4") else {}  # the index: cut files keep it
    with av.open(str(path), "w", options=in_front) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.time_base = stream.codec_context.time_base = MILLISECOND
        if rotation:
            stream.set_display_rotation(rotation)
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format=layout)
            frame.pts, frame.time_base = times[i] if times else 40 * i, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: pathlib.Path) -> pathlib.Path:
    """Half a second of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(count: int, height: int = 24, width: int = 32, channels: int = 3) -> np.ndarray:
    """Random frames uint8 `[count, height, width, channels]`."""
    shape = (count, height, width, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
