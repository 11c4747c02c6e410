"""Training one stage: from its warm start to its predictions, through any number of interruptions."""

import functools
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax import methods
from hallujax.console import Console
from hallujax.data.pipeline import ClipLoader, check_clips, training_batches
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import prepare_evaluation, prepare_training
from hallujax.errors import HallujaxError, UsageError
from hallujax.evaluation.evaluate import Evaluator
from hallujax.experiment import IMAGENET, Experiment, Stage
from hallujax.models import VideoResNet, pretrained
from hallujax.models.streams import initialize
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import MetricsLog
from hallujax.training.optimizer import Plateau, build_optimizers
from hallujax.training.sharding import check_batch_size, make_mesh, replicated, split_over_data, to_devices
from hallujax.training.state import TrainState
from hallujax.training.step import evaluation_step, initial_state, train_step
from hallujax.training.stop import Stopped, StopRequest
from hallujax.training.warm_start import warm_start, warm_start_from_imagenet


def build_method(stage: Stage, num_classes: int) -> methods.Method:
    """The method that a stage declares, for a dataset of so many classes."""
    try:
        model = dict(stage.model)
        model["bottleneck"] = model["bottleneck"] or None
        stream = VideoResNet(num_classes=num_classes, **model)
    except TypeError as error:
        raise UsageError(f"stages.{stage.name}.model: {error}") from error
    return methods.build(stage.method, stream, stage.options)


