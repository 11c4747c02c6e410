"""Test clips that distillation fixed and broke: their frames, and where the two models look in them."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from hallujax.data.clips import uniform_frames
from hallujax.data.records import PreparedDataset
from hallujax.errors import HallujaxError
from hallujax.evaluation import comparison, figures
from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.runs import Row, Run

SHOWN = 4  # of those fixed, and of those broken
FRAMES = 5  # of a clip, where the run does not say


def changed_clips(run: Run, dataset: PreparedDataset) -> dict[str, Any] | None:
    """What the report shows of them; None without RGB alone and a model taught by depth that share a seed.

    The models are those of the report's comparison, in their first common seed. Of the clips that changed, those of
    different classes come first. Maps are left out, with a `reason`, where the networks cannot be read.

    Returns:
      `{"names": (before, after), "seed", "counts": {"fixed", "broken"}, "fixed": [clip], "broken": [clip], "reason"}`
      with clips `{"clip", "class", "rgb": picture, "models": [{"method", "says", "right", "maps": [{"stream",
      "picture"}]}]}`.

    Raises:
      DataError: if the dataset's records cannot be read.
    """
    rows = [*comparison.rows_by_role(run, "rgb")[:1], *comparison.rows_by_role(run, "privileged")[:1]]
    said = [run.predictions(row) for row in rows]
    seeds = sorted(said[0].keys() & said[1].keys()) if len(rows) == 2 else []
    if not seeds:
        return None
    before, after = (found[seeds[0]] for found in said)
    if not np.array_equal(before.clip, after.clip):
        return None
    right = [one.logits.argmax(axis=1) == one.label for one in (before, after)]
    changed = {"fixed": ~right[0] & right[1], "broken": right[0] & ~right[1]}
    there = np.isin(before.clip, dataset.index["clip"])
    workdir = run.folder / f"seed{seeds[0]}"
    models, reason = _load(workdir if workdir.is_dir() else run.folder, rows)
    return {
        "names": tuple(row.method for row in rows),
        "seed": seeds[0],
        "counts": {kind: int(which.sum()) for kind, which in changed.items()},
        "reason": reason,
        **{
            kind: [
                _clip(dataset, before.clip[place], list(zip(rows, (before, after), models, strict=True)), place)
                for place in _spread(before.label, np.flatnonzero(which & there))
            ]
            for kind, which in changed.items()
        },
    }


def _load(workdir: pathlib.Path, rows: Sequence[Row]) -> tuple[list[Any], str | None]:
    """A predictor a row, or None each and why."""
    if not (workdir / "run.json").exists() or not any(workdir.glob("*/checkpoints")):
        return [None] * len(rows), "the checkpoints are not in this run folder"
    from hallujax.deploy.predictor import load  # brings the training stack along

    try:
        return [load(workdir, row.method) for row in rows], None
    except HallujaxError as error:
        return [None] * len(rows), str(error)


def _spread(labels: np.ndarray, places: np.ndarray) -> list[int]:
    """SHOWN of the places: the first of each class, then the second of each, and so on."""
    found = labels[places]
    rank = np.array([np.count_nonzero(found[:i] == label) for i, label in enumerate(found)], int)
    return places[np.argsort(rank, kind="stable")[:SHOWN]].tolist()


def _clip(
    dataset: PreparedDataset, clip: bytes, models: Sequence[tuple[Row, Predictions, Any]], place: int
) -> dict[str, Any]:
    index = dataset.index
    (row,) = np.flatnonzero(index["clip"] == clip)[:1]
    predictors = [predictor for _, _, predictor in models if predictor is not None]
    count = predictors[0].system.frames if predictors else FRAMES
    frames = dataset.read("rgb", np.array([row]), [uniform_frames(int(dataset.length("rgb")[row]), count)])[0]
    return {
        "clip": clip.decode("utf-8", "replace"),
        "class": dataset.classes[int(index["label"][row])],
        "frames": len(frames),
        "rgb": figures.rgb_strip(frames),
        "models": [
            {
                "method": model.method,
                "says": dataset.classes[int(predictions.logits[place].argmax())],
                "right": bool(predictions.logits[place].argmax() == predictions.label[place]),
                "maps": _maps(predictor, frames, dataset.classes[int(predictions.logits[place].argmax())]),
            }
            for model, predictions, predictor in models
        ],
    }


def _maps(predictor: Any, frames: np.ndarray, label: str) -> list[dict[str, str]]:
    """Where each stream of a model looks for the class that the model says."""
    if predictor is None:
        return []
    from hallujax.deploy.activation import overlay

    found = predictor.activations(frames, label)
    return [{"stream": name, "picture": figures.rgb_strip(overlay(frames, maps))} for name, maps in found.items()]
