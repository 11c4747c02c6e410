"""What the slider shows is what `hallujax robustness` measures."""

import dataclasses

import jax
import numpy as np
import pytest

from hallujax.data.noise import NOISES
from hallujax.evaluation import finished
from hallujax.evaluation.evaluate import Predictions, fuse
from hallujax.evaluation.noisy import CLEAN, NoisyEvaluator
from hallujax.evaluation.switching import calibrate
from hallujax.serve.benchmark import Benchmark, shown_depth
from hallujax.serve.failing import KINDS, FailingDepth, principal, strongest
from hallujax.training.sharding import make_mesh
from hallujax.training.start import build_method


@pytest.fixture(scope="module")
def bench(trained, tiny):
    experiment = finished.read_experiment(trained)
    return Benchmark(trained, tiny.parent, finished.open_dataset(experiment, tiny.parent).fingerprint)


@pytest.fixture(scope="module")
def failing(bench, trained):
    return FailingDepth(bench, trained)


def test_levels_and_doubt_are_those_of_robustness(bench, failing, trained):
    experiment, dataset = bench.experiment, bench.dataset
    admd = build_method(experiment.stages["admd"], len(dataset.classes))
    evaluator = NoisyEvaluator(("admd", admd), {}, dataset, experiment.data, experiment.transforms, make_mesh())
    networks = {"admd": finished.restore(trained / "admd", dataset)}
    clean = evaluator(networks, bench.rows["validation"], [CLEAN], lambda clips: None)[CLEAN]
    assert failing.threshold == pytest.approx(calibrate(clean.fake, 0.05), rel=1e-5)
    assert failing.calibrated_on == len(bench.rows["validation"])
    conditions = [CLEAN, *((kind, strongest(kind)) for kind in KINDS)]
    measured = evaluator(networks, bench.rows["test"], conditions, lambda clips: None)
    for clip in list(bench.clips.values())[:3]:
        for kind in KINDS:
            sweep = failing.sweep(bench.batch(clip), kind)
            assert sweep.levels[0] == 0 and sweep.levels[-1] == pytest.approx(strongest(kind))
            for i, condition in ((0, CLEAN), (-1, (kind, strongest(kind)))):
                assert sweep.doubt[i] == pytest.approx(measured[condition].fake[clip.place], abs=1e-5)
            np.testing.assert_array_equal(sweep.switched, sweep.doubt > failing.threshold)
            used = np.where(sweep.switched[:, None], sweep.fallback, sweep.trusted)
            np.testing.assert_allclose(sweep.chosen, used, atol=1e-6)
            assert np.ptp(sweep.fallback, axis=0).max() == 0, "RGB alone does not see depth fail"


def test_the_two_systems_are_those_of_the_table(bench, failing, trained):
    def table(*stages):
        members = fuse([Predictions.load(trained / stage / "predictions_test.npz") for stage in stages])
        return np.asarray(jax.nn.softmax(members.logits))

    clip = list(bench.clips.values())[4]
    sweep = failing.sweep(bench.batch(clip), "blur")
    np.testing.assert_allclose(sweep.fallback[0], table("admd", "rgb")[clip.place], atol=1e-5)
    np.testing.assert_allclose(sweep.trusted[0], table("depth", "rgb")[clip.place], atol=1e-5)
    assert (failing.trusted, failing.fallback) == ("Two-stream, not fine-tuned", "ADMD two-stream")


def test_lost_frames_end_with_none_left(bench, failing):
    assert strongest("missing") == 1.0 and strongest("dropout") == max(NOISES["dropout"].levels)
    clip = next(iter(bench.clips.values()))
    sweep = failing.sweep(bench.batch(clip), "missing")
    assert sweep.depth[-1].max() == 0 and sweep.depth[0].max() > 0
    clean = bench.clean_depth(bench.batch(clip)["depth"][0])
    assert clean.shape[0] == sweep.depth.shape[1] and clean.dtype == np.uint8


def test_principal_axes():
    draw = np.random.default_rng(0)
    real, fake = (draw.normal(size=(50, 8)) * [9, 5, 1, 1, 1, 0.1, 0.1, 0.1] for _ in range(2))
    found = principal(real, fake, np.zeros(50, int))
    covariance = np.cov(np.concatenate([real, fake]).T)
    values, vectors = np.linalg.eigh(covariance)
    assert found.explained == pytest.approx(values[-2:].sum() / values.sum())
    np.testing.assert_allclose(np.abs(found.axes @ vectors[:, [-1, -2]]), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(found.project(real), found.real)


def test_depth_in_metres_is_shown_by_its_range(bench):
    metres = dataclasses.replace(bench.experiment.transforms, depth_encoding="metres", depth_far=4000.0)
    assert shown_depth(np.array([0.0, 2.0, 4.0, 9.0]), metres).tolist() == [0, 128, 255, 255]