class StageTraining:
    """One stage in one folder: started, continued or found finished."""

    def __init__(
        self,
        experiment: Experiment,
        stage: Stage,
        dataset: PreparedDataset,
        splits: Mapping[str, np.ndarray],
        workdir: pathlib.Path,
        console: Console,
    ):
        self.stage, self.experiment, self.dataset, self.splits = stage, experiment, dataset, splits
        self.directory = workdir / stage.name
        self.workdir, self.console = workdir, console
        self.method = build_method(stage, len(dataset.classes))
        self.modalities = sorted(set(self.method.modalities.values()))
        self.steps = stage.steps(len(splits["train"]))
        self.mesh = make_mesh()
        check_batch_size(stage.batch_size, self.mesh, f"stages.{stage.name}.batch_size")
        self.evaluator = Evaluator(
            self.method,
            dataset,
            experiment.data,
            functools.partial(
                evaluation_step,
                method=self.method,
                prepare=functools.partial(prepare_evaluation, options=experiment.transforms),
            ),
            self.mesh,
        )

    def run(self) -> None:
        """Trains what is left, then writes the predictions and, last of all, `stage.json`.

        Raises:
          Stopped: after SIGINT or SIGTERM, with everything saved.
          HallujaxError: if a loss is not finite, a checkpoint cannot be written, or bad data is met.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(self.directory / "checkpoints")
        with StopRequest() as stop:
            summary = self._train(checkpoints, stop)
            self._finish(checkpoints, summary)
        checkpoints.close()

    # -- the state before the first step ------------------------------------------------------------------------

    def _initial_state(self, optimizers: Mapping[str, Any]) -> TrainState:
        example = self._loader(sampling="uniform")(np.zeros(1, np.int64), self.splits["train"][:1])
        shapes = jax.eval_shape(
            functools.partial(prepare_evaluation, options=self.experiment.transforms),
            {name: jnp.asarray(value) for name, value in example.items()},
            jax.random.key(0),
        )
        key = jax.random.key(self.experiment.stage_seed(self.stage.name))
        params, batch_stats = initialize(self.method.networks, self.method.forward, shapes, key)
        if strangers := set(self.stage.init_from) - set(params):
            raise UsageError(
                f"stages.{self.stage.name}.init_from names {sorted(strangers)}; the networks are {sorted(params)}"
            )
        for network, (source, its_network) in self.stage.init_from.items():
            fresh = {"params": params[network], "batch_stats": batch_stats[network]}
            variables, what = self._copy(network, fresh, source, its_network)
            params[network], batch_stats[network] = variables["params"], variables["batch_stats"]
            self.console.say(f"  {what}")
        return initial_state(params, batch_stats, self.method.players, optimizers)

    def _copy(self, network: str, fresh: dict, source: str, its_network: str) -> tuple[dict, str]:
        if source == IMAGENET:
            path = self.experiment.imagenet_weights
            if not path:
                raise UsageError(f"{network} starts from ImageNet: set config.imagenet_weights to a .safetensors file")
            model = self.stage.model
            weights = pretrained.load(path, stage_sizes=model["stage_sizes"], width=model["width"])
            return warm_start_from_imagenet(network, fresh, weights, path)
        found = Checkpoints(self.workdir / source / "checkpoints")
        networks = found.restore_best()
        found.close()
        if its_network not in networks["params"]:
            raise UsageError(
                f"stages.{self.stage.name}.init_from: stage {source!r} has no network {its_network!r}; "
                f"it has {', '.join(networks['params'])}"
            )
        variables = {kind: networks[kind].get(its_network, {}) for kind in ("params", "batch_stats")}
        return warm_start(network, fresh, variables, f"{source}/{its_network}")

    def _loader(self, sampling: str) -> ClipLoader:
        return ClipLoader(
            self.dataset,
            self.modalities,
            frames=self.experiment.data.frames,
            sampling=sampling,
            seed=self.experiment.stage_seed(self.stage.name),
        )

    # -- the loop -----------------------------------------------------------------------------------------------

    def _train(self, checkpoints: Checkpoints, stop: StopRequest) -> dict[str, Any]:
        stage, data = self.stage, self.experiment.data
        short = check_clips(self.dataset, self.splits["train"], self.modalities, data.frames, data.short_clips)
        if short:
            self.console.say(f"  {short} training clips have fewer than {data.frames} frames: frames repeated")
        optimizers = build_optimizers(stage.optimizer, self.method.players, self.steps, self.method.idle)
        everywhere, split = replicated(self.mesh), split_over_data(self.mesh)
        state = jax.device_put(self._initial_state(optimizers), everywhere)
        plateau = Plateau(stage.plateau.patience, stage.plateau.factor, stage.plateau.drops)
        progress: dict[str, Any] = {
            "position": 0,
            "log": 0,
            "plateau": plateau.counters(),
            "best": None,
            "seconds": 0.0,
        }
        if (restored := checkpoints.restore(state)) is not None:
            state, progress = restored
            plateau = Plateau(stage.plateau.patience, stage.plateau.factor, stage.plateau.drops, **progress["plateau"])
            self.console.say(f"  continued after {int(state.step)} of {self.steps} steps")
        first = int(state.step)
        self.console.advance(first * stage.batch_size, stage.name)

        step_function = jax.jit(
            functools.partial(
                train_step,
                method=self.method,
                optimizers=optimizers,
                rounds=stage.rounds or (tuple(dict.fromkeys(self.method.players.values())),),
                prepare=functools.partial(prepare_training, options=self.experiment.transforms),
            ),
            donate_argnames="state",
            in_shardings=(everywhere, split, everywhere, everywhere),
            out_shardings=everywhere,
        )
        seed = self.experiment.stage_seed(stage.name)
        key = jax.device_put(jax.random.key(seed), everywhere)
        log = MetricsLog(self.directory, position=progress["log"], step=first)
        batches = training_batches(
            self._loader(data.sampling),
            self.splits["train"],
            batch_size=stage.batch_size,
            seed=seed & 0xFFFFFFFF,
            position=progress["position"],
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=data.threads,
        )
        validate_at = {round(self.steps * i / stage.evaluations) for i in range(1, stage.evaluations + 1)}
        started, before = time.monotonic(), progress["seconds"]
        best = None  # networks better than those on disk

        def save(step: int, state: TrainState) -> None:
            nonlocal best
            if best is not None:
                checkpoints.save_best(progress["best"]["step"], best)
                best = None
            # What the counters say is true of this state: the next batch is drawn only after they are taken.
            progress.update(position=step * stage.batch_size, log=log.position, plateau=plateau.counters())
            progress.update(seconds=before + time.monotonic() - started)
            checkpoints.save(step, state, progress)

        for step in range(first + 1, self.steps + 1):
            if plateau.finished:
                break
            batch = to_devices(next(batches), split)
            state, metrics = step_function(state, batch, jnp.float32(plateau.learning_rate_scale), key)
            self.console.advance(stage.batch_size, f"{stage.name} {step}/{self.steps}")
            if step % self.experiment.log_every == 0 or step == self.steps:
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                self._check_finite(values, step)
                values |= {
                    "clip_passes": step * stage.batch_size,
                    "learning_rate_scale": plateau.learning_rate_scale,
                }
                log.write(step, values | {"seconds": before + time.monotonic() - started})
            if step in validate_at:
                score = self.evaluator.predict(state.params, state.batch_stats, self.splits["validation"]).accuracy
                log.write(step, {"validation/accuracy": score, "validation/clips": len(self.splits["validation"])})
                plateau.update(score)
                if progress["best"] is None or stage.select == "last" or score >= progress["best"]["accuracy"]:
                    progress["best"] = {"step": step, "accuracy": score}
                    best = jax.tree.map(jnp.copy, {"params": state.params, "batch_stats": state.batch_stats})
            if stop.signal is not None:
                save(step, state)
                checkpoints.close()
                raise Stopped(stop.signal, f"stopped in {stage.name} at step {step}; the same command continues there")
            if step % self.experiment.checkpoint_every == 0 and step != self.steps:
                save(step, state)
        if best is not None:
            checkpoints.save_best(progress["best"]["step"], best)
        batches.close()
        log.close()
        return {
            "steps": int(state.step),
            "best_step": progress["best"]["step"],
            "best_validation_accuracy": progress["best"]["accuracy"],
            "seconds": round(before + time.monotonic() - started, 1),
        }

    def _check_finite(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            if not np.isfinite(value):
                raise HallujaxError(
                    f"{name} is {value} in stage {self.stage.name} at step {step}; the checkpoint before it is whole. "
                    "Lower the learning rate, or set optimizer.clip"
                )

    # -- what a finished stage leaves -----------------------------------------------------------------------------

    def _finish(self, checkpoints: Checkpoints, trained: dict[str, Any]) -> None:
        networks = checkpoints.restore_best()
        for split in ("validation", "test"):
            predictions = self.evaluator.predict(networks["params"], networks["batch_stats"], self.splits[split])
            predictions.save(self.directory / f"predictions_{split}.npz")
        summary = {
            "name": self.stage.name,
            "method": self.stage.method,
            "networks": dict(self.method.modalities),
            "players": dict(self.method.players),
            "init_from": {network: list(source) for network, source in self.stage.init_from.items()},
            "batch_size": self.stage.batch_size,
            "clip_passes": trained["steps"] * self.stage.batch_size,
            "test_modalities": list(self.method.test_modalities),
            "parameters": {n: sum(leaf.size for leaf in jax.tree.leaves(p)) for n, p in networks["params"].items()},
        } | trained
        partial = self.directory / "stage.json.partial"
        partial.write_text(json.dumps(summary, indent=1) + "\n")
        os.replace(partial, self.directory / "stage.json")
        self.console.say(
            f"  {self.stage.name}: validation accuracy {summary['best_validation_accuracy']:.3f} "
            f"at step {summary['best_step']}, {summary['seconds']:.0f} s"
        )
