"""Depth corruptions against closed forms and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.data.encodings import ALL, ENCODINGS, LARGEST
from hallujax.data.noise import NOISES, blur, drop_out, encode_noisy, lose_frames, multiply
from hallujax.data.transforms import TransformOptions, encode

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
DEPTH = RNG.integers(1000, 6000, (5, 28, 36), dtype=np.uint16)


def options(**changes):
    plain = {"flip": 0.0, "shift": 0, "downsample": 1, "rgb_normalization": "imagenet", "depth_encoding": "grey"}
    return TransformOptions(**plain | {"depth_near": 500.0, "depth_far": 8000.0} | changes)


def batch(clips=6):
    depth = RNG.integers(1000, 6000, (clips, 5, 28, 36), dtype=np.uint16)
    return {"depth": depth, "sample": np.arange(100, 100 + clips, dtype=np.uint32)}


@pytest.mark.parametrize("name", NOISES)
def test_level_zero_is_the_identity(name):
    noise = NOISES[name]
    frames = jnp.asarray(ENCODINGS["grey"](DEPTH, near=500, far=8000) if noise.encoded else DEPTH)
    same = jax.jit(noise.corrupt)(KEY, frames, 0.0)
    assert same.dtype == frames.dtype
    np.testing.assert_array_equal(same, frames)


@pytest.mark.parametrize("name", NOISES)
def test_a_draw_follows_the_sample_number_not_the_place_in_the_batch(name):
    clips, level = batch(), NOISES[name].levels[0]
    whole = encode_noisy(clips, KEY, level, noise=NOISES[name], options=options())["depth"]
    order = np.array([4, 1, 5])
    part = {key: value[order] for key, value in clips.items()}
    alone = encode_noisy(part, KEY, level, noise=NOISES[name], options=options())["depth"]
    np.testing.assert_array_equal(alone, whole[order])
    twins = {"depth": np.repeat(clips["depth"][:1], 2, axis=0), "sample": np.array([7, 8], np.uint32)}
    first, second = encode_noisy(twins, KEY, level, noise=NOISES[name], options=options())["depth"]
    assert np.array_equal(first, second) == (name in ("blur", "blank")), "each sample has a draw of its own"


def test_multiplied_values_have_the_stated_mean_and_deviation():
    ones = np.ones((5, 60, 60, 3), np.float32)
    factors = np.asarray(multiply(KEY, ones, 0.5))
    # 54,000 draws: four standard errors of the mean and of the deviation.
    assert abs(factors.mean() - 1.0) < 4 * 0.5 / np.sqrt(factors.size)
    assert abs(factors.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * factors.size)
    assert not np.array_equal(factors[..., 0], factors[..., 1]), "channels are drawn apart, as in the released code"
    np.testing.assert_allclose(np.asarray(multiply(KEY, 3 * ones, 1.0)), 3 + 6 * (factors - 1), rtol=1e-4, atol=1e-5)


def test_multiplication_comes_last_and_saturates():
    """As in the released code it hits what the network sees, after downsampling, and cannot leave its range."""
    clips, shrunk = batch(), options(downsample=2)
    clear = np.asarray(encode(clips, shrunk)["depth"])
    noisy = np.asarray(encode_noisy(clips, KEY, 0.5, noise=NOISES["multiplicative"], options=shrunk)["depth"])
    draws = [jax.random.normal(jax.random.fold_in(KEY, sample), clear.shape[1:]) for sample in clips["sample"]]
    np.testing.assert_allclose(noisy, np.clip(clear * (1 + 0.5 * np.stack(draws)), 0, 1), rtol=1e-5)
    assert noisy.min() == 0 and noisy.max() == 1
    assert LARGEST.keys() == set(ALL)
    for name, encoding in ENCODINGS.items():
        values = 2**8 if name == "picture" else 2**16  # that is of 8 bits
        every = np.asarray(encoding(np.arange(values, dtype=np.uint16), near=500, far=8000))
        assert every.min() == 0 and every.max() == pytest.approx(LARGEST[name])


def test_drop_outs_have_the_stated_share_and_only_grow():
    keys = jax.random.split(KEY, 200)
    shares = {}
    for share in (0.1, 0.5, 0.9):
        lost = jax.vmap(lambda key, share=share: drop_out(key, DEPTH, share))(keys) == 0
        shares[share] = np.asarray(lost)
        assert abs(lost.mean() - share) < 0.02
        # No place is favoured: the borders lose as much as the middle.
        assert np.abs(np.asarray(lost.mean((0, 1))) - share).max() < 0.12
    assert (shares[0.5] >= shares[0.1]).all() and (shares[0.9] >= shares[0.5]).all()
    neighbours = (shares[0.1][..., 1:] & shares[0.1][..., :-1]).mean()
    assert neighbours > 2 * 0.1**2, "single pixels alone would be lost together in 1 % of the places"
    survivors = np.asarray(drop_out(KEY, DEPTH, 0.5))
    np.testing.assert_array_equal(survivors[survivors > 0], DEPTH[survivors > 0])


def test_blur_is_a_gaussian_mean_of_the_returns():
    holes = DEPTH.copy()
    holes[:, 5:9, 3:20] = 0
    rows, columns = np.mgrid[:28, :36]
    sigma = 0.05 * 28
    expected = np.zeros_like(holes)
    for t, y, x in ((0, 0, 0), (1, 4, 10), (2, 27, 35), (3, 6, 30)):
        weights = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)) * (holes[t] > 0)
        expected[t, y, x] = np.round((weights * holes[t]).sum() / weights.sum())
    blurred = np.asarray(blur(KEY, holes, 0.05))
    there = expected > 0
    assert there.sum() == 4
    np.testing.assert_allclose(blurred[there].astype(int), expected[there].astype(int), atol=1)
    np.testing.assert_array_equal(blurred == 0, holes == 0)
    flat = np.where(holes > 0, 2000, 0).astype(np.uint16)
    np.testing.assert_array_equal(blur(KEY, flat, 0.08), flat)


def test_missing_frames_are_counted():
    keys = jax.random.split(KEY, 300)
    for share, count in ((0.2, 1), (0.4, 2), (0.8, 4), (1.0, 5)):
        clips = np.asarray(jax.vmap(lambda key, share=share: lose_frames(key, DEPTH, share))(keys))
        lost = (clips == 0).all((2, 3))
        assert (lost.sum(1) == count).all()
        np.testing.assert_array_equal(clips[~lost], np.broadcast_to(DEPTH, clips.shape)[~lost])
        assert np.abs(lost.mean(0) - share).max() < 0.12, "every frame is lost as often"


def test_blank_depth_is_the_released_codes_zeros():
    for encoding in set(ALL) - {"picture"}:
        seen = options(depth_encoding=encoding, depth_camera=(1.0, 1.0, 0.5, 0.5))
        blank = encode_noisy(batch(), KEY, 1.0, noise=NOISES["blank"], options=seen)
        np.testing.assert_array_equal(blank["depth"], 0)


def test_levels_grow():
    assert all(list(noise.levels) == sorted(set(noise.levels)) and noise.levels[0] > 0 for noise in NOISES.values())
