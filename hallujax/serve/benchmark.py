"""Test clips of the dataset that a run was trained on, with all they hold."""

import dataclasses
import pathlib

import numpy as np

from hallujax.data.clips import uniform_frames
from hallujax.data.encodings import ENCODINGS, LARGEST
from hallujax.data.pipeline import ClipLoader, NumpyBatch, check_clips
from hallujax.data.protocols import split
from hallujax.data.transforms import TransformOptions
from hallujax.errors import DataError
from hallujax.evaluation import finished


@dataclasses.dataclass(frozen=True)
class Clip:
    """A test clip: its name, its class, and its place among the test clips, which seeds its noise."""

    name: str
    label: str
    place: int


class Benchmark:
    """The test clips of a run's protocol.

    Attributes:
      experiment: what the run was trained from.
      dataset: what it was trained on.
      rows: of the dataset's index, by split.
      loader: reads RGB and depth as evaluation does.
      clips: `{name: clip}`.
    """

    def __init__(self, run: pathlib.Path, data: pathlib.Path, fingerprint: str):
        """Opens the dataset of the workdir `run` in the folder `data`; `fingerprint` is of what it was trained on.

        Raises:
          UsageError: if `run` is no workdir, or the protocol is none of the dataset's.
          DataError: if the dataset cannot be read, is another one than the run's, or a clip lacks RGB or depth.
        """
        self.experiment = finished.read_experiment(run)
        options = self.experiment.data
        self.dataset = finished.open_dataset(self.experiment, data)
        if fingerprint != self.dataset.fingerprint:
            raise DataError(
                f"{run} was trained on another {self.dataset.name} ({fingerprint[:12]}) than the one in {data} "
                f"({self.dataset.fingerprint[:12]})"
            )
        self.rows = split(self.dataset, options.protocol)
        for part in ("validation", "test"):
            check_clips(self.dataset, self.rows[part], ("rgb", "depth"), options.frames, options.short_clips)
        self.loader = ClipLoader(self.dataset, ("rgb", "depth"), frames=options.frames, sampling="uniform", seed=0)
        classes, labels = self.dataset.classes, self.dataset.index["label"]
        names = [(self.dataset.clip_id(row), classes[labels[row]]) for row in self.rows["test"]]
        self.clips = {name: Clip(name, label, place) for place, (name, label) in enumerate(names)}

    def batch(self, clip: Clip) -> NumpyBatch:
        """A clip's T frames as a batch of one: `rgb` uint8 `[1, T, H, W, 3]`, `depth` uint16 `[1, T, H, W]`, and more.

        Raises DataError if its records are damaged.
        """
        return self.loader(np.array([clip.place]), self.rows["test"][clip.place : clip.place + 1])

    def length(self, clip: Clip) -> int:
        """How many frames it has, of the shorter of RGB and depth: they are paired by number."""
        row = self.rows["test"][clip.place]
        return int(min(self.dataset.length(modality)[row] for modality in ("rgb", "depth")))

    def sampled(self, clip: Clip) -> list[float]:
        """The numbers of the T frames that are seen."""
        return uniform_frames(self.length(clip), self.experiment.data.frames).tolist()

    def clean_depth(self, depth: np.ndarray) -> np.ndarray:
        """Millimetres `[...]` encoded for the depth network, and as `shown_depth` shows that."""
        transforms = self.experiment.transforms
        encoded = ENCODINGS[transforms.depth_encoding](depth, near=transforms.depth_near, far=transforms.depth_far)
        return shown_depth(np.asarray(encoded), transforms)


def shown_depth(encoded: np.ndarray, transforms: TransformOptions) -> np.ndarray:
    """Encoded depth `[..., 3]` as uint8, white at the encoding's largest value (metres: at `depth_far`)."""
    metres = transforms.depth_encoding == "metres"
    largest = transforms.depth_far / 1000 if metres else LARGEST[transforms.depth_encoding]
    return np.round(np.clip(encoded / largest, 0, 1) * 255).astype(np.uint8)
