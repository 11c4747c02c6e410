"""What a stage remembers: metrics, the best networks so far, checkpoints; in the order that survives a kill."""

import copy
import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.errors import NotFiniteError
from hallujax.experiment import Stage
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import MetricsLog, NoLog
from hallujax.training.optimizer import Plateau
from hallujax.training.processes import is_first
from hallujax.training.state import TrainState


@dataclasses.dataclass
class Progress:
    """What a checkpoint holds beside the state, as plain JSON.

    Attributes:
      position: global samples consumed: the whole state of the data pipeline.
      log: length of the metrics log in bytes.
      plateau: see `Plateau.counters`.
      best_step, best_accuracy: the best validation so far; -1 before the first.
      seconds: trained so far, over all starts.
    """

    position: int = 0
    log: int = 0
    plateau: dict[str, Any] = dataclasses.field(default_factory=dict)
    best_step: int = -1
    best_accuracy: float = -1.0
    seconds: float = 0.0


class Recorder:
    """Keeps a stage's progress, from a fresh start or from where its checkpoint left it."""

    def __init__(self, directory: pathlib.Path, stage: Stage, state: TrainState):
        self._stage, self._checkpoints = stage, Checkpoints(directory / "checkpoints")
        restored = self._checkpoints.restore(state)
        self.state, progress = restored or (state, {})
        self.noticed = list(self._checkpoints.noticed)  # lines for the user
        self.progress = Progress(**progress)
        self.step = int(self.state.step)
        self._checkpoints.forget_best_after(self.progress.best_step)
        self.plateau = Plateau(
            stage.plateau.patience, stage.plateau.factor, stage.plateau.drops, **self.progress.plateau
        )
        self._log = MetricsLog(directory, position=self.progress.log, step=self.step) if is_first() else NoLog()
        self._unsaved_best: dict[str, Any] | None = None
        self._started, self._before = time.monotonic(), self.progress.seconds
        self._metrics: Mapping[str, jax.Array] = {}

    @property
    def seconds(self) -> float:
        """Trained so far, over all starts."""
        return self._before + time.monotonic() - self._started

    def stepped(self, state: TrainState, metrics: Mapping[str, jax.Array]) -> None:
        """Takes over what a step returned; nothing is read from the device yet."""
        self.state, self._metrics = state, metrics
        self.step += 1

    def log(self) -> None:
        """Writes the last step's metrics.

        Raises:
          NotFiniteError: if one of them is not finite.
        """
        extra = {
            "clip_passes": self.step * self._stage.batch_size,
            "learning_rate_scale": self.plateau.learning_rate_scale,
        }
        self._log.write(self.step, self._finite_metrics() | extra | {"seconds": round(self.seconds, 3)})

    def validated(self, accuracy: float, clips: int) -> None:
        """Counts a validation: the best networks are kept, ties going to the later."""
        self._finite_metrics()
        self._log.write(self.step, {"validation/accuracy": accuracy, "validation/clips": clips})
        self.plateau.update(accuracy)
        if self._stage.select == "last" or accuracy >= self.progress.best_accuracy:
            self.progress.best_step, self.progress.best_accuracy = self.step, accuracy
            networks = {"params": self.state.params, "batch_stats": self.state.batch_stats}
            self._unsaved_best = jax.tree.map(jnp.copy, networks)  # the state itself is donated to the next step

    def save(self) -> None:
        """Checkpoints; the next batch is drawn only after its position is taken.

        Raises:
          CheckpointError: if it cannot be written.
          NotFiniteError: if the last step's metrics are not finite: such a state must not replace a good one.
        """
        self._finite_metrics()
        self._save_best()
        self.progress.position = self.step * self._stage.batch_size
        self.progress.log = self._log.position
        self.progress.plateau = self.plateau.counters()
        self.progress.seconds = self.seconds
        # A copy: orbax writes in the background.
        self._checkpoints.save(self.step, self.state, copy.deepcopy(dataclasses.asdict(self.progress)))

    def best_networks(self) -> dict[str, Any]:
        """`{"params", "batch_stats"}` of the best validation, read back from disk."""
        self._save_best()
        return self._checkpoints.restore_best(self.progress.best_step)

    def close(self) -> None:
        """Finishes writing."""
        self._log.close()
        self._checkpoints.close()

    def _save_best(self) -> None:
        if self._unsaved_best is not None:
            self._checkpoints.save_best(self.progress.best_step, self._unsaved_best)
            self._unsaved_best = None

    def _finite_metrics(self) -> dict[str, float]:
        values = {name: float(value) for name, value in jax.device_get(dict(self._metrics)).items()}
        for name, value in values.items():
            if not np.isfinite(value):
                raise NotFiniteError(
                    f"{name} is {value} in stage {self._stage.name} at step {self.step}; the checkpoint before it "
                    "is whole. Lower the learning rate, or set optimizer.clip"
                )
        return values
