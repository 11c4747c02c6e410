"""What a stage trains on: its clips, in the order it sees them."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hallujax.data.joints import JOINTS, mirrored_joints
from hallujax.data.labels import UNLABELLED, training_labels
from hallujax.data.pipeline import ClipLoader, NumpyBatch, check_clips, rows_of_batch, training_batches
from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError
from hallujax.experiment import Experiment, Stage
from hallujax.methods import Method

Splits = Mapping[str, np.ndarray]  # {"train", "validation", "test"}: rows of the clip index; test may be left out


class TrainingInput:
    """The training clips of one stage.

    Attributes:
      steps: updates in the whole stage.
      mirror: see `data.joints.mirrored_joints`; empty for a method that sees none.
      noticed: lines about records that were skipped, of the batches read so far.

    Raises:
      UsageError, DataError: as `ClipLoader`, and if there are fewer clips than a batch has.
    """

    def __init__(self, experiment: Experiment, stage: Stage, method: Method, dataset: PreparedDataset, splits: Splits):
        self._dataset, self._stage, self._first = dataset, stage, splits["train"][: stage.batch_size]
        self._seed, self._threads = experiment.stage_seed(stage.name), experiment.data.threads
        self._rows = training_rows(experiment, stage, dataset, splits)
        if stage.batch_size > len(self._rows):
            raise UsageError(
                f"stages.{stage.name}.batch_size is {stage.batch_size}, more than its {len(self._rows)} training clips"
            )
        modalities = modalities_of_training(method)
        self._loader = ClipLoader(
            dataset,
            modalities,
            frames=experiment.data.frames,
            sampling=experiment.data.sampling,
            seed=self._seed,
            labels=labels_of_training(experiment, dataset, splits),
            bad_records=experiment.data.bad_records,
            rgb_noise=experiment.data.rgb_noise,
        )
        self.steps = stage.steps(len(self._rows))
        self.mirror: Sequence[int] = (
            mirrored_joints(dataset.name, dataset.info["joint_names"]) if JOINTS in modalities else ()
        )
        self.noticed = self._loader.noticed

    def example(self) -> NumpyBatch:
        """A batch of one clip, for its shapes."""
        # More than one is read: with `bad_records="skip"` it may be the first that is damaged.
        batch = self._loader(np.arange(len(self._first)), self._first)
        return {name: value[:1] for name, value in batch.items()}

    def batches(self, position: int, part: np.ndarray) -> Iterator[NumpyBatch]:
        """See `data.pipeline.training_batches`."""
        return training_batches(
            self._loader,
            self._rows,
            batch_size=self._stage.batch_size,
            seed=self._seed,
            position=position,
            part=part,
            threads=self._threads,
        )

    def clips_of(self, step: int) -> list[str]:
        """The ids of the clips of a step's global batch, by the step's number from 1."""
        rows = rows_of_batch(self._rows, batch_size=self._stage.batch_size, seed=self._seed, number=step - 1)
        return [self._dataset.clip_id(row) for row in rows]


def modalities_of_training(method: Method) -> list[str]:
    """What is read of a training clip, each modality once."""
    return sorted(set(method.modalities.values()))


def labels_of_training(experiment: Experiment, dataset: PreparedDataset, splits: Splits) -> np.ndarray:
    """The labels that training sees, one for every clip of the dataset; see `data.labels.training_labels`."""
    return training_labels(
        dataset.index["clip"],
        dataset.index["label"],
        splits["train"],
        classes=len(dataset.classes),
        labelled=experiment.data.labelled,
        noise=experiment.data.label_noise,
    )


def training_rows(experiment: Experiment, stage: Stage, dataset: PreparedDataset, splits: Splits) -> np.ndarray:
    """The rows of the clip index that a stage trains on: those with a label, or all."""
    rows = splits["train"]
    return rows if stage.unlabelled else rows[labels_of_training(experiment, dataset, splits)[rows] != UNLABELLED]


def check_splits(experiment: Experiment, method: Method, dataset: PreparedDataset, splits: Splits) -> list[str]:
    """Looks for absent and short clips before anything is trained; a line for each split that has short ones.

    Raises:
      DataError, UsageError: as `data.pipeline.check_clips`.
    """
    said = []
    for name, rows in splits.items():
        modalities = modalities_of_training(method) if name == "train" else method.test_modalities
        short = check_clips(dataset, rows, modalities, experiment.data.frames, experiment.data.short_clips)
        if short:
            said.append(f"{short} {name} clips have fewer than {experiment.data.frames} frames: frames repeated")
    return said
