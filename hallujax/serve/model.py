"""A loaded system that answers batches: logits, and where each stream looks."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.deploy.activation import class_activations
from hallujax.deploy.export import SUMS, read_export
from hallujax.deploy.prediction import Scores
from hallujax.deploy.run import read_run
from hallujax.deploy.system import FUSED, Bound


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a system says of one clip.

    Attributes:
      scores: of the whole system as `fused`, and of every stream by its name.
      maps: `{stream: [T, h, w]}` float32 in 0..1 of what speaks for the fused class; empty where the weights are inside
        a program.
    """

    scores: Mapping[str, Scores]
    maps: Mapping[str, np.ndarray]


class Model:
    """A run's system, or an export.

    Attributes:
      system: its classes, frames and sizes.
      facts: what the run said of it when it was trained.
      workdir: of the run's seed; None of an export.
      origin: which system of which seed was taken, and why; empty if there was no choice.
      streams: names of the scores, `fused` first.
      has_maps: whether answers hold class-activation maps.
    """

    def __init__(self, path: pathlib.Path, name: str | None, max_batch: int):
        """Arguments `path` and `name` are those of `hallujax.load`, and so are the errors."""
        if (path / SUMS).exists():
            self.system, logits = read_export(path, name)
            self.facts: dict[str, Any] = json.loads((path / "config.json").read_text())["facts"]
            self.workdir, self.origin = None, ""
        else:
            trained = read_run(path, name)
            self.system, self.facts = trained.system, trained.facts
            self.workdir, self.origin = trained.workdir, trained.origin
            logits = Bound(trained.system, trained.variables)
        self.has_maps = isinstance(logits, Bound)
        self._variables = logits.variables if isinstance(logits, Bound) else None
        self._step = jax.jit(self._explained) if self.has_maps else lambda _, rgb: (logits(rgb), {})
        self._sizes = [1]
        while self._sizes[-1] < max_batch:
            self._sizes.append(min(2 * self._sizes[-1], max_batch))
        self.streams: tuple[str, ...] = ()

    def warm_up(self) -> None:
        """Compiles for every batch size, so that no request waits for it."""
        for size in self._sizes:
            answers = self.answer([np.zeros((self.system.frames, *self.system.frame_size, 3), np.uint8)] * size)
        names = list(answers[0].scores)
        self.streams = (FUSED, *(name for name in names if name != FUSED))

    def answer(self, clips: Sequence[np.ndarray]) -> list[Answer]:
        """Answers to clips uint8 `[T, H, W, 3]`, at most `max_batch`, filled up to the next size that is compiled."""
        size = next(size for size in self._sizes if size >= len(clips))
        filled = np.stack([*clips, *[clips[0]] * (size - len(clips))])
        logits, maps = jax.tree.map(np.asarray, self._step(self._variables, filled))
        return [
            Answer(
                {name: Scores(self.system.classes, values[i]) for name, values in logits.items()},
                {name: values[i] for name, values in maps.items()},
            )
            for i in range(len(clips))
        ]

    def _explained(self, variables: Any, rgb: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Logits and maps as one program: the streams run once for both."""
        logits = self.system.logits(variables, rgb)
        return logits, class_activations(self.system, variables, rgb, jnp.argmax(logits[FUSED], axis=-1))
