"""Optical flow from RGB: of a known shift, read from real clips, and flipped."""

import jax
import numpy as np
import pytest

from hallujax.data import flow
from hallujax.data.pipeline import ClipLoader, check_clips, evaluation_batches
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, augment, encode
from hallujax.errors import UsageError

pytest.importorskip("cv2", reason="optical flow needs the extra `flow`")

OPTIONS = TransformOptions(
    flip=0.5,
    shift=0,
    downsample=2,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=500.0,
    depth_far=6000.0,
)


def texture(size=64):
    """Smooth noise, uint8 `[size, size, 3]`."""
    spectrum = np.fft.fft2(np.random.default_rng(0).normal(size=(size, size)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    smooth = np.fft.ifft2(spectrum * np.exp(-((frequency / 0.08) ** 2))).real
    grey = 255 * (smooth - smooth.min()) / np.ptp(smooth)
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)


def test_a_shift_is_found_in_pixels_to_the_right_and_down():
    frame = texture()
    moved = np.roll(frame, (2, 3), axis=(0, 1))  # two down, three to the right
    found = flow.optical_flow(frame[None, None], moved[None, None])
    assert found.shape == (1, 1, 64, 64, 2) and found.dtype == np.float32
    np.testing.assert_allclose(np.median(found[0, 0, 10:-10, 10:-10], axis=(0, 1)), [3, 2], atol=0.2)


def test_the_loader_pairs_each_frame_with_the_next_of_the_clip(tiny):
    dataset = PreparedDataset.open(tiny)
    rows = split(dataset, "cross_subject")["test"][:2]
    assert check_clips(dataset, rows, ("flow",), 5, "refuse") == 0
    loader = ClipLoader(dataset, ("flow",), frames=3, sampling="uniform", seed=0)
    batch = next(evaluation_batches(loader, rows, batch_size=2))
    rgb = dataset.read("rgb", rows, [range(5)] * 2)
    assert set(batch) == {"flow", "label", "mask", "sample"}
    np.testing.assert_array_equal(batch["flow"], flow.optical_flow(rgb[:, [0, 2, 3]], rgb[:, [1, 3, 4]]))


def test_a_flip_turns_the_flow_around_and_its_length_is_a_third_channel():
    clips = {
        "flow": np.random.default_rng(1).normal(size=(20, 2, 8, 8, 2)).astype(np.float32),
        "rgb": np.random.default_rng(2).integers(0, 256, (20, 2, 8, 8, 3), dtype=np.uint8),
        "sample": np.arange(20, dtype=np.uint32),
    }
    moved = augment(clips, jax.random.key(0), OPTIONS)
    for before, after, rgb, kept in zip(clips["flow"], moved["flow"], clips["rgb"], moved["rgb"], strict=True):
        same = np.array_equal(rgb, kept)
        np.testing.assert_array_equal(after, before if same else before[:, :, ::-1] * [-1, 1])
    encoded = np.asarray(encode(clips, OPTIONS)["flow"])
    assert encoded.shape == (20, 2, 4, 4, 3)
    lengths = np.linalg.norm(clips["flow"], axis=-1).reshape(20, 2, 4, 2, 4, 2).mean((3, 5))
    np.testing.assert_allclose(encoded[..., 2], lengths / 0.8, rtol=1e-5)


def test_without_opencv_it_says_what_to_install(monkeypatch, tiny):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(UsageError, match=r"hallujax\[flow\]"):
        ClipLoader(PreparedDataset.open(tiny), ("flow",), frames=3, sampling="uniform", seed=0)
