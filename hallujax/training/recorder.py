"""What a stage remembers: metrics, the best networks so far, checkpoints; in the order that survives a kill."""

import copy
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.errors import DataError, HallujaxError, NotFiniteError, UsageError
from hallujax.experiment import Stage
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import MetricsLog, NoLog
from hallujax.training.optimizer import Plateau
from hallujax.training.processes import is_first
from hallujax.training.state import TrainState
from hallujax.training.watch import Watch

_SLOW_INPUT = 0.1  # of a stage's time, from which on it is said
_NAMED = 32  # clips of a batch in an error; metrics.jsonl has them all


@dataclasses.dataclass
class Progress:
    """What a checkpoint holds beside the state, as plain JSON.

    Attributes:
      position: global samples consumed: the whole state of the data pipeline.
      log: length of the metrics log in bytes. log_digest: its SHA-256; checkpoints of before there was one have none.
      plateau: see `Plateau.counters`.
      best_step, best_accuracy: the best validation so far; -1 before the first.
      seconds: trained so far, over all starts.
      waited: of these, for input.
      watch: see `Watch.counters`.
      dataset: fingerprint of what is trained on; empty in checkpoints older than it.
    """

    position: int = 0
    log: int = 0
    log_digest: str = ""
    plateau: dict[str, Any] = dataclasses.field(default_factory=dict)
    best_step: int = -1
    best_accuracy: float = -1.0
    seconds: float = 0.0
    waited: float = 0.0
    watch: dict[str, Any] = dataclasses.field(default_factory=dict)
    dataset: str = ""


@dataclasses.dataclass
class _Step:
    """A step that was dispatched: its metrics are still on the device."""

    number: int
    metrics: Mapping[str, jax.Array]
    line: dict[str, float] | None = None  # what else its line in the log says, if it gets one


