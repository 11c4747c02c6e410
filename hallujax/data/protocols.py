"""Evaluation protocols: which clips of a dataset train, validate and test. Queries on the clip index, nothing
more."""

import functools
import hashlib
import itertools
from collections.abc import Callable

import numpy as np

from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError

Protocol = Callable[[np.ndarray], dict[str, np.ndarray]]


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


def _rendered_performers(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Performers (or objects) who are not tested, 60 % of them, and those of them kept for validation: one, or two
    of ten or more."""
    everyone = np.unique(index["subject"])
    development = everyone[: round(0.6 * len(everyone))]
    return development, development[-(2 if len(development) >= 10 else 1) :]


def _rendered_cross_subject(index: np.ndarray) -> dict[str, np.ndarray]:
    """The first 60 % of the performers train, except the last one or two of them, who validate; the others
    test."""
    development, held = _rendered_performers(index)
    inside, validation = np.isin(index["subject"], development), np.isin(index["subject"], held)
    return {"train": inside & ~validation, "validation": validation, "test": ~inside}


def _rendered_cross_view(index: np.ndarray) -> dict[str, np.ndarray]:
    """Cameras 2 and 3 train, camera 1, between them, tests (as in NTU RGB+D); one or two performers
    validate."""
    tested = index["camera"] == 1
    validation = ~tested & np.isin(index["subject"], _rendered_performers(index)[1])
    return {"train": ~tested & ~validation, "validation": validation, "test": tested}


def _own(index: np.ndarray) -> dict[str, np.ndarray]:
    """The splits of the user's CSV; without them, whole subjects where three or more are known, else clips.

    A quarter of them tests (`_ranks` says which) and a tenth validates, at least one each; clips are drawn in every
    class for itself, and a class of one clip trains, of two trains and tests. A CSV that marks no clip as validation
    gets it the same way, a tenth of its training subjects or clips.
    """
    if "split" in index.dtype.names:
        parts = {part: index["split"] == part.encode() for part in ("train", "validation", "test")}
        if not parts["validation"].any():
            held = _drawn(index, parts["train"], 0.0, 0.1)["validation"]
            parts["train"], parts["validation"] = parts["train"] & ~held, held
        return parts
    return _drawn(index, np.ones(len(index), bool), 0.25, 0.1)


def _drawn(index: np.ndarray, among: np.ndarray, test: float, validation: float) -> dict[str, np.ndarray]:
    """Parts of the clips `among`, by subject or by clip, of these shares."""
    subjects = np.unique(index["subject"][among])
    if len(subjects) >= 3 and 0 not in subjects:
        groups, units = [np.flatnonzero(among)], index["subject"]
    else:
        groups, units = [np.flatnonzero(among & (index["label"] == label)) for label in np.unique(index["label"])], None
    parts = {part: np.zeros(len(index), bool) for part in ("train", "validation", "test")}
    for rows in groups:
        keys = index["clip"][rows] if units is None else units[rows]
        present = np.unique(keys)
        order = present[np.argsort(_ranks(present))]
        tested = max(1, round(test * len(order))) if test and len(order) > 1 else 0
        held = max(1, round(validation * len(order))) if len(order) > tested + 1 else 0
        for part, chosen in (("test", order[:tested]), ("validation", order[tested : tested + held])):
            parts[part][rows[np.isin(keys, chosen)]] = True
    parts["train"] = among & ~parts["validation"] & ~parts["test"]
    return parts


def _ranks(keys: np.ndarray) -> list[str]:
    """A draw that depends on nothing but each key itself: its SHA-256."""
    return [hashlib.sha256(key if isinstance(key, bytes) else str(key).encode()).hexdigest() for key in keys.tolist()]


# Who trains; the others test. Shahroudy et al., CVPR 2016, and Liu et al., TPAMI 2019.
NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
NTU120_SUBJECTS = (
    *NTU60_SUBJECTS,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)


def _ntu_cross_subject(index: np.ndarray, subjects: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Subject 1, one of those that train, validates, as in the authors' code."""
    inside, validation = np.isin(index["subject"], subjects), index["subject"] == 1
    return {"train": inside & ~validation, "validation": validation, "test": ~inside}


def _ntu_cross_subject_5_percent(index: np.ndarray, subjects: tuple[int, ...]) -> dict[str, np.ndarray]:
    """5 % of the training clips of every class validate, as the slides have it."""
    return _with_5_percent(index, np.isin(index["subject"], subjects))


def _ntu_cross_view(index: np.ndarray) -> dict[str, np.ndarray]:
    """Cameras 2 and 3 train, camera 1 tests; 5 % of every class validate: 31 of 632, as in the authors' code."""
    return _with_5_percent(index, index["camera"] != 1)


def _ntu_cross_setup(index: np.ndarray) -> dict[str, np.ndarray]:
    """Even setups train, odd ones test; 5 % of every class validate."""
    return _with_5_percent(index, index["setup"] % 2 == 0)


def _views(index: np.ndarray, train: tuple[int, ...], test: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Some cameras train, others test; 5 % of each class's training part validate, a performance's views together."""
    parts = _with_5_percent(index, np.isin(index["camera"], train), _performances(index))
    return parts | {"test": np.isin(index["camera"], test)}


def _one_subject_out(index: np.ndarray, subject: int) -> dict[str, np.ndarray]:
    """A subject tests, the others train; validation as in `_views`."""
    return _with_5_percent(index, index["subject"] != subject, _performances(index))


def _performances(index: np.ndarray) -> np.ndarray:
    """A key for what was done once, however many cameras saw it."""
    columns = ("label", "subject", "repetition")
    return np.array(["-".join(str(row[c]) for c in columns).encode() for row in index], "S32")


def _official(index: np.ndarray) -> dict[str, np.ndarray]:
    """The parts that the set comes in; 5 % of each class's training part validate."""
    parts = _with_5_percent(index, index["split"] == b"train")
    return parts | {"test": index["split"] == b"test"}


def _with_5_percent(index: np.ndarray, inside: np.ndarray, units: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The 5 % (rounded down, at least one of two) of each class that come first by `_ranks` validate.

    `units` says which clips stay together; every clip is one of its own without it.
    """
    units = index["clip"] if units is None else units
    validation = np.zeros(len(index), bool)
    for label in np.unique(index["label"]):
        rows = np.flatnonzero(inside & (index["label"] == label))
        present = np.unique(units[rows])
        held = max(int(0.05 * len(present)), min(1, len(present) - 1), 0)
        validation[rows[np.isin(units[rows], present[np.argsort(_ranks(present))[:held]])]] = True
    return {"train": inside & ~validation, "validation": validation, "test": ~inside}


def _view_protocols(views: range) -> dict[str, Protocol]:
    """`cross_view_AB_C` for all pairs of views and one more."""
    return {
        f"cross_view_{a}{b}_{c}": functools.partial(_views, train=(a, b), test=(c,))
        for a, b in itertools.combinations(views, 2)
        for c in views
        if c not in (a, b)
    }


PROTOCOLS: dict[str, dict[str, Protocol]] = {
    "folder": {"own": _own},
    "mocap_rgbd": {"cross_subject": _rendered_cross_subject, "cross_view": _rendered_cross_view},
    "ntu_rgbd60": {
        "cross_subject": functools.partial(_ntu_cross_subject, subjects=NTU60_SUBJECTS),
        "cross_subject_5_percent": functools.partial(_ntu_cross_subject_5_percent, subjects=NTU60_SUBJECTS),
        "cross_view": _ntu_cross_view,
    },
    "ntu_rgbd120": {
        "cross_subject": functools.partial(_ntu_cross_subject, subjects=NTU120_SUBJECTS),
        "cross_subject_5_percent": functools.partial(_ntu_cross_subject_5_percent, subjects=NTU120_SUBJECTS),
        "cross_setup": _ntu_cross_setup,
    },
    "nw_ucla": {
        "cross_view": functools.partial(_views, train=(1, 2), test=(3,)),
        "cross_subject": functools.partial(_one_subject_out, subject=10),
        **_view_protocols(range(1, 4)),
        **{f"cross_subject_{n}": functools.partial(_one_subject_out, subject=n) for n in range(1, 11)},
    },
    "uwa3dii": {
        "cross_view": functools.partial(_views, train=(1, 2, 3), test=(4,)),
        **_view_protocols(range(1, 5)),
        "cross_view_34_12": functools.partial(_views, train=(3, 4), test=(1, 2)),
    },
    "nyud_objects": {"official": _official},
    # An instance is a subject there, and a sector of the half circle in front of it a camera.
    "rgbd_objects": {"unseen_instances": _rendered_cross_subject, "unseen_views": _rendered_cross_view},
}
