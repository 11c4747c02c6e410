"""Training one stage: from its warm start to its predictions, through any number of interruptions."""

import json
import pathlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.console import Console
from hallujax.data.joints import JOINTS, mirrored_joints
from hallujax.data.labels import UNLABELLED, training_labels
from hallujax.data.pipeline import ClipLoader, check_clips, training_batches
from hallujax.data.records import PreparedDataset
from hallujax.evaluation.evaluate import Evaluator, evaluators, predictions_path
from hallujax.experiment import Experiment, Stage
from hallujax.methods import Method
from hallujax.training import processes
from hallujax.training.recorder import Recorder
from hallujax.training.sharding import (
    check_batch_size,
    lay_out,
    make_mesh,
    own_part,
    replicated,
    split_over_data,
    state_sharding,
    to_devices,
)
from hallujax.training.start import bind_step, build_method, starting_networks
from hallujax.training.step import initial_state
from hallujax.training.stop import Stopped, StopRequest

Splits = Mapping[str, np.ndarray]  # {"train", "validation", "test"}: rows of the clip index; test may be left out


def train_stage(
    experiment: Experiment,
    stage: Stage,
    dataset: PreparedDataset,
    splits: Splits,
    workdir: pathlib.Path,
    console: Console,
) -> None:
    """Trains a stage, or what is left of it, then writes its predictions and, last of all, `stage.json`.

    Raises:
      Stopped: after SIGINT or SIGTERM, with everything saved.
      HallujaxError: if a loss is not finite, a checkpoint cannot be written, or bad settings or data are met.
    """
    mesh = make_mesh(experiment.mesh)
    method = build_method(stage, len(dataset.classes))
    evaluator_of = evaluators(method, dataset, experiment.data, experiment.transforms, mesh)
    loader = ClipLoader(
        dataset,
        sorted(set(method.modalities.values())),
        frames=experiment.data.frames,
        sampling=experiment.data.sampling,
        seed=experiment.stage_seed(stage.name),
        labels=labels_of_training(experiment, dataset, splits),
    )
    check_batch_size(stage.batch_size, mesh, f"stages.{stage.name}.batch_size")
    _check_splits(experiment, method, dataset, splits, console)
    trained = training_rows(experiment, stage, dataset, splits)
    steps = stage.steps(len(trained))

    directory = workdir / stage.name
    directory.mkdir(parents=True, exist_ok=True)
    example = loader(np.zeros(1, np.int64), splits["train"][:1])
    sees_joints = JOINTS in method.modalities.values()
    mirror = mirrored_joints(dataset.name, dataset.info["joint_names"]) if sees_joints else ()
    step, optimizers = bind_step(experiment, stage, method, steps, mesh=mesh, mirror=mirror)
    params, batch_stats, taken_over = starting_networks(experiment, stage, method, example, workdir)
    processes.same({f"the checksum of what {stage.name} starts from": _checksum((params, batch_stats))})
    for line in taken_over:
        console.say(f"  {line}")
    state = initial_state(params, batch_stats, method.players, optimizers)
    placement = state_sharding(mesh, state)
    recorder = Recorder(directory, stage, lay_out(state, placement))
    for line in recorder.noticed:
        console.say(f"  {line}")
    if recorder.step:
        console.say(f"  continued after {recorder.step} of {steps} steps")
    console.skip(recorder.step * stage.batch_size)

    step_function = jax.jit(
        step,
        donate_argnames="state",
        in_shardings=(placement, split_over_data(mesh), replicated(mesh), replicated(mesh)),
        out_shardings=(placement, replicated(mesh)),
    )
    batches = training_batches(
        loader,
        trained,
        batch_size=stage.batch_size,
        seed=experiment.stage_seed(stage.name),
        position=recorder.progress.position,
        part=own_part(stage.batch_size, split_over_data(mesh)),
        threads=experiment.data.threads,
    )

    def take_step() -> None:
        batch = to_devices(next(batches), split_over_data(mesh))
        scale = jnp.float32(recorder.plateau.learning_rate_scale)
        recorder.stepped(*step_function(recorder.state, batch, scale, key))
        processes.progress(f"{stage.name} {recorder.step}/{steps}")
        console.advance(stage.batch_size, f"{stage.name} {recorder.step}/{steps}")

    def validate() -> None:
        rows = splits["validation"]
        predictions = evaluator_of[()].predict(recorder.state.params, recorder.state.batch_stats, rows)
        recorder.validated(predictions.accuracy, len(rows))

    key = jax.jit(lambda: jax.random.key(experiment.stage_seed(stage.name)), out_shardings=replicated(mesh))()
    try:
        with StopRequest() as stop:
            _fit(experiment, stage, steps, recorder, take_step, validate, stop)
            console.skip((steps - recorder.step) * stage.batch_size)  # what an early plateau saved
            _finish(stage, method, splits, recorder, evaluator_of, directory, console)
            if (number := stop.reached()) is not None:
                raise Stopped(number, f"stopped after {stage.name}; the same command goes on with the next stage")
    except Stopped:
        raise
    except BaseException as error:
        processes.fail(error)
        raise
    finally:
        batches.close()
        recorder.close()


