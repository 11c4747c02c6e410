"""RGB made poorer: how much, always the same, and wherever frames are read."""

import numpy as np
import pytest

from hallujax.data.pipeline import ClipLoader
from hallujax.data.poor_rgb import add_noise
from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError


def test_noise_has_its_deviation_and_belongs_to_a_frame():
    grey = np.full((2, 3, 40, 40, 3), 128, np.uint8)
    clips, numbers = np.array([b"a", b"b"]), np.array([[0, 4, 4], [0, 1, 2]])
    noisy = add_noise(grey, clips, numbers, 20.0)
    assert noisy.dtype == np.uint8 and noisy.astype(float).std() == pytest.approx(20.0, rel=0.02)
    np.testing.assert_array_equal(noisy[0, 1], noisy[0, 2])  # the same frame twice, in a clip too short
    assert not np.array_equal(noisy[0, 0], noisy[1, 0]) and not np.array_equal(noisy[1, 0], noisy[1, 1])
    np.testing.assert_array_equal(add_noise(grey[1:], clips[1:], numbers[1:, 2:], 20.0)[0, 0], noisy[1, 2])
    halved = add_noise(grey, clips, numbers, 10.0).astype(float) - 128
    np.testing.assert_allclose(halved, (noisy.astype(float) - 128) / 2, atol=1)  # the same draw, smaller
    assert add_noise(np.full_like(grey, 255), clips, numbers, 500.0).max() == 255


def test_a_loader_spoils_rgb_alone(tiny):
    dataset, rows = PreparedDataset.open(tiny), np.array([0, 3])
    clean, poor = (
        ClipLoader(dataset, ("rgb", "depth"), frames=3, sampling="uniform", seed=0, rgb_noise=noise)(np.arange(2), rows)
        for noise in (0.0, 30.0)
    )
    np.testing.assert_array_equal(clean["depth"], poor["depth"])
    difference = poor["rgb"].astype(float) - clean["rgb"]
    assert 15 < difference.std() < 31  # less where it saturates
    with pytest.raises(UsageError, match=r"data\.rgb_noise is -1"):
        ClipLoader(dataset, ("rgb",), frames=3, sampling="uniform", seed=0, rgb_noise=-1)
