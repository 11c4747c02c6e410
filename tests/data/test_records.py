"""The reader against TFDS's own, and against every kind of damage."""

import concurrent.futures
import io
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep import writer
from hallujax import sealed
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "mocap_rgbd")


def _shard(directory, modality, number=0):
    return sorted((directory / modality / "1.0.0").glob("*array_record*"))[number]


def _edit_index(directory, row, **values):
    index = np.load(directory / "clips.npy")
    for key, value in values.items():
        index[key][row] = value
    writer.describe(directory, sealed.read(directory / "dataset.json", ""), index)


def test_shapes_and_types(tiny):
    dataset = PreparedDataset.open(tiny)
    rows, frames = [3, 40, 0], [[0, 4], [2, 2], [4, 1]]
    assert (dataset.name, dataset.frame_size, len(dataset)) == ("mocap_rgbd", (32, 32), 48)
    assert dataset.modalities == ("rgb", "depth", "joints")
    assert dataset.classes == ["jump", "kick", "punch", "walk"]
    for modality, shape, dtype in (
        ("rgb", (32, 32, 3), np.uint8),
        ("depth", (32, 32), np.uint16),
        ("joints", (15, 5), np.float32),
    ):
        values = dataset.read(modality, rows, frames)
        assert values.shape == (3, 2, *shape)
        assert values.dtype == dtype
        assert np.array_equal(dataset.length(modality), np.full(48, 5))
    assert dataset.verify() == []


def test_kept_frames_are_decoded_once_and_equal(tiny, monkeypatch):
    dataset, kept = PreparedDataset.open(tiny), PreparedDataset.open(tiny)
    kept.keep_decoded()
    decoded = []
    decode = kept._decode
    monkeypatch.setattr(kept, "_decode", lambda *a: (decoded.append((a[0], a[3], a[4])), decode(*a)))
    for rows, frames in (([3, 40], [[0, 4], [2, 2]]), ([40, 3], [[1, 2], [4, 3]])):
        for modality in dataset.modalities:
            np.testing.assert_array_equal(kept.read(modality, rows, frames), dataset.read(modality, rows, frames))
    again = {("rgb", 3, 0), ("rgb", 3, 4), ("rgb", 40, 2), ("rgb", 40, 1), ("rgb", 3, 3)}
    assert {entry for entry in decoded if entry[0] == "rgb"} == again
    assert len(decoded) == 3 * (4 + 2)  # a frame asked for twice in one read is decoded twice, no more
    kept.read("rgb", [3], [[0, 4]])
    assert len(decoded) == 3 * (4 + 2)
    kept.read("rgb", [3], [[0, 4]])[...] = 0  # the caller's copy, not what is kept
    np.testing.assert_array_equal(kept.read("rgb", [3], [[0, 4]]), dataset.read("rgb", [3], [[0, 4]]))


def test_agrees_with_tfds(tiny):
    """Any TFDS user opens the directories, and finds what `read` returns."""
    import tensorflow_datasets as tfds

    dataset = PreparedDataset.open(tiny)
    record = {}
    for modality in dataset.modalities:
        decoders = {} if modality == "joints" else {modality: tfds.decode.SkipDecoding()}
        builder = tfds.builder_from_directory(tiny / modality / "1.0.0")
        assert builder.info.splits["frames"].num_examples == 48 * 5
        record[modality] = builder.as_data_source(split="frames", decoders=decoders)
    for row, frame in ((0, 0), (17, 3), (47, 4)):
        for modality, source in record.items():
            theirs = source[int(dataset.index[f"{modality}_first"][row]) + frame]
            assert theirs["clip"].decode() == dataset.clip_id(row)
            assert theirs["frame"] == frame
            value = theirs[modality]
            if modality != "joints":
                value = np.asarray(Image.open(io.BytesIO(value)))
            assert np.array_equal(dataset.read(modality, [row], [[frame]])[0, 0], value)
    assert "tensorflow" not in sys.modules


