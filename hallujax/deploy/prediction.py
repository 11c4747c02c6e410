"""What a system says of a clip."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from hallujax.deploy.system import FUSED


@dataclasses.dataclass(frozen=True)
class Scores:
    """What one stream, or all of them together, says of a clip.

    Attributes:
      classes: K names.
      logits: `[K]` float32; of a StableHLO or ONNX export log-probabilities, the same up to a constant.
    """

    classes: tuple[str, ...]
    logits: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """`[K]`, the softmax of the logits."""
        shifted = np.exp(self.logits - self.logits.max())
        return shifted / shifted.sum()

    @property
    def label(self) -> str:
        """The name of the likeliest class."""
        return self.classes[int(self.logits.argmax())]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The `count` likeliest classes, the likeliest first, as (name, probability)."""
        probabilities = self.probabilities
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.classes[i], float(probabilities[i])) for i in order]


@dataclasses.dataclass(frozen=True)
class Trust:
    """Whether depth was believed, by the discriminator that knows what real depth features are like.

    Attributes:
      doubt: its probability that the depth features are hallucinated, mean over the frames.
      threshold: above it depth is not used; from validation clips, of which
      false_alarms: is the share with good depth that may be above it.
    """

    doubt: float
    threshold: float
    false_alarms: float

    @property
    def used(self) -> bool:
        """Whether the fused scores rest on depth; else on the hallucination."""
        return self.doubt <= self.threshold


@dataclasses.dataclass(frozen=True)
class Moment:
    """One window of a long clip, from `start` to `end` in `unit`: `s` of a video or camera, `frames` of anything else.

    `depth` says whether depth was believed, where there is any.
    """

    start: float
    end: float
    unit: str
    scores: Mapping[str, Scores]
    depth: Trust | None = None

    @property
    def label(self) -> str:
        return self.scores[FUSED].label


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a system says of a clip.

    Attributes:
      scores: of the whole system as `fused`, and of every stream by its name.
      timeline: the windows, if it was asked for; the scores are then of their mean logits.
      depth: whether depth was believed, where there is any; with a timeline, each window says so for itself.
    """

    scores: Mapping[str, Scores]
    timeline: tuple[Moment, ...] = ()
    depth: Trust | None = None

    @classmethod
    def over(cls, moments: Iterable[Moment]) -> "Prediction":
        """The prediction for a long clip from its windows, of which there must be one."""
        timeline = tuple(moments)
        means = {
            name: Scores(one.classes, np.mean([moment.scores[name].logits for moment in timeline], axis=0))
            for name, one in timeline[0].scores.items()
        }
        return cls(means, timeline)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.scores[FUSED].classes

    @property
    def logits(self) -> np.ndarray:
        """Fused, `[K]`."""
        return self.scores[FUSED].logits

    @property
    def probabilities(self) -> np.ndarray:
        """Fused, `[K]`."""
        return self.scores[FUSED].probabilities

    @property
    def label(self) -> str:
        return self.scores[FUSED].label

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest classes of the fused scores; see `Scores.top`."""
        return self.scores[FUSED].top(count)
