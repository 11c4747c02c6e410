"""The stage graph: trains what a target needs, skips what is done, continues what is half done."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax

from hallujax import paths, sealed
from hallujax.console import Console
from hallujax.data.cameras import with_camera
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import CheckpointError, NotFiniteError, UsageError
from hallujax.experiment import IMAGENET, Experiment, Stage, System
from hallujax.methods import Method
from hallujax.training import processes
from hallujax.training.earlier import with_earlier
from hallujax.training.input import Splits, TrainingInput, check_splits, training_rows
from hallujax.training.loop import train_stage
from hallujax.training.sharding import check_batch_size, make_mesh
from hallujax.training.start import build_method, imagenet_weights
from hallujax.training.summary import is_done

SECONDS_OF_FILE_SYSTEMS = 60.0  # that a network's may take to show one host what another wrote
PACKAGES = (
    "hallujax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
)


def finished(experiment: Experiment, workdir: pathlib.Path) -> set[str]:
    """The stages that are done; several processes see the same, whatever their file systems show them."""
    return set(processes.agree(lambda: [name for name in experiment.stages if is_done(workdir / name)]))


def for_dataset(experiment: Experiment, dataset: PreparedDataset) -> Experiment:
    """An experiment as it is trained on a dataset, whose camera it has from then on; see `data.cameras.with_camera`."""
    return dataclasses.replace(experiment, transforms=with_camera(experiment.transforms, dataset))


def work_left(
    experiment: Experiment, workdir: pathlib.Path, dataset: PreparedDataset, splits: Splits
) -> tuple[float, float]:
    """Clip-passes of all stages, and of those that are finished already."""
    passes = {
        stage.name: stage.steps(len(training_rows(experiment, stage, dataset, splits))) * stage.batch_size
        for stage in experiment.order()
    }
    done = finished(experiment, workdir)
    return sum(passes.values()), sum(passes[name] for name in passes if name in done)


def train(
    experiment: Experiment,
    workdir: pathlib.Path,
    console: Console | None = None,
    *,
    tested: bool = True,
    after_stage: Callable[[], None] = lambda: None,
    failures: dict[str, str] | None = None,
) -> Experiment:
    """Trains every stage of an experiment in its order.

    Args:
      experiment: what to train.
      workdir: one folder a stage is made in it.
      console: counts clip-passes; one of its own if none is given.
      tested: whether finished stages predict the test clips; if not, these are never read.
      after_stage: called whenever a stage has been trained or has failed.
      failures: if given, a stage whose numbers are not finite does not end the training: `{stage: why}` is put into it,
        those that rest on the stage are left out, and the others go on.

    Returns:
      The experiment `for_dataset`, as the workdir has it.

    Raises:
      UsageError: if a stage's folder was made by other settings, naming the first that differs.
      HallujaxError: as `train_stage`.
    """
    dataset = PreparedDataset.open(paths.as_path(experiment.data.directory) / experiment.data.dataset)
    if experiment.data.keep_decoded:
        dataset.keep_decoded()
    experiment = for_dataset(experiment, dataset)
    splits = split(dataset, experiment.data.protocol)
    if not tested:
        del splits["test"]
    workdir.mkdir(parents=True, exist_ok=True)
    stages, done = experiment.order(), finished(experiment, workdir)
    processes.same(_common(experiment) | {"the dataset's fingerprint": dataset.fingerprint})
    # What is wrong with the last stage or row is said before the first starts.
    methods = {stage.name: build_method(stage, len(dataset.classes)) for stage in stages}
    for system in experiment.systems:
        _check_test_modalities(system, methods)
    mesh = make_mesh(experiment.mesh)
    for stage in stages:
        if stage.name not in done:
            check_batch_size(stage.batch_size, mesh, f"stages.{stage.name}.batch_size")
            TrainingInput(experiment, stage, methods[stage.name], dataset, splits)
            check_splits(experiment, methods[stage.name], dataset, splits)
            for network, (source, _) in stage.init_from.items():
                if source == IMAGENET:
                    imagenet_weights(experiment, stage, network, methods[stage.name])
    run = workdir / "run.json"
    if processes.is_first():
        for stage in stages:
            _claim(experiment, stage, dataset, workdir)
        described = describe_run(with_earlier(experiment, [workdir]), dataset)
        sealed.write(run, described | {"starts": _starts(run)})
    processes.wait("the workdir is claimed")
    _check_shared(run)
    processes.wait("the workdir is shared")  # the next step is a sum, at which gloo waits 30 s for the others
    if console is None:
        total, done = work_left(experiment, workdir, dataset, splits)
        with Console(total, done=done) as console:
            _train_all(experiment, stages, dataset, splits, workdir, console, after_stage, failures)
    else:
        _train_all(experiment, stages, dataset, splits, workdir, console, after_stage, failures)
    return experiment


def _train_all(
    experiment: Experiment,
    stages: Sequence[Stage],
    dataset: PreparedDataset,
    splits: dict[str, Any],
    workdir: pathlib.Path,
    console: Console,
    after_stage: Callable[[], None],
    failures: dict[str, str] | None,
) -> None:
    done = finished(experiment, workdir)
    for stage in stages:
        if stage.name in done:
            console.say(f"{stage.name}: done already")
            continue
        if lost := [parent for parent in experiment.ancestors(stage.name) if parent in (failures or {})]:
            console.say(f"{stage.name}: left out, {lost[0]} has failed")
            continue
        clips = len(training_rows(experiment, stage, dataset, splits))
        console.say(f"{stage.name}: {stage.method}, {stage.steps(clips)} steps of {stage.batch_size} of {clips} clips")
        try:
            train_stage(experiment, stage, dataset, splits, workdir, console)
        except NotFiniteError as error:
            if failures is None:
                raise
            failures[stage.name] = str(error)
            console.say(f"  failed, the others go on: {error}")
        after_stage()


def _check_test_modalities(system: System, methods: Mapping[str, Method]) -> None:
    if not system.test_modalities:
        return
    for name in system.stages:
        method = methods[name]
        known = (method.test_modalities, *method.also_tested_on)
        if set(system.test_modalities) & set(method.test_modalities) not in [set(each) for each in known]:
            raise UsageError(
                f"system {system.name!r} is tested on {' + '.join(system.test_modalities)}, but its stage {name!r} on "
                f"{', or on '.join(' + '.join(each) for each in known)}"
            )


def _claim(experiment: Experiment, stage: Stage, dataset: PreparedDataset, workdir: pathlib.Path) -> None:
    """Writes what a stage is made from into its folder, or checks that what is there was made from the same."""
    path = workdir / stage.name / "config.json"
    identity = experiment.identity(stage.name) | {"dataset_fingerprint": dataset.fingerprint}
    earned = is_done(path.parent) or any(path.parent.glob("checkpoints/*/[0-9]*"))
    if not (path.exists() and earned):
        path.parent.mkdir(parents=True, exist_ok=True)
        sealed.write(path, identity)
        return
    there = _flat(sealed.read(path, f"remove the folder {path.parent} to train that stage again"))
    here = _flat(identity)
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise UsageError(
                f"{path.parent} was made with {key}={there.get(key)!r}, now it is {here.get(key)!r}: "
                "use another --workdir, or remove that folder"
            )


def _common(experiment: Experiment) -> dict[str, Any]:
    """All keys but those that may differ from host to host."""
    keys = _flat(dataclasses.asdict(experiment))
    return {key: value for key, value in keys.items() if key not in ("data.directory", "imagenet_weights")}


def _check_shared(path: pathlib.Path) -> None:
    """Raises UsageError in a process that does not read what process 0 has just written there."""
    written = processes.agree(path.read_text)
    patience = time.monotonic() + SECONDS_OF_FILE_SYSTEMS
    while not (path.exists() and path.read_text() == written):
        if time.monotonic() > patience:
            raise UsageError(
                f"{path} is not what process 0 wrote: --workdir must be one folder that all processes share"
            )
        time.sleep(0.2)


def describe_run(experiment: Experiment, dataset: PreparedDataset) -> dict[str, Any]:
    """What made a run: command, configuration, seeds, dataset, revision, versions, devices."""
    return {
        "command": _command(),
        "config": json.loads(json.dumps(dataclasses.asdict(experiment))),
        "seeds": {"experiment": experiment.seed, **{name: experiment.stage_seed(name) for name in experiment.stages}},
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "preset": dataset.info.get("preset"),
            "classes": list(dataset.classes),
            "frame_size": list(dataset.frame_size),
        },
        "revision": _revision(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "device_kinds": sorted({device.device_kind for device in jax.devices()}),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cores": os.cpu_count(),
    }


def _starts(path: pathlib.Path) -> list[dict[str, Any]]:
    """The starts that a `run.json` tells of, and this one: a run may be continued by other code on other devices."""
    try:
        before = list(sealed.read(path, "")["starts"])
    except (OSError, CheckpointError, KeyError, TypeError):
        before = []  # the first start, or of before they were told of; the rest of run.json is written anew anyway
    this = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "revision": _revision(),
        "jax": metadata.version("jax"),
        "devices": f"{len(jax.devices())} {jax.devices()[0].device_kind}",
    }
    return [*before, this]


def _command() -> str:
    """The command line of this process."""
    program = pathlib.Path(sys.argv[0])
    return shlex.join(["hallujax" if program.name == "__main__.py" else program.name, *sys.argv[1:]])


def _revision() -> str:
    """The git revision of the checkout hallujax is imported from, with `+changes` if the tree differs; or `unknown`.

    Where a launcher has copied the code, there is no checkout: it says what it copied by HALLUJAX_REVISION.
    """
    if copied := os.environ.get("HALLUJAX_REVISION"):
        return copied
    try:
        root = pathlib.Path(__file__).parents[2]
        run = {"cwd": root, "capture_output": True, "text": True, "timeout": 10, "check": True}
        top = subprocess.run(["git", "rev-parse", "--show-toplevel"], **run).stdout.strip()
        if pathlib.Path(top).resolve() != root.resolve():
            return "unknown"  # installed somewhere inside a checkout of something else
        revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **run).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{revision}+changes" if changes else revision


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}
