"""Evaluation protocols: which clips of a dataset train, validate and test. Queries on the clip index, nothing
more."""

import numpy as np

from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError


def split(dataset: PreparedDataset, protocol: str) -> dict[str, np.ndarray]:
    """Rows of `dataset.index`, sorted and disjoint, as {"train", "validation", "test"}.

    Raises:
        UsageError: the dataset does not define `protocol`.
    """
    known = PROTOCOLS.get(dataset.name, {})
    if protocol not in known:
        raise UsageError(f"unknown protocol {protocol!r} of {dataset.name}: one of {', '.join(known) or 'none'}")
    masks = known[protocol](dataset.index)
    return {part: np.flatnonzero(mask) for part, mask in masks.items()}


def _mocap_performers(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Performers who are not tested, 60 % of them, and those of them kept for validation: one, or two of ten
    or more."""
    everyone = np.unique(index["subject"])
    development = everyone[: round(0.6 * len(everyone))]
    return development, development[-(2 if len(development) >= 10 else 1) :]


def _mocap_cross_subject(index: np.ndarray) -> dict[str, np.ndarray]:
    """The first 60 % of the performers train, except the last one or two of them, who validate; the others
    test."""
    development, held = _mocap_performers(index)
    inside, validation = np.isin(index["subject"], development), np.isin(index["subject"], held)
    return {"train": inside & ~validation, "validation": validation, "test": ~inside}


def _mocap_cross_view(index: np.ndarray) -> dict[str, np.ndarray]:
    """Cameras 2 and 3 train, camera 1, between them, tests (as in NTU RGB+D); one or two performers
    validate."""
    tested = index["camera"] == 1
    validation = ~tested & np.isin(index["subject"], _mocap_performers(index)[1])
    return {"train": ~tested & ~validation, "validation": validation, "test": tested}


PROTOCOLS = {
    "mocap_rgbd": {"cross_subject": _mocap_cross_subject, "cross_view": _mocap_cross_view},
}
