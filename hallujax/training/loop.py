"""Training one stage: from its warm start to its predictions, through any number of interruptions."""

import pathlib
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hallujax import collector
from hallujax.console import Console
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, NotFiniteError
from hallujax.evaluation.evaluate import Evaluator, evaluators, predictions_path
from hallujax.experiment import Experiment, Stage
from hallujax.methods import Method
from hallujax.training import processes
from hallujax.training.input import Splits, TrainingInput, check_splits
from hallujax.training.memory import peak_memory
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
from hallujax.training.summary import write_summary


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
    source = TrainingInput(experiment, stage, method, dataset, splits)
    check_batch_size(stage.batch_size, mesh, f"stages.{stage.name}.batch_size")
    for line in check_splits(experiment, method, dataset, splits):
        console.say(f"  {line}")

    directory = workdir / stage.name
    directory.mkdir(parents=True, exist_ok=True)
    step, optimizers = bind_step(experiment, stage, method, source.steps, mesh=mesh, mirror=source.mirror)
    with collector.paused():
        params, batch_stats, taken_over = starting_networks(experiment, stage, method, source.example(), workdir)
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
        clips_of=source.clips_of,
        say=lambda line: console.say(f"  {line}"),
    )
    if recorder.step:
        console.say(f"  continued after {recorder.step} of {source.steps} steps")
    console.skip(recorder.step * stage.batch_size)

    step_function = jax.jit(
        step,
        donate_argnames="state",
        in_shardings=(placement, split_over_data(mesh), replicated(mesh), replicated(mesh)),
        out_shardings=(placement, replicated(mesh)),
    )
    batches = source.batches(recorder.progress.position, own_part(stage.batch_size, split_over_data(mesh)))

    started_at = recorder.step

    def take_step() -> None:
        asked = time.monotonic()
        batch = next(batches)
        recorder.waited(time.monotonic() - asked)
        while source.noticed:
            processes.say_of_own(console.say, f"  {source.noticed.popleft()}")
        batch = to_devices(batch, split_over_data(mesh))
        scale = np.float32(recorder.plateau.learning_rate_scale)
        if recorder.step == started_at:
            with collector.paused():
                step_function.lower(recorder.state, batch, scale, key).compile()
            # Compiled everywhere before it runs anywhere: gloo gives the others 30 s to come to its first sum.
            processes.wait(f"{stage.name} is compiled")
        recorder.stepped(*step_function(recorder.state, batch, scale, key))
        processes.progress(f"{stage.name} {recorder.step}/{source.steps}")
        console.advance(stage.batch_size, f"{stage.name} {recorder.step}/{source.steps}")

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
            _fit(experiment, stage, dataset, source.steps, recorder, take_step, validate, stop)
            console.skip((source.steps - recorder.step) * stage.batch_size)  # what an early plateau saved
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
        "peak_memory_mib": peak_memory(),
        "input_waited": round(progress.waited, 1),
        "skipped_steps": recorder.watch.skipped,
        "bad_clips": recorder.watch.bad_clips,
        "best_step": progress.best_step,
        "best_validation_accuracy": progress.best_accuracy,
        "metrics_sha256": recorder.log_digest,
    }
    if processes.is_first():
        write_summary(directory, summary)
    console.say(
        f"  {stage.name}: validation accuracy {progress.best_accuracy:.3f} at step {progress.best_step}, "
        f"{recorder.seconds:.0f} s"
    )
    for line in recorder.remarks():
        console.say(f"  {line}")
