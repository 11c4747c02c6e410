"""Depth that datasets hold as 8-bit pictures (HHA, grey): encoded by nothing, and never taken for millimetres."""

import jax
import numpy as np
import pytest
from test_transforms import batch, options

from data_prep import writer
from hallujax.data.noise import NOISES, encode_noisy
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import augment, encode
from hallujax.errors import UsageError


def pictures():
    clips = batch()
    return clips | {"depth": np.random.default_rng(1).integers(0, 256, clips["rgb"].shape, dtype=np.uint8)}


def test_a_picture_is_what_the_network_sees():
    clips, chosen = pictures(), options(depth_encoding="picture", downsample=2)
    encoded = jax.jit(lambda b: encode(b, chosen))(clips)["depth"]
    expected = clips["depth"].reshape(6, 2, 4, 2, 5, 2, 3).mean(axis=(3, 5)) / 255
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)


def test_it_moves_with_its_rgb():
    clips = pictures()
    clips["depth"] = clips["rgb"].copy()
    moved = augment(clips, jax.random.key(0), options(shift=2))
    np.testing.assert_array_equal(moved["depth"], moved["rgb"])


@pytest.mark.parametrize(("stored", "encoding"), [("pictures", "grey"), ("pictures", "metres"), ("maps", "picture")])
def test_neither_is_taken_for_the_other(stored, encoding):
    clips = pictures() if stored == "pictures" else batch()
    with pytest.raises(UsageError, match="depth_encoding"):
        encode(clips, options(depth_encoding=encoding))


def test_noise():
    """What multiplies the network's input does so here; what needs millimetres says so."""
    clips, chosen = pictures(), options(depth_encoding="picture")
    noisy = encode_noisy(clips, jax.random.key(0), np.float32(0.0), noise=NOISES["multiplicative"], options=chosen)
    np.testing.assert_allclose(noisy["depth"], clips["depth"] / 255, rtol=1e-6)
    with pytest.raises(UsageError, match="needs millimetres"):
        encode_noisy(clips, jax.random.key(0), np.float32(0.1), noise=NOISES["dropout"], options=chosen)


def test_stored_without_loss_and_read_by_tfds(tmp_path):
    """Eight bits and three channels, value for value, by the library and by TFDS."""
    import tensorflow_datasets as tfds

    frames = pictures()["depth"][:2]
    modalities = {"depth": writer.Modality("png", (8, 10, 3))}
    clips = [(f"c{i}", {"depth": frames[i]}) for i in range(2)]
    writer.write_shard(tmp_path / "x", "toy", modalities, 0, 1, clips)
    index = writer.clip_index(modalities, 2)
    index["clip"], index["depth_length"], index["depth_first"] = [b"c0", b"c1"], 2, [0, 2]
    info = {"classes": ["a"], "frame_size": [8, 10]}
    writer.finish(tmp_path / "x", tmp_path / "toy", "toy", modalities, 1, index, info, "")
    dataset = PreparedDataset.open(tmp_path / "toy")
    assert np.array_equal(dataset.read("depth", [0, 1], [[0, 1], [0, 1]]), frames)
    source = tfds.builder_from_directory(tmp_path / "toy/depth/1.0.0").as_data_source(split="frames")
    assert np.array_equal(source[3]["depth"], frames[1, 1])
