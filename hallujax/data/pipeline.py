"""From a prepared dataset to batches: deterministic, positioned by one integer, a part of each for every process.

A batch is a dict of NumPy arrays as they lie on disk: `rgb` uint8 `[B, T, H, W, 3]`, `depth` uint16 millimetres
`[B, T, H, W]` (pictures of depth: uint8 `[B, T, H, W, 3]`), with `label` int32 `[B]`, `mask` float32 `[B]` and `sample`
uint32 `[B]`, the global sample number. Not as they lie there are `joints`, float32 `[B, T, bodies, J, 3]` as
`data.joints.normalize` gives them, and `flow`, float32 `[B, T, H, W, 2]`, which is derived from RGB.
Cropping, flipping and encoding happen on the device.
"""

import collections
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from hallujax.data.clips import Sampling, choose_frames
from hallujax.data.flow import FLOW, SOURCE, check_installed, optical_flow
from hallujax.data.joints import JOINTS, normalize, root_joint
from hallujax.data.poor_rgb import add_noise
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import MODALITIES
from hallujax.errors import DamagedRecordError, DataError, UsageError

NumpyBatch = dict[str, np.ndarray]


class ClipLoader:
    """Reads the samples of a batch: frame choice, the frames of each modality, labels.

    `labels`, one a clip of the index, are what it takes for the labels if they are not the dataset's own; see
    `data.labels`.

    With `bad_records="skip"` a clip with a damaged record among those to be read gets mask 0. In its place stands the
    next whole clip of the batch once more, frames and label, so that batch norm sees no made-up frames. What was wrong
    is appended to `noticed`, a line a record. A batch without a whole clip is an error all the same.

    `rgb_noise` makes RGB poorer; see `data.poor_rgb.add_noise`.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        modalities: Sequence[str],
        *,
        frames: int,
        sampling: Sampling,
        seed: int,
        labels: np.ndarray | None = None,
        bad_records: str = "stop",
        rgb_noise: float = 0.0,
    ):
        if bad_records not in ("stop", "skip"):
            raise UsageError(f"data.bad_records is {bad_records!r}; known: stop, skip")
        if unseen := set(modalities) - set(MODALITIES):
            raise UsageError(f"no stream sees {', '.join(sorted(unseen))} yet; it can be {' or '.join(MODALITIES)}")
        if unknown := {SOURCE.get(modality, modality) for modality in modalities} - set(dataset.modalities):
            raise UsageError(
                f"{dataset.name} has no modality {', '.join(sorted(unknown))}; it has {', '.join(dataset.modalities)}"
            )
        if rgb_noise < 0 or (rgb_noise and FLOW in modalities):
            raise UsageError(f"data.rgb_noise is {rgb_noise}; it must not be negative, and is not for {FLOW}")
        self._rgb_noise = rgb_noise
        self._dataset, self._modalities = dataset, tuple(modalities)
        self._frames, self._sampling, self._seed = frames, sampling, seed
        self._labels = dataset.index["label"] if labels is None else labels
        self._skip_bad = bad_records == "skip"
        self.noticed: collections.deque[str] = collections.deque()
        self._said: set[str] = set()
        self._root = root_joint(dataset.name, dataset.info["joint_names"]) if JOINTS in modalities else 0
        if FLOW in modalities:
            check_installed()
        # Frames are paired by index, so a clip is as long as the shortest of its modalities.
        self._lengths = np.min([dataset.length(SOURCE.get(m, m)) for m in self._modalities], axis=0)

    def __call__(self, samples: np.ndarray, rows: np.ndarray) -> NumpyBatch:
        frames = np.array(
            [
                choose_frames(int(self._lengths[row]), self._frames, self._sampling, (self._seed, int(sample)))
                for sample, row in zip(samples, rows, strict=True)
            ]
        )
        mask = np.ones(len(rows), np.float32)
        try:
            batch = self._read_all(rows, frames)
        except DamagedRecordError:
            if not self._skip_bad:
                raise
            mask[:] = [self._is_whole(rows[i : i + 1], frames[i : i + 1]) for i in range(len(rows))]
            whole = np.flatnonzero(mask)
            if not len(whole):
                raise
            stand_in = whole[np.searchsorted(whole, np.arange(len(rows))) % len(whole)]
            rows, frames = rows[stand_in], frames[stand_in]
            batch = self._read_all(rows, frames)
        batch["label"] = self._labels[rows].astype(np.int32)
        batch["mask"] = mask
        batch["sample"] = samples.astype(np.uint32)
        return batch

    def _read_all(self, rows: np.ndarray, frames: np.ndarray) -> NumpyBatch:
        return {modality: self._read(modality, rows, frames) for modality in self._modalities}

    def _is_whole(self, rows: np.ndarray, frames: np.ndarray) -> bool:
        try:
            self._read_all(rows, frames)
        except DamagedRecordError as error:
            if str(error) not in self._said:  # not once an epoch
                self._said.add(str(error))
                self.noticed.append(f"skipped: {error}")
            return False
        return True

    def _read(self, modality: str, rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
        if modality == FLOW:
            # To the frame that follows in the clip, not in the sample; the last frame has the flow of the one before.
            last = self._dataset.length(SOURCE[FLOW])[rows][:, None] - 1
            first = np.maximum(np.minimum(frames, last - 1), 0)
            return optical_flow(*(self._dataset.read(SOURCE[FLOW], rows, np.minimum(first + i, last)) for i in (0, 1)))
        records = self._dataset.read(modality, rows, frames)
        if modality == "rgb" and self._rgb_noise:
            return add_noise(records, self._dataset.index["clip"][rows], frames, self._rgb_noise)
        return normalize(records, self._root) if modality == JOINTS else records


def check_clips(dataset: PreparedDataset, rows: np.ndarray, modalities: Sequence[str], frames: int, short: str) -> int:
    """Counts the clips shorter than the frames asked for.

    Args:
      short: `repeat` frames of such clips, or `refuse` them.

    Raises:
      DataError: for a clip that lacks one of the modalities, or is short when these are refused; both are named.
      UsageError: for another `short`.
    """
    if short not in ("repeat", "refuse"):
        raise UsageError(f"data.short_clips is {short!r}; known: repeat, refuse")
    if len(rows) == 0:
        raise DataError(f"{dataset.name}: the split holds no clips")
    lengths = np.stack([dataset.length(SOURCE.get(m, m))[rows] for m in modalities])
    for modality, counts in zip(modalities, lengths, strict=True):
        if (counts == 0).any():
            clip = dataset.index["clip"][rows[np.argmax(counts == 0)]].decode()
            raise DataError(f"{dataset.name}: clip {clip} has no {modality}; leave it out of the index")
    too_short = lengths.min(0) < frames
    if too_short.any() and short == "refuse":
        first = rows[np.argmax(too_short)]
        raise DataError(
            f"{dataset.name}: {too_short.sum()} clips have fewer than {frames} frames, "
            f"{dataset.index['clip'][first].decode()} first; set data.short_clips=repeat to repeat their frames"
        )
    return int(too_short.sum())


def training_batches(
    loader: ClipLoader,
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    position: int = 0,
    part: np.ndarray | None = None,
    threads: int = 1,
) -> Iterator[NumpyBatch]:
    """Endless shuffled batches, or this process's part of each, every epoch in a new order.

    Args:
      loader: reads the samples.
      rows: the split's rows of the clip index.
      batch_size: global.
      seed: of the order.
      position: global samples consumed so far, a multiple of `batch_size`: the whole state of the pipeline.
      part: places in every global batch that this process reads (`training.sharding.own_part`); all if not said.
      threads: that read ahead, two batches at most.

    Raises:
      UsageError: if the batch is larger than the split.
    """
    if batch_size > len(rows):
        raise UsageError(f"batch_size {batch_size} is larger than the {len(rows)} training clips")
    if position % batch_size:
        raise UsageError(f"position {position} lies within a batch of {batch_size}")
    samples = _samples(rows, seed)
    batches = (
        samples.batch(batch_size)  # numbers alone: what others read is cut off before anything is read
        .map(lambda pair: loader(*(pair if part is None else (each[part] for each in pair))))
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    )
    iterator = iter(batches)
    if position:
        iterator.set_state({"next_index": position // batch_size})
    return iterator


def rows_of_batch(rows: np.ndarray, *, batch_size: int, seed: int, number: int) -> np.ndarray:
    """The rows of the clip index in global batch `number`, from 0, of `training_batches`, `[batch_size]`."""
    samples = _samples(rows, seed)
    return np.array([samples[number * batch_size + i][1] for i in range(batch_size)])


def _samples(rows: np.ndarray, seed: int) -> grain.MapDataset:
    """(global sample number, row of the clip index), without end."""
    return (
        grain.MapDataset.source(rows)
        .seed(seed)
        .shuffle()
        .repeat()
        .map_with_index(lambda sample, row: (np.int64(sample), np.int64(row)))
    )


def evaluation_batches(
    loader: ClipLoader, rows: np.ndarray, *, batch_size: int, part: np.ndarray | None = None
) -> Iterator[NumpyBatch]:
    """The split once, in order; the last batch is filled up with its first clip under a zero mask.

    `part` as in `training_batches`.
    """
    part = np.arange(batch_size) if part is None else part
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        missing = batch_size - len(chosen)
        padded = np.concatenate([chosen, np.repeat(chosen[:1], missing)])
        batch = loader(start + part, padded[part])
        batch["mask"][part >= len(chosen)] = 0.0
        yield batch
