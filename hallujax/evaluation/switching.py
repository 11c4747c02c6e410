"""Switching between two systems by a score that says when the first is not to be trusted; NumPy, after the networks.

A score is one number a clip, the higher the more suspicious. Its threshold comes from clean clips that no model was
trained on, so that a stated share of clean ones is given up.
"""

import numpy as np

from hallujax.errors import UsageError
from hallujax.evaluation.comparison import Difference, paired_bootstrap


def calibrate(scores: np.ndarray, false_alarms: float) -> float:
    """The lowest of the clean `scores` `[N]` that at most the share `false_alarms` of them exceed.

    Raises:
      UsageError: if the share is not in [0, 1).
    """
    if not 0 <= false_alarms < 1:
        raise UsageError(f"the false-alarm rate is {false_alarms}; it must be at least 0 and below 1")
    allowed = int(np.floor(false_alarms * len(scores) + 1e-9))  # 0.29 * 100 is 28.999...
    return float(np.sort(scores)[len(scores) - 1 - allowed])


def switch(trusted: np.ndarray, fallback: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Clip logits `[N, K]`: `trusted`, or `fallback` for the clips whose score exceeds the threshold."""
    return np.where((scores > threshold)[:, None], fallback, trusted)


def softmax_doubt(logits: np.ndarray) -> np.ndarray:
    """One minus the largest softmax probability, `[N]` of `[N, K]` (Hendrycks and Gimpel, ICLR 2017)."""
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return 1.0 - 1.0 / shares.sum(axis=1)


def auroc(clean: np.ndarray, noisy: np.ndarray) -> float:
    """The probability that a noisy clip's score exceeds a clean one's, ties counted half."""
    order = np.sort(clean)
    below, up_to = (np.searchsorted(order, noisy, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(clean))


def envelope(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`[..., N]` right or wrong of whichever system has the higher accuracy there, chosen anew along the other axes."""
    better = first.mean(axis=-1, keepdims=True) >= second.mean(axis=-1, keepdims=True)
    return np.where(better, first, second)


def regret(policy: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """By how many points `policy` stays below the upper envelope of two systems, with a 95 % interval over clips.

    All are `[S, L, N]`, right or wrong for S seeds, L noise levels and N clips; the regret is the mean over seeds and
    levels. The better system is picked for each seed and level with the labels at hand, as no one could, and kept in
    every resample. A policy that chooses clip by clip may do better than both: its regret is negative.
    """
    return paired_bootstrap(envelope(first, second).mean(axis=(0, 1)), policy.mean(axis=(0, 1)))
