"""`hallujax tune`: settings chosen on validation clips, a run for each combination of the values given."""

import csv
import dataclasses
import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hallujax import paths, sealed
from hallujax.console import Console
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import NotFiniteError, UsageError
from hallujax.evaluation.evaluate import Predictions, predictions_path
from hallujax.experiment import Experiment
from hallujax.training.stages import for_dataset, train, work_left
from hallujax.training.summary import is_done, read_summary

Settings = dict[str, str]  # {configuration key: value}, as on the command line


def tune(
    read: Callable[[Sequence[str]], Experiment],
    varied: Sequence[str],
    out: pathlib.Path,
    *,
    stage: str | None = None,
    trials: int | None = None,
    start_from: pathlib.Path | None = None,
) -> list[dict[str, Any]]:
    """Trains a stage once for each combination of values and ranks them by validation accuracy.

    Test clips are not even looked at. A stage that a trial shares with another, or with `start_from`, is trained once.
    The same command goes on where it was stopped, and more values or trials keep what is done. A trial whose loss is
    not finite is said to have failed, and the others go on.

    Args:
      read: the configuration with some more flags, `--config.KEY=VALUE` each.
      varied: `config.KEY=VALUE,VALUE,...` each.
      out: a folder a trial is made in it, and `tune.csv`, written anew after each.
      stage: whose validation accuracy counts; the one that all keys are of if none is named.
      trials: draw so many of the combinations, by the configuration's seed, instead of all of them.
      start_from: a workdir whose finished stages are taken over where they are the same.

    Returns:
      The rows of `tune.csv`, best first, ties in the order of trial.

    Raises:
      UsageError: for a key or value that is none, keys that leave the stage as it is, or a `start_from` without a
        finished stage.
      HallujaxError: as `training.stages.train`.
    """
    values = dict(_key_and_values(each) for each in varied)
    stage = stage or _stage_of(values)
    chosen = _combinations(values, trials, read([]).seed)
    experiments = {_name(each): _only(read([f"--{k}={v}" for k, v in each.items()]), stage) for each in chosen}
    _check_different(experiments, stage)
    first = next(iter(experiments.values()))
    dataset = PreparedDataset.open(paths.as_path(first.data.directory) / first.data.dataset)
    experiments = {name: for_dataset(experiment, dataset) for name, experiment in experiments.items()}
    places = [out / name for name in experiments]
    if start_from is not None:
        if not any(is_done(start_from / each) for experiment in experiments.values() for each in experiment.stages):
            raise UsageError(
                f"--start-from {start_from} has none of the stages finished; name one seed's workdir, as TABLE/seed0"
            )
        places.append(start_from)
    for name, experiment in experiments.items():
        _take_over(experiment, out / name, places)
    passes, done = _budget(experiments, dataset, out)
    clips = len(split(dataset, first.data.protocol)["validation"])
    rows = []
    with Console(passes, done=done) as console:
        console.say(
            f"{len(experiments)} trials of {stage}, {passes:,.0f} clip-passes with all that they start from; "
            f"they are compared on {clips} validation clips, and no test clip is read"
        )
        for settings, (name, experiment) in zip(chosen, experiments.items(), strict=True):
            console.say(f"{name}: {', '.join(f'{key}={value}' for key, value in settings.items())}")
            _take_over(experiment, out / name, places)
            row = dict(settings) | dict.fromkeys(("validation_accuracy", "best_step", "clip_passes", "seconds"), "")
            try:
                train(experiment, out / name, console, tested=False)
                rows.append(row | _result(out / name, stage) | {"note": ""})
            except NotFiniteError as error:
                console.say(f"  failed: {error}")
                rows.append(row | {"note": f"failed: {error}"})
            _write(out / "tune.csv", rows)
    return sorted(rows, key=lambda row: -(row["validation_accuracy"] or 0.0))


def print_ranking(rows: Sequence[Mapping[str, Any]]) -> None:
    """The trials on the terminal, best first, and the flags of the best."""
    settings = [key for key in rows[0] if key.startswith("config.")]
    for row in rows:
        accuracy = row["note"] or f"{100 * row['validation_accuracy']:.2f} %"
        print(f"{accuracy:>8}  {'  '.join(f'{key}={row[key]}' for key in settings)}")
    if not rows[0]["note"]:
        print(f"best on validation clips: {' '.join(f'--{key}={rows[0][key]}' for key in settings)}")


