"""Which frames of a clip are seen."""

from typing import Literal

import numpy as np

from hallujax.errors import DataError, UsageError

Sampling = Literal["uniform", "mixed"]


def uniform_frames(length: int, count: int) -> np.ndarray:
    """`count` frames evenly over a clip, the first and the last included: `linspace(0, length - 1, count)`, floored.

    A clip shorter than `count` repeats frames, in order.
    """
    return np.linspace(0, length - 1, count).astype(np.int32)


def random_frames(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` distinct frames in temporal order; a clip shorter than that repeats frames as `uniform_frames` does."""
    if length < count:
        return uniform_frames(length, count)
    return np.sort(rng.choice(length, count, replace=False)).astype(np.int32)


def choose_frames(length: int, count: int, sampling: Sampling, seed: tuple[int, ...]) -> np.ndarray:
    """The frames of one sample, `[count]`.

    Args:
      length: frames in the clip.
      count: frames wanted.
      sampling: `uniform` (evaluation), or `mixed`: uniform or random with probability one half each (the released
        code's training).
      seed: what the draw depends on: the run's seed and the global sample number, so that neither the number of
        hosts nor of threads changes it.

    Raises:
      DataError: for an empty clip.
      UsageError: for another sampling.
    """
    if length < 1:
        raise DataError("a clip without frames")
    if sampling == "uniform":
        return uniform_frames(length, count)
    if sampling == "mixed":
        rng = np.random.default_rng(seed)
        return random_frames(length, count, rng) if rng.random() < 0.5 else uniform_frames(length, count)
    raise UsageError(f"data.sampling is {sampling!r}; known: uniform, mixed")
