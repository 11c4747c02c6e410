"""RGB that is poorer than what was recorded, as if by a worse camera: the same noise wherever a frame is read."""

import zlib

import numpy as np


def add_noise(frames: np.ndarray, clips: np.ndarray, numbers: np.ndarray, deviation: float) -> np.ndarray:
    """Frames with normal noise, drawn anew for every value, rounded and saturated.

    A draw belongs to a frame of a clip: it is the same in training and test, in every stage and for every seed, and
    grows with `deviation`.

    Args:
      frames: uint8 `[B, T, H, W, 3]`.
      clips: their ids, `[B]` bytes.
      numbers: of the frames in their clips, `[B, T]`.
      deviation: standard deviation, of 255.

    Returns:
      uint8, the same shape.
    """
    noisy = np.empty_like(frames)
    for i, (clip, wanted) in enumerate(zip(clips, numbers, strict=True)):
        for t, number in enumerate(wanted):
            draw = np.random.default_rng([zlib.crc32(bytes(clip)), int(number)])
            noise = deviation * draw.standard_normal(frames.shape[2:], np.float32)
            noisy[i, t] = np.clip(np.round(frames[i, t] + noise), 0, 255)
    return noisy
