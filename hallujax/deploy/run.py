"""The RGB side of a run: what `hallujax.load` and `hallujax export` take from a workdir."""

import json
import pathlib
from typing import Any

from hallujax.deploy.system import Member, RgbSystem, TrainedSystem
from hallujax.errors import UsageError
from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.table import tabulate
from hallujax.experiment import Experiment, from_json
from hallujax.models.streams import Variables
from hallujax.training.checkpoint import Checkpoints


def read_run(workdir: pathlib.Path, name: str | None) -> TrainedSystem:
    """The system `name` of a workdir, or the best on validation clips of those that need RGB alone.

    Raises:
      UsageError: if the folder is no run, or there is no such system, none that is finished and needs RGB alone, or it
        needs more.
      CheckpointError: if a checkpoint is damaged or of another architecture.
    """
    if not (workdir / "run.json").exists():
        raise _no_run(workdir)
    settings = json.loads((workdir / "run.json").read_text())
    described = settings["dataset"]
    if "classes" not in described:
        raise UsageError(
            f"{workdir}/run.json is of an earlier hallujax and names no classes: start the same `hallujax train` or "
            "`table` again; what is finished is kept, and the file is written anew"
        )
    experiment = from_json(settings["config"])
    row = _choose(workdir, experiment, name)
    system = RgbSystem(
        name=row["method"],
        classes=tuple(described["classes"]),
        frames=experiment.data.frames,
        frame_size=tuple(described["frame_size"]),
        transforms=experiment.transforms,
        members=tuple(_member(experiment, stage) for stage in row["stages"]),
    )
    variables = {stage: _read_networks(workdir / stage, system, stage) for stage in row["stages"]}
    system.check(variables, str(workdir))
    validation = Predictions.load(workdir / row["stages"][0] / "predictions_validation.npz")
    facts = {
        "dataset": described["name"],
        "preset": described["preset"],
        "dataset_fingerprint": described["fingerprint"],
        "protocol": experiment.data.protocol,
        "seed": experiment.seed,
        "test_modalities": row["test_modalities"],
        "validation_accuracy": row["validation"],
        "validation_clips": len(validation.label),
        "test_accuracy": row["mean"],
        "test_clips": row["test_clips"],
        "clip_passes": row["clip_passes"],
        "training_modalities": _modalities(workdir, experiment, row["stages"]),
        "imagenet_weights": pathlib.Path(experiment.imagenet_weights).name,
        "revision": settings["revision"],
        "versions": settings["versions"],
    }
    return TrainedSystem(system, variables, facts)


def _no_run(path: pathlib.Path) -> UsageError:
    if not path.is_dir():
        return UsageError(f"{path}: no such folder; give a run's workdir or an export's folder")
    if seeds := sorted(seed.name for seed in path.glob("seed*") if (seed / "run.json").exists()):
        return UsageError(f"{path} is a table of several seeds; give one of them, say {path / seeds[0]}")
    if (path / "stage.json").exists():
        return UsageError(f"{path} is one stage; give the workdir it lies in, {path.absolute().parent}")
    return UsageError(f"{path} is no run and no export: it has neither run.json nor SHA256SUMS")


def _choose(workdir: pathlib.Path, experiment: Experiment, name: str | None) -> dict[str, Any]:
    """The system's row of the table. Test accuracies have no say in it."""
    rows = tabulate(experiment, {experiment.seed: workdir})
    # A row tested on fewer modalities than its stages have (ModDrop's) still holds the streams of the others.
    narrowed = {system.name for system in experiment.systems if system.test_modalities}
    deployable = [
        row
        for row in rows
        if row["mean"] is not None and row["test_modalities"] == ["rgb"] and row["method"] not in narrowed
    ]
    names = ", ".join(repr(row["method"]) for row in deployable)
    if not deployable:
        raise UsageError(f"{workdir} holds no finished system that needs RGB alone")
    if name is None:
        return max(deployable, key=lambda row: row["validation"])
    chosen = [row for row in rows if row["method"] == name]
    if not chosen:
        raise UsageError(f"{workdir} has no system {name!r}; it has {names}")
    if chosen[0]["mean"] is None:
        raise UsageError(f"{name!r} is not finished in {workdir}; finished: {names}")
    if chosen[0] not in deployable:
        seen = sorted({m for stage in chosen[0]["stages"] for m in _modalities_at_test(workdir, stage)})
        raise UsageError(f"{name!r} holds streams of {' + '.join(seen)}; those that need RGB alone: {names}")
    return chosen[0]


def _modalities_at_test(workdir: pathlib.Path, stage: str) -> list[str]:
    return json.loads((workdir / stage / "stage.json").read_text())["test_modalities"]


def _member(experiment: Experiment, name: str) -> Member:
    stage = experiment.stages[name]
    return Member(stage=name, method=stage.method, options=stage.options, model=stage.model, models=stage.models)


def _read_networks(folder: pathlib.Path, system: RgbSystem, stage: str) -> Variables:
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        return checkpoints.restore_best(networks=list(system.shapes[stage]["params"]))
    finally:
        checkpoints.close()


def _modalities(workdir: pathlib.Path, experiment: Experiment, stages: list[str]) -> list[str]:
    """All that taught the system: the modalities of its stages and of those they rest on."""
    seen = set()
    for name in {name for stage in stages for name in experiment.ancestors(stage)}:
        seen.update(json.loads((workdir / name / "stage.json").read_text())["networks"].values())
    return sorted(seen, key=lambda modality: (modality != "rgb", modality))
