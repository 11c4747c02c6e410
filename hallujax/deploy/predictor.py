"""From a clip to classes: `hallujax.load(path)(clip)`."""

import collections
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from hallujax import paths
from hallujax.data.clips import uniform_frames
from hallujax.deploy.activation import class_activations
from hallujax.deploy.export import SUMS, read_export
from hallujax.deploy.prediction import Moment, Prediction, Scores, Trust
from hallujax.deploy.system import FUSED, Bound, RgbSystem
from hallujax.deploy.video import Clip, fit, open_clip
from hallujax.errors import CheckpointError, DataError, UsageError

__all__ = ["Moment", "Prediction", "Predictor", "Scores", "Trust", "load"]

Logits = Mapping[str, jax.Array]  # {"fused" or stream: [B, K]}
BATCH = 16  # clips or windows
MOST_WINDOWS = 1_000_000  # of one clip
LONGEST_LIVE = 60.0  # seconds: the frames of a camera's window are kept


class Predictor:
    """Predicts from RGB alone; made by `load`.

    A clip is the path of a video, the path of a folder of pictures, or frames uint8 `[T, H, W, 3]`. It is seen as
    evaluation sees one: T frames evenly over it, by number, its first and last included; a shorter clip repeats some.
    Frames that are not of the training data's size (`frame_size`) are cropped to the largest centred part of its
    shape, a square for square frames, and resized, by means over areas when they shrink and linearly when they grow.

    Attributes:
      system: what predicts, and the classes, frames and sizes it knows.
      origin: which system of which seed was taken, and why, for people; empty if there was no choice.
    """

    def __init__(self, system: RgbSystem, logits: Callable[[np.ndarray], Logits], *, origin: str = ""):
        self.system, self.origin, self._logits = system, origin, logits

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
          CheckpointError: if the weights do not fit the classes, or give no numbers.
        """
        if window is None:
            return next(self.predict_many([clip], batch_size=1))
        return Prediction.over(self.slide(clip, window, hop))

    def predict_many(self, clips: Iterable[Any], *, batch_size: int = BATCH) -> Iterator[Prediction]:
        """The predictions for many clips, in their order, a batch at a time.

        Raises:
          DataError: at the first clip that cannot be read; after the predictions of the batches before it.
        """
        read = (self.read(clip) for clip in clips)
        for batch in _batches(read, batch_size):
            yield from (Prediction(scores, depth=depth) for scores, depth in self._answers(batch, batch_size))

    def read(self, clip: Any) -> np.ndarray:
        """The frames of a clip that the networks will see, uint8 `[T, H, W, 3]`, which is a clip again."""
        opened = self._open(clip)
        wanted = uniform_frames(len(opened.times), self.system.frames)
        return np.stack([self._fit(frame) for frame in opened.frames(wanted)])

    def slide(self, clip: Any, window: float, hop: float | None = None) -> Iterator[Moment]:
        """The windows of a long clip, as they are read: at any length, a batch of windows is in memory.

        Arguments and errors are those of a call.
        """
        opened = self._open(clip)
        spans = _windows(opened.end, window, window / 2 if hop is None else hop)
        wanted = [_frames_between(opened.times, *span, self.system.frames) for span in spans]
        answers = (
            answer
            for batch in _batches(self._read_windows(opened, wanted), BATCH)
            for answer in self._answers(batch, BATCH)
        )
        for (start, end), (scores, depth) in zip(spans, answers, strict=True):
            yield Moment(start, end, opened.unit, scores, depth)

    def follow(
        self, frames: Iterable[tuple[float, np.ndarray]], window: float, hop: float | None = None
    ) -> Iterator[Moment]:
        """A window after every `hop` seconds of frames that come one by one, say `camera.watch(0)`.

        A window ends with the newest frame, and is predicted before the next frame is asked for. The first is
        said when `window` seconds have been seen, or at the end of a source that ends before.

        Args:
          frames: seconds, not decreasing, and frames uint8 `[H, W, 3]`.
          window: seconds, 60 at most.
          hop: seconds; half a window if not said.

        Raises:
          UsageError: if `window` or `hop` is not positive, or the window is too long.
        """
        hop = window / 2 if hop is None else hop
        if not (0 < window <= LONGEST_LIVE and 0 < hop < math.inf):
            raise UsageError(f"window is {window} and hop {hop}; a camera's are above 0, its window at most 60 seconds")
        kept: collections.deque[tuple[float, np.ndarray]] = collections.deque()
        due = window
        for moment, frame in frames:
            kept.append((moment, self._fit(frame)))
            while kept[0][0] < moment - window:
                kept.popleft()
            if moment >= due - 1e-9:
                yield self._live(kept)
                due = max(due + hop, moment)  # a source faster than its windows: what was due meanwhile is left out
        if kept and due == window:
            yield self._live(kept)

    def activations(self, clip: Any, label: str | None = None) -> dict[str, np.ndarray]:
        """Where each stream looks: maps `{stream: [T, h, w]}` float32 in 0..1 over the frames of `read(clip)`.

        Args:
          clip: see the class.
          label: the class that they speak for; the predicted one if not said. See `activation.class_activations`.

        Raises:
          DataError: if the clip cannot be read.
          UsageError: if there is no such class, or the weights are inside a program (StableHLO).
        """
        if not isinstance(self._logits, Bound):
            raise UsageError("class-activation maps need the weights; load a run or a safetensors export")
        frames = self.read(clip)
        if label is None:
            ((scores, _),) = self._answers([frames], 1)
            label = scores[FUSED].label
        if label not in self.classes:
            raise UsageError(f"there is no class {label!r}; known: {', '.join(self.classes)}")
        rgb = frames[None, ..., :3].astype(np.uint8)  # of a clip with depth too
        found = self._activations(self._logits.variables, rgb, np.array([self.classes.index(label)]))
        return {name: np.asarray(maps[0]) for name, maps in found.items()}

    @functools.cached_property
    def _activations(self) -> Callable[..., dict[str, jax.Array]]:
        return jax.jit(functools.partial(class_activations, self.system))

    def _open(self, clip: Any) -> Clip:
        return open_clip(clip)

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        return fit(frame, self.system.frame_size)

    def _live(self, kept: Iterable[tuple[float, np.ndarray]]) -> Moment:
        times, frames = zip(*kept, strict=True)
        chosen = np.stack([frames[i] for i in uniform_frames(len(frames), self.system.frames)])
        ((scores, depth),) = self._answers([chosen], 1)
        return Moment(times[0], times[-1], "s", scores, depth)

    def _read_windows(self, clip: Clip, wanted: list[np.ndarray]) -> Iterator[np.ndarray]:
        """The windows' frames from one pass over the clip, kept no longer than a window needs them."""
        numbers = np.unique(np.concatenate(wanted))
        frames = zip(numbers.tolist(), clip.frames(numbers), strict=True)
        kept: dict[int, np.ndarray] = {}
        for window in wanted:
            kept = {number: frame for number, frame in kept.items() if number >= window[0]}
            while window[-1] not in kept:
                number, frame = next(frames)
                kept[number] = self._fit(frame)
            yield np.stack([kept[number] for number in window.tolist()])

    def _answers(self, clips: list[np.ndarray], batch_size: int) -> Iterator[tuple[dict[str, Scores], Trust | None]]:
        """What is said of each clip; the batch is filled up with its first clip: one shape is compiled once."""
        logits = self._logits(filled(clips, batch_size))
        for scores in self._scores(logits, len(clips)):
            yield scores, None

    def _scores(self, logits: Logits, count: int) -> list[dict[str, Scores]]:
        """The first `count` clips' scores.

        Raises:
          CheckpointError: if there are more classes than names or fewer, or the logits are not finite.
        """
        names = sorted(logits, key=lambda name: name != FUSED)  # which comes first wherever scores are shown
        found = {name: np.asarray(logits[name], np.float32)[:count] for name in names}
        for name, values in found.items():
            if values.shape[1] != len(self.classes):
                raise CheckpointError(
                    f"{self.system.name}: {len(self.classes)} classes have names, {values.shape[1]} have scores; "
                    "the list of classes is not this model's"
                )
            if not np.isfinite(values).all():
                raise CheckpointError(f"{self.system.name}: the scores of {name} are not finite; its weights are bad")
        return [{name: Scores(self.classes, values[i]) for name, values in found.items()} for i in range(count)]


