"""Writes the files of raw datasets: real videos by PyAV, PNGs of 8 and 16 bits."""

import pathlib

import av
import numpy as np
from PIL import Image


def write_video(path: pathlib.Path, frames: np.ndarray, codec: str = "mpeg4", rate: int = 30) -> pathlib.Path:
    """`frames`: uint8 `[T, H, W, 3]`, or uint16 `[T, H, W]` for a codec that keeps them (ffv1)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deep = frames.dtype == np.uint16
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gray16le" if deep else "yuv420p"
        stream.bit_rate = 8_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray16le" if deep else "rgb24")))
        container.mux(stream.encode())
    return path


def write_pictures(folder: pathlib.Path, frames: np.ndarray, name: str = "{:03}.png") -> pathlib.Path:
    """`frames`: uint8 `[T, H, W]` or `[T, H, W, 3]`, or uint16 `[T, H, W]`; numbered from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def moving_square(frames: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright square that moves over a dark ground, as RGB uint8 and depth in millimetres."""
    rng = np.random.default_rng(seed)
    side = height // 4
    tops, lefts = rng.integers(0, height - side, frames), rng.integers(0, width - side, frames)
    rgb = np.full((frames, height, width, 3), 30, np.uint8)
    depth = np.full((frames, height, width), 3000, np.uint16)
    for t, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        rgb[t, top : top + side, left : left + side] = (220, 60, 90)
        depth[t, top : top + side, left : left + side] = 1500 + 10 * t
    return rgb, depth
