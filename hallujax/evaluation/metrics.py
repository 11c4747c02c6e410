"""Metrics over predictions, on the host."""

import numpy as np


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of clips whose largest logit is their label's. `logits` `[N, K]`, `labels` `[N]`."""
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[K, K]` counts: row the true class, column the predicted one."""
    classes = logits.shape[1]
    pairs = labels * classes + np.argmax(logits, axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
