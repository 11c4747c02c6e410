"""Frame choice: the authors' formula, temporal order, short clips."""

import numpy as np
import pytest

from hallujax.data.clips import choose_frames, random_frames, uniform_frames
from hallujax.errors import DataError, UsageError


def test_uniform_is_the_released_codes_linspace():
    """`linspace(0, n - 1, 5).astype(int)`, worked out by hand for n = 8 (steps of 1.75) and n = 5."""
    assert uniform_frames(8, 5).tolist() == [0, 1, 3, 5, 7]
    assert uniform_frames(5, 5).tolist() == [0, 1, 2, 3, 4]


def test_short_clips_repeat_frames_in_order():
    assert uniform_frames(3, 5).tolist() == [0, 0, 1, 1, 2]
    assert uniform_frames(1, 5).tolist() == [0] * 5
    assert random_frames(3, 5, np.random.default_rng(0)).tolist() == [0, 0, 1, 1, 2]


def test_random_frames_are_distinct_and_in_order():
    for seed in range(50):
        frames = random_frames(9, 5, np.random.default_rng(seed))
        assert (np.diff(frames) > 0).all() and frames.min() >= 0 and frames.max() < 9


def test_training_draws_uniform_half_of_the_time():
    uniform = uniform_frames(40, 5)
    draws = [choose_frames(40, 5, "mixed", (0, sample)) for sample in range(2000)]
    share = np.mean([np.array_equal(frames, uniform) for frames in draws])
    assert abs(share - 0.5) < 0.05  # 4.5 standard deviations of 2,000 fair coins


def test_a_draw_depends_on_seed_and_sample_alone():
    assert choose_frames(40, 5, "mixed", (3, 17)).tolist() == choose_frames(40, 5, "mixed", (3, 17)).tolist()
    draws = {tuple(choose_frames(40, 5, "mixed", (seed, 17))) for seed in range(20)}
    assert len(draws) > 5


def test_refusals():
    with pytest.raises(DataError, match="without frames"):
        choose_frames(0, 5, "uniform", (0,))
    with pytest.raises(UsageError, match="known: uniform, mixed"):
        choose_frames(9, 5, "random", (0,))
