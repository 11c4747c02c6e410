"""Training one stage: from its warm start to its predictions, through any number of interruptions."""

import functools
import json
import pathlib
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.console import Console
from hallujax.data.joints import JOINTS, mirrored_joints
from hallujax.data.labels import UNLABELLED, training_labels
from hallujax.data.pipeline import ClipLoader, check_clips, rows_of_batch, training_batches
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import prepare_training
from hallujax.errors import DataError, NotFiniteError
from hallujax.evaluation.evaluate import Evaluator, evaluators, predictions_path
from hallujax.experiment import Experiment, Stage
from hallujax.methods import Method
from hallujax.training import processes
from hallujax.training.optimizer import build_optimizers
from hallujax.training.recorder import Recorder
from hallujax.training.sharding import (
    check_batch_size,
    gather,
    lay_out,
    make_mesh,
    own_part,
    replicated,
    split_over_data,
    state_sharding,
    to_devices,
)
from hallujax.training.start import build_method, starting_networks
from hallujax.training.step import initial_state, train_step
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
        bad_records=experiment.data.bad_records,
    )
    check_batch_size(stage.batch_size, mesh, f"stages.{stage.name}.batch_size")
    _check_splits(experiment, method, dataset, splits, console)
    trained = training_rows(experiment, stage, dataset, splits)
    steps = stage.steps(len(trained))
    rounds = stage.rounds or (tuple(dict.fromkeys(method.players.values())),)
    optimizers = build_optimizers(stage.optimizer, method.players, steps, method.idle, rounds)

    def clips_of(step: int) -> list[str]:
        rows = rows_of_batch(
            trained, batch_size=stage.batch_size, seed=experiment.stage_seed(stage.name), number=step - 1
        )
        return [dataset.clip_id(row) for row in rows]

    directory = workdir / stage.name
    directory.mkdir(parents=True, exist_ok=True)
    first = splits["train"][: stage.batch_size]  # more than one: with `skip` it may be the first that is damaged
    example = {name: value[:1] for name, value in loader(np.arange(len(first)), first).items()}
    params, batch_stats, taken_over = starting_networks(experiment, stage, method, example, workdir)
    processes.same({f"the checksum of what {stage.name} starts from": _checksum((params, batch_stats))})
    for line in taken_over:
        console.say(f"  {line}")
    state = initial_state(params, batch_stats, method.players, optimizers)
    placement = state_sharding(mesh, state)
    recorder = Recorder(
        directory,
        stage,
        lay_out(state, placement),
        fingerprint=dataset.fingerprint,
        clips_of=clips_of,
        say=lambda line: console.say(f"  {line}"),
    )
    if recorder.step:
        console.say(f"  continued after {recorder.step} of {steps} steps")
    console.skip(recorder.step * stage.batch_size)

    sees_joints = JOINTS in method.modalities.values()
    mirror = mirrored_joints(dataset.name, dataset.info["joint_names"]) if sees_joints else ()
    step_function = jax.jit(
        functools.partial(
            train_step,
            method=method,
            optimizers=optimizers,
            rounds=rounds,
            prepare=functools.partial(prepare_training, options=experiment.transforms, mirror=mirror),
            accumulate=stage.accumulate,
            ghost_batch=stage.ghost_batch,
            gather=functools.partial(gather, mesh=mesh),
        ),
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

    started_at = recorder.step

    def take_step() -> None:
        asked = time.monotonic()
        batch = next(batches)
        recorder.waited(time.monotonic() - asked)
        while loader.noticed:
            processes.say_of_own(console.say, f"  {loader.noticed.popleft()}")
        batch = to_devices(batch, split_over_data(mesh))
        scale = jnp.float32(recorder.plateau.learning_rate_scale)
        if processes.several() and recorder.step == started_at:
            # Compiled everywhere before it runs anywhere: gloo gives the others 30 s to come to its first sum.
            step_function.lower(recorder.state, batch, scale, key).compile()
            processes.wait(f"{stage.name} is compiled")
        recorder.stepped(*step_function(recorder.state, batch, scale, key))
        processes.progress(f"{stage.name} {recorder.step}/{steps}")
        console.advance(stage.batch_size, f"{stage.name} {recorder.step}/{steps}")

    def validate() -> None:
        rows = splits["validation"]
        try:
            predictions = evaluator_of[()].predict(recorder.state.params, recorder.state.batch_stats, rows)
        except NotFiniteError as error:
            raise recorder.not_validated(error) from error
        recorder.validated(predictions.accuracy, len(rows))

    key = jax.jit(lambda: jax.random.key(experiment.stage_seed(stage.name)), out_shardings=replicated(mesh))()
    try:
        with StopRequest() as stop:
            _fit(experiment, stage, dataset, steps, recorder, take_step, validate, stop)
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
    dataset: PreparedDataset,
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
            _check_unchanged(stage, dataset)
            recorder.save()
        if number is not None:
            raise Stopped(number, f"stopped in {stage.name} at step {step}; the same command continues there")


def _check_unchanged(stage: Stage, dataset: PreparedDataset) -> None:
    """Before every checkpoint, so that none is made from two datasets."""
    if what := dataset.changed():
        raise DataError(
            f"stage {stage.name}: {what}, while it is trained on; the last checkpoint is from before that was noticed. "
            "Put the dataset back and start the same command again, or train in another --workdir"
        )


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
    """What a finished stage leaves, and what is to be said of it."""
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
        "input_waited": round(progress.waited, 1),
        "skipped_steps": recorder.watch.skipped,
        "bad_clips": recorder.watch.bad_clips,
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
    for line in recorder.remarks():
        console.say(f"  {line}")