def labels_of_training(experiment: Experiment, dataset: PreparedDataset, splits: Splits) -> np.ndarray:
    """The labels that training sees, one for every clip of the dataset; see `data.labels.training_labels`."""
    return training_labels(
        dataset.index["clip"],
        dataset.index["label"],
        splits["train"],
        classes=len(dataset.classes),
        labelled=experiment.data.labelled,
        noise=experiment.data.label_noise,
    )


def training_rows(experiment: Experiment, stage: Stage, dataset: PreparedDataset, splits: Splits) -> np.ndarray:
    """The rows of the clip index that a stage trains on: those with a label, or all."""
    rows = splits["train"]
    return rows if stage.unlabelled else rows[labels_of_training(experiment, dataset, splits)[rows] != UNLABELLED]


def _checksum(tree: Any) -> int:
    checksum = 0
    for leaf in jax.tree.leaves(tree):
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return checksum


def _fit(
    experiment: Experiment,
    stage: Stage,
    steps: int,
    recorder: Recorder,
    take_step: Callable[[], None],
    validate: Callable[[], None],
    stop: StopRequest,
) -> None:
    """The loop: step, log, validate, save, until the last step or the plateau's end."""
    validate_at = {round(steps * i / stage.evaluations) for i in range(1, stage.evaluations + 1)}
    while recorder.step < steps and not recorder.plateau.finished:
        take_step()
        step = recorder.step
        if step % experiment.log_every == 0 or step == steps:
            recorder.log()
        if step in validate_at:
            validate()
        number = stop.reached()
        if number is not None or (step % experiment.checkpoint_every == 0 and step < steps):
            recorder.save()
        if number is not None:
            raise Stopped(number, f"stopped in {stage.name} at step {step}; the same command continues there")


def _check_splits(
    experiment: Experiment, method: Method, dataset: PreparedDataset, splits: Splits, console: Console
) -> None:
    """Looks for absent and short clips before anything is trained."""
    for name, rows in splits.items():
        modalities = sorted(set(method.modalities.values())) if name == "train" else method.test_modalities
        short = check_clips(dataset, rows, modalities, experiment.data.frames, experiment.data.short_clips)
        if short:
            console.say(f"  {short} {name} clips have fewer than {experiment.data.frames} frames: frames repeated")


def _finish(
    stage: Stage,
    method: Method,
    splits: Splits,
    recorder: Recorder,
    evaluator_of: Mapping[tuple[str, ...], Evaluator],
    directory: pathlib.Path,
    console: Console,
) -> None:
    """What a finished stage leaves."""
    networks, progress = recorder.best_networks(), recorder.progress
    for name in (part for part in splits if part != "train"):
        for seen, evaluator in evaluator_of.items():
            predictions = evaluator.predict(networks["params"], networks["batch_stats"], splits[name])
            if processes.is_first():
                predictions.save(predictions_path(directory, name, seen))
    summary: dict[str, Any] = {
        "name": stage.name,
        "method": stage.method,
        "networks": dict(method.modalities),
        "players": dict(method.players),
        "init_from": {network: list(source) for network, source in stage.init_from.items()},
        "steps": recorder.step,
        "batch_size": stage.batch_size,
        "clip_passes": recorder.step * stage.batch_size,
        "test_modalities": list(method.test_modalities),
        "parameters": {n: sum(leaf.size for leaf in jax.tree.leaves(p)) for n, p in networks["params"].items()},
        "seconds": round(recorder.seconds, 1),
        "best_step": progress.best_step,
        "best_validation_accuracy": progress.best_accuracy,
    }
    if processes.is_first():
        partial = directory / "stage.json.partial"
        partial.write_text(json.dumps(summary, indent=1) + "\n")
        partial.replace(directory / "stage.json")
    console.say(
        f"  {stage.name}: validation accuracy {progress.best_accuracy:.3f} at step {progress.best_step}, "
        f"{recorder.seconds:.0f} s"
    )