class Recorder:
    """Keeps a stage's progress, from a fresh start or from where its checkpoint left it.

    A step's metrics are read when the next one has been dispatched, so nothing waits for the device. What is saved or
    validated has been looked at in any case.

    Args:
      directory: the stage's folder.
      stage: see there.
      state: before the first step, if there is no checkpoint.
      fingerprint: of the dataset.
      clips_of: the ids of the clips of a step's global batch, by the step's number from 1.
      say: takes lines for the user.

    Raises:
      UsageError: if the checkpoint is of training on another dataset.
      CheckpointError: if no checkpoint is whole, or it is of another architecture.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        stage: Stage,
        state: TrainState,
        *,
        fingerprint: str,
        clips_of: Callable[[int], Sequence[str]],
        say: Callable[[str], None],
    ):
        self._stage, self._checkpoints = stage, Checkpoints(directory / "checkpoints")
        self._clips_of, self._say = clips_of, say
        restored = self._checkpoints.restore(state)
        self.state, progress = restored or (state, {})
        for line in self._checkpoints.noticed:
            say(line)
        self.progress = Progress(**progress)
        if self.progress.dataset not in ("", fingerprint):
            raise UsageError(
                f"{directory} was trained on a dataset of fingerprint {self.progress.dataset[:12]}, now it is "
                f"{fingerprint[:12]}: put that dataset back, use another --workdir, or remove that folder"
            )
        self.progress.dataset = fingerprint
        self.step = int(self.state.step)
        self._checkpoints.forget_best_after(self.progress.best_step)
        self.plateau = Plateau(
            stage.plateau.patience, stage.plateau.factor, stage.plateau.drops, **self.progress.plateau
        )
        self.watch = Watch(**self.progress.watch)
        self._log = (
            MetricsLog(directory, position=self.progress.log, digest=self.progress.log_digest, step=self.step)
            if is_first()
            else NoLog()
        )
        self._unsaved_best: dict[str, Any] | None = None
        self._started, self._before = time.monotonic(), self.progress.seconds
        self._waited_since_line = 0.0
        self._pending: _Step | None = None
        self._error: HallujaxError | None = None
        self._last_skip: NotFiniteError | None = None

    @property
    def seconds(self) -> float:
        """Trained so far, over all starts."""
        return self._before + time.monotonic() - self._started

    @property
    def log_digest(self) -> str:
        """SHA-256 of the metrics log, all of which is in the file then."""
        return self._log.digest

    def waited(self, seconds: float) -> None:
        """Counts time in which there was no batch to train on."""
        self.progress.waited += seconds
        self._waited_since_line += seconds

    def stepped(self, state: TrainState, metrics: Mapping[str, jax.Array]) -> None:
        """Takes over what a step returned, and looks at what the one before it returned.

        Raises:
          NotFiniteError: if more than `stage.skipped_steps` in a row had to be skipped; saved first.
          DataError: if more than 0.1 % of the clips could not be read; saved first.
        """
        self.state, self.step = state, self.step + 1
        self._settle()
        self._pending = _Step(self.step, metrics)
        self._check()

    def log(self) -> None:
        """Asks for a line of the last step's metrics."""
        self._pending.line = {
            "clip_passes": self.step * self._stage.batch_size,
            "learning_rate_scale": self.plateau.learning_rate_scale,
            "seconds": round(self.seconds, 3),
            "input/waited": round(self._waited_since_line, 3),
        }
        self._waited_since_line = 0.0

    def validated(self, accuracy: float, clips: int) -> None:
        """Counts a validation: the best networks are kept, ties going to the later.

        Raises:
          NotFiniteError, DataError: as `stepped`; the first also if no step so far was finite.
        """
        self._settle()
        if self.watch.skipped == self.step:  # a short stage must not end as it began
            self._error = self._last_skip
        self._check()
        self._log.write(self.step, {"validation/accuracy": accuracy, "validation/clips": clips})
        self.plateau.update(accuracy)
        if self._stage.select == "last" or accuracy >= self.progress.best_accuracy:
            self.progress.best_step, self.progress.best_accuracy = self.step, accuracy
            networks = {"params": self.state.params, "batch_stats": self.state.batch_stats}
            self._unsaved_best = jax.tree.map(jnp.copy, networks)  # the state itself is donated to the next step

    def not_validated(self, error: NotFiniteError) -> NotFiniteError:
        """The error of a validation whose logits are not finite: where it was, and that the best so far stays."""
        best = f"is still that of step {self.progress.best_step}" if self.progress.best_step >= 0 else "does not exist"
        return NotFiniteError(
            f"validation in stage {self._stage.name} at step {self.step}: {error}; the best checkpoint {best}. Lower "
            "the learning rate, or set optimizer.clip"
        )

    def save(self) -> None:
        """Checkpoints; the next batch is drawn only after its position is taken.

        Raises:
          CheckpointError: if it cannot be written.
        """
        self._settle()
        self._save_best()
        self.progress.position = self.step * self._stage.batch_size
        self.progress.log, self.progress.log_digest = self._log.position, self._log.digest
        self.progress.plateau = self.plateau.counters()
        self.progress.watch = self.watch.counters()
        self.progress.seconds = self.seconds
        # A copy: orbax writes in the background.
        self._checkpoints.save(self.step, self.state, copy.deepcopy(dataclasses.asdict(self.progress)))

    def best_networks(self) -> dict[str, Any]:
        """`{"params", "batch_stats"}` of the best validation, read back from disk."""
        self._save_best()
        return self._checkpoints.restore_best(self.progress.best_step)

    def remarks(self) -> list[str]:
        """What a finished stage must not hide."""
        lines = []
        if self.watch.skipped:
            lines.append(f"{self.watch.skipped} of {self.step} steps were not finite and skipped: see metrics.jsonl")
        if self.watch.bad_clips:
            clips = self.step * self._stage.batch_size
            lines.append(f"{self.watch.bad_clips} of {clips} clips were damaged and left out of their batches")
        share = self.progress.waited / max(self.seconds, 1e-9)
        if share > _SLOW_INPUT:
            lines.append(
                f"waited {self.progress.waited:.0f} s for input, {share:.0%} of the time: raise config.data.threads, "
                "or set config.data.keep_decoded"
            )
        return lines

    def close(self) -> None:
        """Finishes writing."""
        self._log.close()
        self._checkpoints.close()

    def _save_best(self) -> None:
        if self._unsaved_best is not None:
            self._checkpoints.save_best(self.progress.best_step, self._unsaved_best)
            self._unsaved_best = None

    def _settle(self) -> None:
        """Reads the metrics of the step that was dispatched last, counts it, and writes what there is to write."""
        if self._pending is None:
            return
        step, self._pending = self._pending, None
        watched = _numbers(Watch.needs(step.metrics))
        for name, (value, median) in self.watch.look(watched).items():
            self._say(f"{name} leapt to {value:.4g} at step {step.number}; the running median is {median:.4g}")
            self._log.write(step.number, {f"spike/{name}": value, f"spike/{name}/median": median})
        if watched["skipped"]:
            self._skipped(step)
        clips = step.number * self._stage.batch_size
        if watched["bad_clips"] and self.watch.too_many_bad(clips):
            self._error = DataError(
                f"stage {self._stage.name} at step {step.number}: {self.watch.bad_clips} of {clips} clips read are "
                "damaged, more than 0.1 %; `hallujax inspect DATASET --verify` names all there are"
            )
        if step.line is not None:
            values = {name: value for name, value in _numbers(step.metrics).items() if np.isfinite(value)}
            counts = {"skipped": self.watch.skipped, "bad_clips": self.watch.bad_clips}
            self._log.write(step.number, values | counts | step.line)

    def _skipped(self, step: _Step) -> None:
        wrong = {name: str(value) for name, value in _numbers(step.metrics).items() if not np.isfinite(value)}
        clips = list(self._clips_of(step.number))
        what = next((f"{name} is {value}" for name, value in wrong.items()), "an update is not finite")
        some = ", ".join(clips[:_NAMED]) + (f" and {len(clips) - _NAMED} more" if clips[_NAMED:] else "")
        self._say(f"step {step.number} skipped: {what}; its clips are {some}")
        self._log.write(step.number, {"not_finite": wrong, "clips": clips})
        self._last_skip = NotFiniteError(
            f"stage {self._stage.name} at step {step.number}: {what}, in {self.watch.in_a_row} steps in a row; the "
            f"last one's clips are {some}. The checkpoint holds the networks from before these steps. Lower the "
            "learning rate, or set optimizer.clip"
        )
        if self.watch.in_a_row > self._stage.skipped_steps:
            self._error = self._last_skip

    def _check(self) -> None:
        """Raises what the steps have come to; saved first: a skipped step changed nothing, so the state is whole."""
        if self._error is not None:
            error = self._error
            self.save()
            raise error


def _numbers(metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
