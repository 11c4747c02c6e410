"""Augmentation and encodings on the device, against NumPy."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from hallujax.data.encodings import grey, jet, metres
from hallujax.data.transforms import TransformOptions, augment, encode
from hallujax.errors import UsageError

RNG = np.random.default_rng(0)


def options(**changes):
    plain = {"flip": 0.5, "shift": 0, "downsample": 1, "rgb_normalization": "imagenet", "depth_encoding": "grey"}
    return TransformOptions(**plain | {"depth_near": 500.0, "depth_far": 8000.0} | changes)


def batch(clips=6):
    return {
        "rgb": RNG.integers(0, 256, (clips, 2, 8, 10, 3), dtype=np.uint8),
        "depth": RNG.integers(0, 6000, (clips, 2, 8, 10), dtype=np.uint16),
        "label": np.arange(clips, dtype=np.int32),
        "sample": np.arange(100, 100 + clips, dtype=np.uint32),
    }


def test_modalities_and_frames_of_a_clip_move_together():
    """Depth made from RGB's red channel stays that after augmentation: same flip, same shift, every frame."""
    clips = batch()
    clips["depth"] = clips["rgb"][..., 0].astype(np.uint16)
    moved = jax.jit(lambda b: augment(b, jax.random.key(0), options(shift=2)))(clips)
    np.testing.assert_array_equal(moved["depth"], moved["rgb"][..., 0])
    assert not np.array_equal(moved["rgb"], clips["rgb"])


def test_a_flip_alone_is_a_flip_or_nothing():
    clips = batch(40)
    moved = augment(clips, jax.random.key(0), options(flip=0.5))["rgb"]
    flipped = [np.array_equal(a, b[:, :, ::-1]) for a, b in zip(moved, clips["rgb"], strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(moved, clips["rgb"], strict=True)]
    assert all(f or k for f, k in zip(flipped, kept, strict=True))
    assert 8 < sum(flipped) < 32
    never = augment(clips, jax.random.key(0), options(flip=0.0))["rgb"]
    np.testing.assert_array_equal(never, clips["rgb"])


def test_a_shift_is_a_crop_of_the_padded_frame():
    clips = batch(20)
    moved = np.asarray(augment(clips, jax.random.key(0), options(flip=0.0, shift=2))["depth"])
    for before, after in zip(clips["depth"], moved, strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)), mode="edge")
        crops = [padded[:, y : y + 8, x : x + 10] for y in range(5) for x in range(5)]
        assert any(np.array_equal(after, crop) for crop in crops)


def test_augmentation_follows_the_sample_number_not_the_place_in_the_batch():
    """So neither the number of hosts nor of devices changes what a sample looks like."""
    clips, shifted = batch(), options(shift=2)
    whole = augment(clips, jax.random.key(5), shifted)
    order = np.array([4, 1, 5])
    part = augment({name: value[order] for name, value in clips.items()}, jax.random.key(5), shifted)
    np.testing.assert_array_equal(part["rgb"], whole["rgb"][order])


def test_rgb_normalizations():
    pixel = np.array([[[[[255, 0, 51]]]]], np.uint8)
    imagenet = encode({"rgb": pixel}, options())["rgb"].ravel()
    np.testing.assert_allclose(imagenet, [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225], rtol=1e-5)
    vgg = encode({"rgb": pixel}, options(rgb_normalization="vgg"))["rgb"].ravel()
    np.testing.assert_allclose(vgg, [255 - 123.68, -116.779, 51 - 103.939], rtol=1e-5)


def test_depth_encodings():
    depth = np.array([0, 1000, 2000, 3000, 5000], np.uint16)
    np.testing.assert_allclose(grey(depth, near=1000, far=3000)[:, 0], [0, 1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(metres(depth, near=0, far=1)[:, 2], [0, 1, 2, 3, 5], atol=1e-6)
    colours = jet(depth, near=1000, far=3000)
    # Matplotlib's jet interpolates the same ramps with slightly other end points.
    expected = matplotlib.colormaps["jet"](np.array([0.0, 0.5, 1.0]))[:, :3]
    np.testing.assert_allclose(colours[1:4], expected, atol=0.13)
    np.testing.assert_array_equal(colours[0], 0)
    assert grey(jnp.asarray(depth), near=1000, far=3000).dtype == jnp.float32


def test_downsampled_frames_are_means_over_squares():
    clips = batch()
    whole, half = encode(clips, options()), encode(clips, options(downsample=2))
    for modality in ("rgb", "depth"):
        assert half[modality].shape == (6, 2, 4, 5, 3)
        corners = [whole[modality][:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)]
        np.testing.assert_allclose(half[modality], sum(corners) / 4, atol=1e-6)
    np.testing.assert_array_equal(half["label"], clips["label"])
    with pytest.raises(UsageError, match="downsample is 4; frames of 8x10 pixels do not divide"):
        encode(clips, options(downsample=4))
    with pytest.raises(UsageError, match="downsample is 0"):
        options(downsample=0)


def test_unknown_choices_are_named():
    with pytest.raises(UsageError, match="known: grey, jet, metres, nearness, raw, picture, normals, hha"):
        options(depth_encoding="velvet")
    with pytest.raises(UsageError, match="known: imagenet, vgg, none"):
        options(rgb_normalization="caffe")
