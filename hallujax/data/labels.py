"""The labels that training sees: not all of them, or not all of them right."""

import hashlib

import numpy as np

from hallujax.errors import UsageError

UNLABELLED = -1  # in place of a label: every loss that needs one is zero there


def training_labels(
    clips: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, classes: int, labelled: float, noise: float
) -> np.ndarray:
    """What training takes for the labels of a dataset's clips.

    Of every class the same share keeps its labels, and of these the same share is wrong: which ones, and which wrong
    class they get, a hash of the clip's name says, so it is the same for every seed, stage and machine.

    Args:
      clips: ids of all clips of the index, bytes.
      labels: their true labels.
      rows: which of them train; the others keep their labels.
      classes: K.
      labelled: share of the training clips whose label is known, at least one a class; the rest get `UNLABELLED`.
      noise: share of the known labels that are replaced by another class.

    Returns:
      int32, one for every clip.

    Raises:
      UsageError: for a share that is none, or noise among fewer than two classes.
    """
    if not 0 < labelled <= 1:
        raise UsageError(f"data.labelled is {labelled}; it must lie in (0, 1]")
    if not 0 <= noise < 1:
        raise UsageError(f"data.label_noise is {noise}; it must lie in [0, 1)")
    if noise and classes < 2:
        raise UsageError("data.label_noise needs a second class to replace a label by")
    seen = np.array(labels, np.int32)
    if labelled == 1 and noise == 0:  # a million clips would be hashed for nothing
        return seen
    for label in np.unique(labels[rows]):
        of_class = rows[labels[rows] == label]
        order = of_class[np.argsort([_hash(b"labelled", clip) for clip in clips[of_class].tolist()])]
        known, hidden = np.split(order, [max(1, round(labelled * len(order)))])
        seen[hidden] = UNLABELLED
        order = known[np.argsort([_hash(b"noise", clip) for clip in clips[known].tolist()])]
        for row in order[: round(noise * len(order))]:
            other = int(_hash(b"class", clips[row]), 16) % (classes - 1)
            seen[row] = other + (other >= label)
    return seen


def _hash(what: bytes, clip: bytes) -> str:
    return hashlib.sha256(what + b"/" + clip).hexdigest()
