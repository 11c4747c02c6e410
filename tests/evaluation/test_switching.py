"""Switching against plain statements of what it should do, on hand-made scores and logits."""

import numpy as np
import pytest

from hallujax.errors import UsageError
from hallujax.evaluation.switching import auroc, calibrate, envelope, regret, softmax_doubt, switch

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.29, 0.5, 0.99])
@pytest.mark.parametrize("clips", [1, 20, 100, 360])
def test_calibration_gives_the_stated_false_alarms_on_its_own_clips(rate, clips):
    scores = RNG.normal(size=clips)
    threshold = calibrate(scores, rate)
    assert (scores > threshold).sum() == int(np.floor(round(rate * clips, 6)))
    assert threshold in scores


def test_calibration_with_ties_stays_below_the_stated_rate():
    scores = np.array([0.0] * 50 + [1.0] * 50)
    assert (scores > calibrate(scores, 0.2)).mean() == 0
    assert (scores > calibrate(scores, 0.5)).mean() == 0.5


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        calibrate(np.arange(5.0), rate)


def test_the_switch_takes_each_clip_from_one_system():
    trusted, fallback = RNG.normal(size=(2, 6, 3))
    scores = np.array([0.1, 0.9, 0.5, 0.6, 0.0, 1.0])
    expected = [fallback[i] if scores[i] > 0.5 else trusted[i] for i in range(6)]
    np.testing.assert_array_equal(switch(trusted, fallback, scores, 0.5), expected)


def test_softmax_doubt_against_the_definition():
    logits = RNG.normal(size=(7, 4)) * 5
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(softmax_doubt(logits), 1 - shares.max(1), atol=1e-12)
    assert np.isfinite(softmax_doubt(np.array([[1e4, -1e4]]))).all()


def test_auroc_against_every_pair():
    clean, noisy = RNG.integers(0, 6, 40) / 5, RNG.integers(1, 8, 30) / 5
    pairs = noisy[:, None] - clean[None]
    assert auroc(clean, noisy) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc(clean, clean) == pytest.approx(0.5)
    assert auroc(np.zeros(3), np.ones(4)) == 1.0


def curves(seeds=2, levels=5, clips=400):
    """Two systems that cross: the first falls from 0.9 to 0.1, the second stays at 0.6."""
    falling = np.linspace(0.9, 0.1, levels)[None, :, None]
    return RNG.random((seeds, levels, clips)) < falling, RNG.random((seeds, levels, clips)) < 0.6


def test_the_envelope_is_the_better_curve_at_every_level():
    first, second = curves()
    both = np.maximum(first.mean(-1), second.mean(-1))
    np.testing.assert_array_equal(envelope(first, second).mean(-1), both)


def test_an_oracle_regrets_nothing_and_each_fixed_system_what_it_loses():
    first, second = curves()
    oracle = regret(envelope(first, second), first, second)
    assert (oracle.points, oracle.low, oracle.high) == (0, 0, 0)
    for fixed in (first, second):
        best = np.maximum(first.mean(-1), second.mean(-1))
        loss = regret(fixed, first, second)
        assert loss.points == pytest.approx(100 * (best - fixed.mean(-1)).mean())
        assert 0 < loss.low < loss.points < loss.high
    assert regret(first | second, first, second).high < 0, "choosing clip by clip can beat both"


def test_the_interval_covers_what_fresh_clips_would_give():
    """Of 200 draws of the clips, the 95 % interval misses the expected regret in few."""
    # Always the second: it loses 0.3 at level 0 and nothing at level 1, 15 points on average.
    missed = 0
    for draw in range(200):
        rng = np.random.default_rng(draw)
        first = rng.random((1, 2, 300)) < np.array([0.9, 0.1])[None, :, None]
        second = rng.random((1, 2, 300)) < 0.6
        found = regret(second, first, second)
        missed += not found.low <= 15 <= found.high
    assert missed <= 20
