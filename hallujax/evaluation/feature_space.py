"""Real and hallucinated features of the same test clips in two dimensions."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hallujax.data.records import PreparedDataset
from hallujax.evaluation import figures
from hallujax.evaluation.runs import Run, Stage

SHOWN = ("admd", "hallucination")  # methods, a picture each: the first stage of it
CLIPS = 240  # of the test clips, evenly over them
COLOURED = len(figures.CYCLE)  # classes, evenly over them; the others are grey


def feature_spaces(run: Run, dataset: PreparedDataset) -> list[dict[str, Any]]:
    """For ADMD and for step 3, in the first seed that has them: what the report shows of their features.

    Returns:
      Each `{"stage", "seed", "clips", "figure", "explained", "distance"}`: the share of the real features' variance in
      the plane, and the median distance of a clip's two features over the median distance of real ones from their mean.

    Raises:
      CheckpointError, DataError: if the networks or the records cannot be read.
    """
    found = []
    for method in SHOWN:
        stages = [each for each in run.stages if each.info.get("method") == method and each.test is not None]
        for stage in stages[:1]:
            workdir = run.folder / f"seed{stage.seed}"
            workdir = workdir if workdir.is_dir() else run.folder
            if (workdir / "run.json").exists() and (workdir / stage.name / "checkpoints").exists():
                found.append(_shown(workdir, stage, dataset))
    return found


def principal_plane(real: np.ndarray, *others: np.ndarray) -> tuple[list[np.ndarray], float]:
    """`real` `[N, D]` and others projected on the first two principal components of `real`, `[N, 2]` each.

    Returns:
      The projections, and the share of the variance of `real` that lies in the plane.
    """
    mean = real.mean(axis=0)
    _, spread, axes = np.linalg.svd(real - mean, full_matrices=False)
    explained = float(np.square(spread[:2]).sum() / max(np.square(spread).sum(), 1e-12))
    return [(features - mean) @ axes[:2].T for features in (real, *others)], explained


def _shown(workdir: pathlib.Path, stage: Stage, dataset: PreparedDataset) -> dict[str, Any]:
    real, hallucinated, labels = _features(workdir, stage, dataset)
    (first, second), explained = principal_plane(real, hallucinated)
    radius = np.median(np.linalg.norm(real - real.mean(axis=0), axis=1))
    chosen = np.unique(np.linspace(0, len(dataset.classes) - 1, COLOURED).round().astype(int))
    classes = {dataset.classes[label]: labels == label for label in chosen}
    return {
        "stage": stage.name,
        "seed": stage.seed,
        "clips": len(labels),
        "figure": figures.feature_plane(first, second, classes),
        "explained": explained,
        "distance": float(np.median(np.linalg.norm(real - hallucinated, axis=1)) / max(radius, 1e-12)),
    }


def _features(workdir: pathlib.Path, stage: Stage, dataset: PreparedDataset) -> tuple[np.ndarray, ...]:
    """Features of the teacher and of the student, `[N, D]`, means over frames, and labels `[N]`."""
    from hallujax.data.pipeline import ClipLoader, evaluation_batches  # these bring the training stack along
    from hallujax.data.protocols import split
    from hallujax.data.transforms import encode
    from hallujax.evaluation import finished
    from hallujax.training.start import build_method

    experiment = finished.read_experiment(workdir)
    method = build_method(experiment.stages[stage.name], len(dataset.classes))
    networks = finished.restore(workdir / stage.name, dataset)
    (teacher,) = (name for name in method.modalities if name not in method.players)
    rows = split(dataset, experiment.data.protocol)["test"]
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(CLIPS, len(rows))).round().astype(int))]
    data = experiment.data
    seen = sorted(set(method.modalities.values()))
    loader = ClipLoader(dataset, seen, frames=data.frames, sampling="uniform", seed=0, rgb_noise=data.rgb_noise)

    @jax.jit
    def features(batch: Mapping[str, jax.Array]) -> list[jax.Array]:
        encoded, outputs = encode(batch, experiment.transforms), []
        for name in (teacher, "hallucination"):
            variables = {kind: networks[kind][name] for kind in ("params", "batch_stats")}
            run = functools.partial(method.networks[name].apply, train=False)
            outputs.append(run(variables, encoded[method.modalities[name]]).features.mean(1))
        return outputs

    real, hallucinated, labels = [], [], []
    for batch in evaluation_batches(loader, rows, batch_size=data.evaluation_batch_size):
        kept = batch["mask"] > 0
        both = [np.asarray(each)[kept] for each in features({name: batch[name] for name in seen})]
        real.append(both[0])
        hallucinated.append(both[1])
        labels.append(batch["label"][kept])
    return np.concatenate(real), np.concatenate(hallucinated), np.concatenate(labels)
