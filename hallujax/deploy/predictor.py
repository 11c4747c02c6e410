"""From a clip to classes: `hallujax.load(path)(clip)`."""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from hallujax.data.clips import uniform_frames
from hallujax.deploy.export import SUMS, read_export
from hallujax.deploy.system import FUSED, RgbSystem, bound
from hallujax.deploy.video import Clip, fit, open_clip
from hallujax.errors import UsageError

Logits = Mapping[str, jax.Array]  # {"fused" or stream: [B, K]}


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
class Moment:
    """One window of a long clip, from `start` to `end` in `unit`: `s` of a video file, `frames` of anything else."""

    start: float
    end: float
    unit: str
    scores: Mapping[str, Scores]

    @property
    def label(self) -> str:
        return self.scores[FUSED].label


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a system says of a clip.

    Attributes:
      scores: of the whole system as `fused`, and of every stream by its name.
      timeline: the windows, if it was asked for; the scores are then of their mean logits.
    """

    scores: Mapping[str, Scores]
    timeline: tuple[Moment, ...] = ()

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


class Predictor:
    """Predicts from RGB alone; made by `load`.

    A clip is the path of a video, the path of a folder of pictures, or frames uint8 `[T, H, W, 3]`. It is seen as
    evaluation sees one: T frames evenly over it, by number, its first and last included; a shorter clip repeats some.
    Frames that are not of the training data's size (`frame_size`) are cropped to the largest centred part of its
    shape, a square for square frames, and resized, by means over areas when they shrink and linearly when they grow.

    Attributes:
      system: what predicts, and the classes, frames and sizes it knows.
    """

    def __init__(self, system: RgbSystem, logits: Callable[[np.ndarray], Logits]):
        self.system, self._logits = system, logits

    @property
    def classes(self) -> tuple[str, ...]:
        return self.system.classes

    def __call__(self, clip: Any, *, window: float | None = None, hop: float | None = None) -> Prediction:
        """The prediction for one clip.

        Args:
          clip: see the class.
          window: length of a sliding window over a long clip, in seconds of a video file, in frames of anything else.
          hop: from one window to the next, in the same unit; half a window if not said.

        Raises:
          DataError: if the clip cannot be read.
          UsageError: if `window` or `hop` is not positive, or PyAV is missing.
        """
        if window is None:
            return next(self.predict_many([clip], batch_size=1))
        return self._slide(open_clip(clip), window, window / 2 if hop is None else hop)

    def predict_many(self, clips: Iterable[Any], *, batch_size: int = 16) -> Iterator[Prediction]:
        """The predictions for many clips, in their order, a batch at a time.

        Raises:
          DataError: at the first clip that cannot be read; after the predictions of the batches before it.
        """
        read = (self.read(clip) for clip in clips)
        for batch in _batches(read, batch_size):
            yield from (Prediction(scores) for scores in self._scores(batch, batch_size))

    def read(self, clip: Any) -> np.ndarray:
        """The frames of a clip that the networks will see, uint8 `[T, H, W, 3]`, which is a clip again."""
        opened = open_clip(clip)
        wanted = uniform_frames(len(opened.times), self.system.frames)
        return np.stack([fit(frame, self.system.frame_size) for frame in opened.frames(wanted)])

    def _slide(self, clip: Clip, window: float, hop: float) -> Prediction:
        spans = _windows(clip.end, window, hop)
        wanted = [_frames_between(clip.times, *span, self.system.frames) for span in spans]
        moments = []
        for start, batch in zip(
            itertools.count(step=BATCH), _batches(self._read_windows(clip, wanted), BATCH), strict=False
        ):
            for (begin, end), scores in zip(spans[start:], self._scores(batch, BATCH), strict=False):
                moments.append(Moment(begin, end, clip.unit, scores))
        means = {
            name: Scores(self.classes, np.mean([moment.scores[name].logits for moment in moments], axis=0))
            for name in moments[0].scores
        }
        return Prediction(means, tuple(moments))

    def _read_windows(self, clip: Clip, wanted: list[np.ndarray]) -> Iterator[np.ndarray]:
        """The windows' frames from one pass over the clip, kept no longer than a window needs them."""
        numbers = np.unique(np.concatenate(wanted))
        frames = zip(numbers.tolist(), clip.frames(numbers), strict=True)
        kept: dict[int, np.ndarray] = {}
        for window in wanted:
            kept = {number: frame for number, frame in kept.items() if number >= window[0]}
            while window[-1] not in kept:
                number, frame = next(frames)
                kept[number] = fit(frame, self.system.frame_size)
            yield np.stack([kept[number] for number in window.tolist()])

    def _scores(self, clips: list[np.ndarray], batch_size: int) -> Iterator[dict[str, Scores]]:
        """The batch is filled up with its first clip: one shape is compiled once."""
        filled = np.stack(clips + clips[:1] * (batch_size - len(clips)))
        logits = {name: np.asarray(values) for name, values in self._logits(filled).items()}
        for i in range(len(clips)):
            yield {name: Scores(self.classes, values[i]) for name, values in logits.items()}


BATCH = 16  # windows


def load(path: str | os.PathLike, system: str | None = None) -> Predictor:
    """A predictor from a run or an export; of a run, only the networks that see RGB are read.

    Args:
      path: the workdir of `hallujax train`, a seed's folder of `hallujax table`, or an export's folder.
      system: a row of the run's table. If not said: of the rows that need RGB alone, the one with the best accuracy on
        validation clips (of equals the first). An export holds one system.

    Raises:
      UsageError: if the folder is neither, or there is no such system, or it needs more than RGB.
      CheckpointError: if the networks are damaged, or of another architecture than the run says.
    """
    path = pathlib.Path(path)
    if (path / SUMS).exists():
        return Predictor(*read_export(path, system))
    from hallujax.deploy.run import read_run  # brings the training stack along, which an export does not need

    trained = read_run(path, system)
    return Predictor(trained.system, bound(trained.system, trained.variables))


def _windows(length: float, window: float, hop: float) -> list[tuple[float, float]]:
    """Spans of `window` every `hop`; the last ends with the clip, and one span is enough for a clip no longer."""
    if not (0 < window < math.inf and 0 < hop < math.inf):
        raise UsageError(f"window is {window} and hop {hop}; both must be positive")
    last = max(0.0, length - window)
    starts = [i * hop for i in range(math.ceil(round(last / hop, 9)))] + [last]
    return [(start, min(start + window, length)) for start in starts]


def _frames_between(times: np.ndarray, start: float, end: float, count: int) -> np.ndarray:
    """`count` frame numbers evenly over those that appear in a span; in a gap, the frame that is still shown."""
    first, after = np.searchsorted(times, [start - 1e-9, end - 1e-9])
    if first >= after:
        first, after = max(0, first - 1), max(1, first)
    return first + uniform_frames(int(after - first), count)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