def _key_and_values(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    if not key.startswith("config.") or not equals or not all(values.split(",")):
        raise UsageError(f"--vary {text}: write config.KEY=VALUE,VALUE,..., say config.stages.admd.epochs=10,20")
    return key, list(dict.fromkeys(values.split(",")))


def _stage_of(values: Mapping[str, Any]) -> str:
    parts = [key.split(".") for key in values]
    named = {part[2] for part in parts if part[1] == "stages" and len(part) > 3}
    if len(named) != 1:
        raise UsageError("--stage is needed: the keys to vary are not of one stage")
    return named.pop()


def _combinations(values: Mapping[str, Sequence[str]], most: int | None, seed: int) -> list[Settings]:
    """All of them, the last key changing first; or the first `most` of a random order, so that more keep the fewer."""
    if most is not None and most < 1:
        raise UsageError(f"--trials is {most}; at least one is needed")
    every = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    if most is None or most >= len(every):
        return every
    return [every[i] for i in np.random.default_rng(seed).permutation(len(every))[:most]]


def _name(settings: Settings) -> str:
    return f"trial-{hashlib.sha256(json.dumps(sorted(settings.items())).encode()).hexdigest()[:8]}"


def _only(experiment: Experiment, stage: str) -> Experiment:
    """The stage and what it rests on."""
    if stage not in experiment.stages:
        raise UsageError(f"the configuration has no stage {stage!r}; it has {', '.join(experiment.stages)}")
    needed = experiment.ancestors(stage)
    stages = {name: each for name, each in experiment.stages.items() if name in needed}
    return dataclasses.replace(experiment, stages=stages, systems=())


def _check_different(experiments: Mapping[str, Experiment], stage: str) -> None:
    made_by = {json.dumps(experiment.identity(stage), sort_keys=True) for experiment in experiments.values()}
    if len(made_by) < len(experiments):
        raise UsageError(f"some of the values to vary leave stage {stage!r} and what it starts from as they are")


def _budget(experiments: Mapping[str, Experiment], dataset: PreparedDataset, out: pathlib.Path) -> tuple[float, float]:
    """Clip-passes of all stages and of the finished ones, those that several trials share counted once."""
    passes: dict[str, tuple[float, float]] = {}
    for name, experiment in experiments.items():
        rows = split(dataset, experiment.data.protocol)
        for stage in experiment.order():
            alone = dataclasses.replace(experiment, stages={stage.name: dataclasses.replace(stage, init_from={})})
            made_by = json.dumps(experiment.identity(stage.name), sort_keys=True)
            passes[made_by] = work_left(alone, out / name, dataset, rows)
    total, done = np.sum(list(passes.values()), axis=0)
    return float(total), float(done)


def _take_over(experiment: Experiment, folder: pathlib.Path, places: Sequence[pathlib.Path]) -> None:
    """Links the finished stages of other folders that were made by the same settings; from or to a bucket, copies."""
    folder.mkdir(parents=True, exist_ok=True)
    for stage in experiment.order():
        here = folder / stage.name
        if not paths.in_bucket(folder) and here.is_symlink() and not here.exists():
            here.unlink()  # what was lent has moved
        if here.exists():
            continue
        for place in places:
            if is_done(place / stage.name):
                made_by = sealed.read(place / stage.name / "config.json", f"remove the folder {place / stage.name}")
                del made_by["dataset_fingerprint"]  # `train` compares it
                if made_by == experiment.identity(stage.name):
                    if paths.in_bucket(folder) or paths.in_bucket(place):
                        _copy(place / stage.name, here)
                    else:  # where the folders really are: a link is followed from there
                        here.symlink_to(os.path.relpath((place / stage.name).resolve(), folder.resolve()))
                    break


def _copy(stage: pathlib.Path, to: pathlib.Path) -> None:
    """A finished stage without what only continuing it needs; the two files that make it one come last."""
    last = ["config.json", "stage.json"]
    names = [name for name in paths.files(stage) if name not in last and not name.startswith("checkpoints/latest/")]
    for name in [*names, *last]:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        with (stage / name).open("rb") as there, (to / name).open("wb") as here:
            shutil.copyfileobj(there, here)


def _result(folder: pathlib.Path, stage: str) -> dict[str, Any]:
    summary = read_summary(folder / stage)
    accuracy = Predictions.load(predictions_path(folder / stage, "validation")).accuracy
    return {"validation_accuracy": accuracy} | {key: summary[key] for key in ("best_step", "clip_passes", "seconds")}


def _write(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    paths.write(path, text.getvalue())
