"""The pipeline on the rendered dataset: deterministic, positioned by one integer, the same whatever the processes."""

import itertools

import numpy as np
import pytest

from hallujax.data.pipeline import ClipLoader, check_clips, evaluation_batches, training_batches
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError


@pytest.fixture(scope="module")
def dataset(tiny):
    return PreparedDataset.open(tiny)


@pytest.fixture(scope="module")
def rows(dataset):
    return split(dataset, "cross_subject")["train"]


def loader(dataset, modalities=("rgb", "depth"), sampling="mixed"):
    return ClipLoader(dataset, modalities, frames=3, sampling=sampling, seed=7)


class Rows:
    """A loader that shows which rows it is asked for."""

    def __call__(self, samples, rows):
        return {"sample": samples.astype(np.uint32), "row": rows.astype(np.int32), "mask": np.ones(len(rows))}


def take(count, iterator):
    return list(itertools.islice(iterator, count))


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_an_epoch_sees_every_clip_once_and_the_next_in_another_order(dataset, rows):
    batch_size = len(rows) // 3
    assert len(rows) % 3 == 0
    batches = take(6, training_batches(Rows(), rows, batch_size=batch_size, seed=1))
    epochs = [np.concatenate([b["row"] for b in batches[i : i + 3]]) for i in (0, 3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(rows)
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(
        np.concatenate([b["sample"] for b in batches]), np.arange(2 * len(rows), dtype=np.uint32)
    )


def test_the_position_is_the_whole_state(dataset, rows):
    straight = take(5, training_batches(loader(dataset), rows, batch_size=4, seed=1))
    resumed = take(2, training_batches(loader(dataset), rows, batch_size=4, seed=1, position=12, threads=2))
    for a, b in zip(straight[3:], resumed, strict=True):
        same(a, b)


def test_any_number_of_processes_sees_the_same_global_batches(dataset, rows):
    whole = take(3, training_batches(loader(dataset), rows, batch_size=4, seed=1))
    for places in ([0, 1], [2, 3]), ([0, 3], [1, 2]), ([0], [1], [2], [3]):
        parts = [
            take(3, training_batches(loader(dataset), rows, batch_size=4, seed=1, part=np.array(part)))
            for part in places
        ]
        for step, expected in enumerate(whole):
            joined = {k: np.concatenate([part[step][k] for part in parts]) for k in expected}
            same(joined, {k: v[np.concatenate(places)] for k, v in expected.items()})


def test_frames_and_labels_are_the_datasets_own(dataset, rows):
    batch = next(training_batches(loader(dataset, sampling="uniform"), rows, batch_size=4, seed=0))
    chosen = next(training_batches(Rows(), rows, batch_size=4, seed=0))["row"]
    frames = np.array([[0, 2, 4]] * 4)
    np.testing.assert_array_equal(batch["rgb"], dataset.read("rgb", chosen, frames))
    np.testing.assert_array_equal(batch["depth"], dataset.read("depth", chosen, frames))
    np.testing.assert_array_equal(batch["label"], dataset.index["label"][chosen])


def test_evaluation_sees_each_clip_once_and_masks_the_filling(dataset):
    rows = split(dataset, "cross_subject")["test"][:10]
    batches = list(evaluation_batches(Rows(), rows, batch_size=4))
    kept = np.concatenate([b["row"][b["mask"] > 0] for b in batches])
    np.testing.assert_array_equal(kept, rows)
    assert [len(b["row"]) for b in batches] == [4, 4, 4]
    parts = [list(evaluation_batches(Rows(), rows, batch_size=4, part=np.array(p))) for p in ([0, 2], [1, 3])]
    for whole, even, odd in zip(batches, *parts, strict=True):
        for name, value in whole.items():
            np.testing.assert_array_equal(value[::2], even[name])
            np.testing.assert_array_equal(value[1::2], odd[name])


def test_short_and_absent_clips(dataset, rows):
    assert check_clips(dataset, rows, ("rgb",), 5, "refuse") == 0
    assert check_clips(dataset, rows, ("rgb",), 6, "repeat") == len(rows)
    with pytest.raises(DataError, match=rf"fewer than 6 frames, {dataset.clip_id(rows[0])} first"):
        check_clips(dataset, rows, ("rgb",), 6, "refuse")
    with pytest.raises(UsageError, match="known: repeat, refuse"):
        check_clips(dataset, rows, ("rgb",), 6, "drop")
    with pytest.raises(DataError, match="no clips"):
        check_clips(dataset, rows[:0], ("rgb",), 5, "repeat")


def test_refusals(dataset, rows):
    with pytest.raises(UsageError, match="larger than"):
        training_batches(loader(dataset), rows, batch_size=len(rows) + 1, seed=0)
    with pytest.raises(UsageError, match="within a batch"):
        training_batches(loader(dataset), rows, batch_size=4, seed=0, position=6)
    with pytest.raises(UsageError, match="no stream sees infrared"):
        loader(dataset, ("infrared",))