def test_threads_read_the_same(tiny):
    dataset = PreparedDataset.open(tiny)
    rng = np.random.default_rng(0)
    batches = [(rng.integers(48, size=6), rng.integers(5, size=(6, 3))) for _ in range(24)]
    alone = [dataset.read("depth", *batch) for batch in batches]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: dataset.read("depth", *batch), batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_missing_dataset(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*hallujax prepare"):
        PreparedDataset.open(tmp_path / "nowhere")


def test_missing_shard(copy):
    shard = _shard(copy, "depth", 1)
    shard.unlink()
    with pytest.raises(DataError, match=f"{shard.name} is missing"):
        PreparedDataset.open(copy)


def test_truncated_shard(copy):
    """array_record itself opens such a file and reports no records."""
    shard = _shard(copy, "rgb")
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(DataError, match=f"{shard.name} is truncated"):
        PreparedDataset.open(copy)


def test_shard_of_another_length(copy):
    description = sealed.read(copy / "dataset.json", "")
    description["modalities"]["joints"]["records"] += 1
    sealed.write(copy / "dataset.json", description)
    with pytest.raises(DataError, match=r"joints: 240 records, dataset\.json says 241"):
        PreparedDataset.open(copy)


def test_flipped_byte_names_clip_and_frame(copy):
    """A flipped byte in a record is an error when it is read, and `verify` finds it before."""
    dataset = PreparedDataset.open(copy)
    row, frame = 5, 2
    jpeg = dataset._sources["rgb"][int(dataset.index["rgb_first"][row]) + frame]
    shard = _shard(copy, "rgb")
    data = bytearray(shard.read_bytes())
    data[data.index(jpeg) + len(jpeg) // 2] ^= 0xFF
    shard.write_bytes(data)
    damaged = PreparedDataset.open(copy)
    with pytest.raises(DataError, match=f"rgb of clip {dataset.clip_id(row)}, frame {frame}"):
        damaged.read("rgb", [4, row], [[0, 1], [1, frame]])
    assert np.array_equal(damaged.read("rgb", [4], [[0, 1]]), dataset.read("rgb", [4], [[0, 1]]))
    (finding,) = damaged.verify()
    assert shard.name in finding


@pytest.mark.parametrize("label", [-1, 4])
def test_label_out_of_range(copy, label):
    _edit_index(copy, 7, label=label)
    clip = np.load(copy / "clips.npy")["clip"][7].decode()
    with pytest.raises(DataError, match=f"clip {clip} has label {label}, there are 4 classes"):
        PreparedDataset.open(copy)


def test_index_beyond_the_records(copy):
    _edit_index(copy, 47, depth_length=6)
    with pytest.raises(DataError, match="depth records 235 to 240, there are 240"):
        PreparedDataset.open(copy)


def test_index_pointing_at_another_clip(copy):
    _edit_index(copy, 3, rgb_first=0)
    with pytest.raises(DataError, match="belongs to clip"):
        PreparedDataset.open(copy).read("rgb", [3], [[0]])


def test_damaged_index(copy):
    (copy / "clips.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"clips\.npy"):
        PreparedDataset.open(copy)


@pytest.mark.parametrize("frame", [-1, 5])
def test_frame_the_clip_lacks(tiny, frame):
    dataset = PreparedDataset.open(tiny)
    with pytest.raises(DataError, match=f"{dataset.clip_id(9)} has 5 frames of depth, frame {frame}"):
        dataset.read("depth", [8, 9], [[0], [frame]])


def test_absent_modality(copy, tiny):
    """A clip may lack a modality: its length is 0 and reading it is an error."""
    _edit_index(copy, 2, depth_length=0)
    dataset = PreparedDataset.open(copy)
    assert dataset.length("depth")[2] == 0
    with pytest.raises(DataError, match="has 0 frames of depth"):
        dataset.read("depth", [2], [[0]])
    with pytest.raises(DataError, match="no modality 'infrared'"):
        dataset.read("infrared", [2], [[0]])