def load(path: str | os.PathLike, system: str | None = None) -> Predictor:
    """A predictor from a run or an export; of a run, only the networks that see RGB are read.

    Args:
      path: the workdir of `hallujax train`, the folder of `hallujax table` or `demo`, of whose seeds the best on
        validation clips is taken (of equals the first); both may be `gs://BUCKET/FOLDER`; or an export's folder.
      system: a row of the run's table. If not said: of the rows that need RGB alone, the one with the best accuracy on
        validation clips (of equals the first). An export holds one system.

    Raises:
      UsageError: if the folder is none of these, or there is no such system, or it needs more than RGB.
      CheckpointError: if the networks are damaged, or of another architecture than the run says.
    """
    path = paths.reach(paths.as_path(path))
    if (path / SUMS).exists():
        if paths.in_bucket(path):
            raise UsageError(f"{path} is an export, which is read from a disk: copy the folder to one")
        return Predictor(*read_export(path, system))
    from hallujax.deploy.run import read_run  # brings the training stack along, which an export does not need

    trained = read_run(path, system)
    return Predictor(trained.system, Bound(trained.system, trained.variables), origin=trained.origin)


def _windows(length: float, window: float, hop: float) -> list[tuple[float, float]]:
    """Spans of `window` every `hop`; the last ends with the clip, and one span is enough for a clip no longer."""
    if not (0 < window < math.inf and 0 < hop < math.inf):
        raise UsageError(f"window is {window} and hop {hop}; both must be positive")
    last = max(0.0, length - window)
    if last / hop > MOST_WINDOWS:
        raise DataError(f"a clip of {length:g} has more than {MOST_WINDOWS:,} windows, one every {hop:g}; hop further")
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


def filled(clips: list[np.ndarray], batch_size: int) -> np.ndarray:
    """A batch of them, filled up with the first."""
    return np.stack(clips + clips[:1] * (batch_size - len(clips)))
