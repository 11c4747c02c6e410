"""The RGB side of a run: what `hallujax.load` and `hallujax export` take from a workdir."""

import pathlib
from collections.abc import Iterable
from typing import Any

from hallujax import paths
from hallujax.deploy.container import one_line
from hallujax.deploy.system import Member, RgbSystem, TrainedSystem
from hallujax.errors import CheckpointError, UsageError
from hallujax.evaluation import finished
from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.table import tabulate
from hallujax.experiment import Experiment, from_json
from hallujax.training.checkpoint import read_networks
from hallujax.training.summary import read_summary


def read_run(path: pathlib.Path, name: str | None) -> TrainedSystem:
    """The system `name` of a workdir, or the best on validation clips of those that need RGB alone.

    Of a table's folder it is that of the seed that is best on validation clips.

    Raises:
      UsageError: if the folder is no run, or there is no such system, none that is finished and needs RGB alone, or it
        needs more.
      CheckpointError: if a file or a checkpoint is damaged or of another architecture.
    """
    workdir, row, origin = _find(path, name)
    settings, experiment = read_settings(workdir)
    described = settings["dataset"]
    system = RgbSystem(
        name=row["method"],
        classes=tuple(described["classes"]),
        frames=experiment.data.frames,
        frame_size=tuple(described["frame_size"]),
        transforms=experiment.transforms,
        members=tuple(_member(experiment, stage) for stage in row["stages"]),
    )
    variables = {
        stage: read_networks(workdir / stage, system.shapes[stage]["params"].keys()) for stage in row["stages"]
    }
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
    return TrainedSystem(system, variables, facts, workdir, origin)


def read_settings(workdir: pathlib.Path) -> tuple[dict[str, Any], Experiment]:
    """run.json, and the experiment in it.

    Raises:
      UsageError: if it is no workdir, or of another hallujax.
      CheckpointError: if the file is damaged.
    """
    path = workdir / "run.json"
    if not path.exists():
        raise _no_run(workdir)
    try:
        settings = finished.read_settings(workdir)
        named = "classes" in settings["dataset"]
        experiment = from_json(settings["config"])
    except UsageError as error:
        raise UsageError(f"{path} is of another hallujax: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({one_line(error)})") from error
    if not named:
        raise UsageError(
            f"{path} is of an earlier hallujax and names no classes: start the same `hallujax train` or "
            "`table` again; what is finished is kept, and the file is written anew"
        )
    return settings, experiment


def _find(path: pathlib.Path, name: str | None) -> tuple[pathlib.Path, dict[str, Any], str]:
    """Workdir and row of the system that is meant, and in words why it is that one, where there was a choice."""
    seeds = [path] if (path / "run.json").exists() else sorted(file.parent for file in path.glob("seed*/run.json"))
    if not seeds:
        raise _no_run(path)
    found, refused = [], []
    for workdir in seeds:
        try:
            found.append((workdir, *_choose(workdir, read_settings(workdir)[1], name)))
        except UsageError as error:  # of an unfinished seed, say; the others may do
            refused.append(error)
    if not found:
        raise refused[0]
    workdir, row, others = max(found, key=lambda one: one[1]["validation"])
    reasons = [f"{others} systems that need RGB alone"] if name is None and others > 1 else []
    reasons += [f"{len(found)} seeds"] if len(found) > 1 else []
    best = f", on validation clips the best of {' and '.join(reasons)}" if reasons else ""
    left_out = f" ({len(refused)} of {len(seeds)} seeds left out: {refused[0]})" if refused else ""
    return workdir, row, f"{row['method']} of {workdir}{best}{left_out}" if best or left_out else ""


def _no_run(path: pathlib.Path) -> UsageError:
    if not path.is_dir():
        return UsageError(f"{path}: no such folder; give a run's or a table's folder, or an export's")
    if (path / "stage.json").exists():
        return UsageError(f"{path} is one stage; give the workdir it lies in, {paths.absolute(path).parent}")
    return UsageError(f"{path} is no run and no export: it has neither run.json nor SHA256SUMS")


def _choose(workdir: pathlib.Path, experiment: Experiment, name: str | None) -> tuple[dict[str, Any], int]:
    """The system's row of the table, and how many rows it could have been. Test accuracies have no say in it."""
    try:
        rows = tabulate(experiment, {experiment.seed: workdir})
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{workdir}: a stage.json or its predictions are damaged ({one_line(error)})") from error
    # A row tested on fewer modalities than its stages have (ModDrop's) still holds the streams of the others.
    narrowed = {system.name for system in experiment.systems if system.test_modalities}
    deployable = [
        row
        for row in rows
        if row["mean"] is not None and row["test_modalities"] == ["rgb"] and row["method"] not in narrowed
    ]
    names = ", ".join(repr(row["method"]) for row in deployable)
    if not deployable:
        raise UsageError(
            f"{workdir} holds no finished system that needs RGB alone{_lacking(workdir, experiment, experiment.stages)}"
        )
    if name is None:
        return max(deployable, key=lambda row: row["validation"]), len(deployable)
    chosen = [row for row in rows if row["method"] == name]
    if not chosen:
        raise UsageError(f"{workdir} has no system {name!r}; it has {names}")
    if chosen[0]["mean"] is None:
        lacking = _lacking(workdir, experiment, chosen[0]["stages"])
        raise UsageError(f"{name!r} is not finished in {workdir}{lacking}; finished: {names}")
    if chosen[0] not in deployable:
        seen = sorted({m for stage in chosen[0]["stages"] for m in _modalities_at_test(workdir, stage)})
        raise UsageError(f"{name!r} holds streams of {' + '.join(seen)}; those that need RGB alone: {names}")
    return chosen[0], 1


def _lacking(workdir: pathlib.Path, experiment: Experiment, stages: Iterable[str]) -> str:
    """In words, what these stages and those they rest on would need to be finished."""
    needed = dict.fromkeys(name for stage in stages for name in experiment.ancestors(stage))
    unfinished = [name for name in needed if not (workdir / name / "stage.json").exists()]
    untested = [
        name for name in needed if name not in unfinished and not any((workdir / name).glob("predictions_test*.npz"))
    ]
    text = f"; without a stage.json: {', '.join(unfinished)}" if unfinished else ""
    if untested:
        text += (
            f"; without predictions_test.npz: {', '.join(untested)} (`hallujax evaluate --workdir {workdir}` writes it)"
        )
    return text


def _modalities_at_test(workdir: pathlib.Path, stage: str) -> list[str]:
    return read_summary(workdir / stage)["test_modalities"]


def _member(experiment: Experiment, name: str) -> Member:
    stage = experiment.stages[name]
    return Member(stage=name, method=stage.method, options=stage.options, model=stage.model, models=stage.models)


def _modalities(workdir: pathlib.Path, experiment: Experiment, stages: list[str]) -> list[str]:
    """All that taught the system: the modalities of its stages and of those they rest on."""
    seen = set()
    for name in {name for stage in stages for name in experiment.ancestors(stage)}:
        seen.update(read_summary(workdir / name)["networks"].values())
    return sorted(seen, key=lambda modality: (modality != "rgb", modality))
