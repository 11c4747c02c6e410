"""The systems beside the table's, every stage trained for a few steps from the shipped configuration."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from small_config import shrunk

from configs import label_noise, systems, unlabelled
from hallujax.console import Console
from hallujax.data.records import PreparedDataset
from hallujax.deploy import run as deployed
from hallujax.errors import UsageError
from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.runs import read_run
from hallujax.evaluation.table import tabulate, write_table
from hallujax.experiment import from_json, read_config
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.stages import train


@pytest.fixture(scope="module")
def experiment(tiny):
    config = shrunk(systems.get_config(), str(tiny.parent))
    config.training.evaluations = 1
    return read_config(config)


def only(experiment, *names):
    """The experiment with some of its stages, what they start from, and the rows that these allow."""
    needed = {ancestor for name in names for ancestor in experiment.ancestors(name)}
    return dataclasses.replace(
        experiment,
        stages={name: stage for name, stage in experiment.stages.items() if name in needed},
        systems=tuple(system for system in experiment.systems if needed.issuperset(system.stages)),
    )


def networks(workdir, stage):
    checkpoints = Checkpoints(workdir / stage / "checkpoints")
    found = checkpoints.restore_best()
    checkpoints.close()
    return found


@pytest.fixture(scope="module")
def two(experiment, tmp_path_factory):
    """ModDrop and side information, trained."""
    chosen = only(experiment, "moddrop", "side_information")
    workdir = tmp_path_factory.mktemp("systems") / "seed0"
    train(chosen, workdir, Console())
    return chosen, workdir


def test_a_head_starts_from_its_part_of_a_whole_stream_and_the_trunk_stays(two):
    """Few steps do not undo a start: the head is still nearer to the depth stream's than a fresh one would be."""
    _, workdir = two
    whole, joint = networks(workdir, "depth")["params"]["depth"], networks(workdir, "side_information")["params"]
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, joint["depth"], whole)))
    start, end = whole["logits"]["kernel"], joint["depth_head"]["logits"]["kernel"]
    assert set(joint["depth_head"]) == {"bottleneck_bn", "bottleneck_conv", "logits"}
    assert 0 < np.abs(start - end).max() < 0.1 * np.abs(start).max()


def test_one_stage_makes_two_rows_by_what_they_are_tested_on(two, tmp_path):
    chosen, workdir = two
    rows = {row["method"]: row for row in tabulate(chosen, {0: workdir})}
    both, rgb = rows["ModDrop"], rows["ModDrop, RGB alone"]
    assert (both["test_modalities"], rgb["test_modalities"]) == (["rgb", "depth"], ["rgb"])
    whole = Predictions.load(workdir / "moddrop" / "predictions_test.npz")
    narrow = Predictions.load(workdir / "moddrop" / "predictions_test_rgb.npz")
    assert not np.allclose(whole.logits, narrow.logits)
    assert (both["accuracies"]["0"], rgb["accuracies"]["0"]) == (whole.accuracy, narrow.accuracy)
    write_table(workdir.parent, list(rows.values()), {"classes": []})
    run = read_run(workdir.parent)
    assert not [problem for problem in run.problems if "stored predictions" in problem]
    for row in run.rows:
        if row.stages == ("moddrop",):
            expected = narrow if row.test_modalities == ("rgb",) else whole
            np.testing.assert_array_equal(run.predictions(row)["0"].logits, expected.logits)
    (workdir / "moddrop" / "predictions_test_rgb.npz").rename(tmp_path / "away.npz")
    rows = {row["method"]: row for row in tabulate(chosen, {0: workdir})}
    assert rows["ModDrop, RGB alone"]["mean"] is None and rows["ModDrop"]["mean"] is not None
    (tmp_path / "away.npz").rename(workdir / "moddrop" / "predictions_test_rgb.npz")


def test_a_row_that_no_stage_can_be_tested_on_is_refused_before_training(experiment, tmp_path):
    chosen = only(experiment, "two_stream")
    row = next(system for system in chosen.systems if system.stages == ("two_stream",))
    wrong = dataclasses.replace(chosen, systems=(dataclasses.replace(row, test_modalities=("rgb",)),))
    with pytest.raises(UsageError, match=r"'Two-stream \(step 2\)' is tested on rgb, but its stage 'two_stream' on"):
        train(wrong, tmp_path, Console())
    assert not (tmp_path / "depth").exists()


def test_run_json_keeps_what_a_row_is_tested_on(two):
    chosen, workdir = two
    again = from_json(json.loads((workdir / "run.json").read_text())["config"])
    assert again.systems == list(chosen.systems)


@pytest.mark.parametrize(
    ("stage", "system", "kept"),
    [
        ("distilled_joints", "Distilled from joints", {"student"}),
        pytest.param(
            "estimation",
            "Depth estimation, two-stream on generated depth",
            {"encoder", "decoder", "depth", "rgb"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_system_that_needs_rgb_alone_is_deployed_whatever_taught_it(experiment, tiny, tmp_path, stage, system, kept):
    """No network that sees joints or real depth comes with it, and it says of a test clip what evaluation said."""
    train(only(experiment, stage), tmp_path, Console())
    summary = json.loads((tmp_path / stage / "stage.json").read_text())
    assert len(set(summary["networks"].values())) == 2 and summary["test_modalities"] == ["rgb"]
    trained = deployed.read_run(tmp_path, system)
    assert set(trained.variables[stage]["params"]) == kept
    stored = Predictions.load(tmp_path / stage / "predictions_test.npz")
    dataset = PreparedDataset.open(tiny)
    row = int(np.flatnonzero(dataset.index["clip"] == stored.clip[0])[0])
    frames = dataset.read("rgb", [row], [[0, 2, 4]])
    said = jax.jit(trained.system.logits)(trained.variables, frames)
    np.testing.assert_allclose(said["fused"][0], stored.logits[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("module", [unlabelled, label_noise])
def test_few_and_wrong_labels_train(tiny, tmp_path, module):
    config = shrunk(module.get_config(), str(tiny.parent))
    config.training.epochs = 0.3
    config.training.evaluations = 1
    config.training.batch_size = 2
    chosen = read_config(config)
    train(chosen, tmp_path, Console())
    rows = tabulate(chosen, {0: tmp_path})
    assert all(row["mean"] is not None for row in rows)


@pytest.mark.slow
def test_every_system_trains_and_is_tabulated(experiment, tmp_path):
    """Every stage of `configs/systems.py`, each compiled once."""
    train(experiment, tmp_path, Console())
    rows = tabulate(experiment, {0: tmp_path})
    assert len(rows) == len(experiment.systems) and all(row["mean"] is not None for row in rows)
    for row, system in zip(rows, experiment.systems, strict=True):
        if system.role in ("privileged", "control", "ensemble"):
            assert row["test_modalities"] == ["rgb"]
    start, end = networks(tmp_path, "depth"), networks(tmp_path, "admd_from_rgb")
    classifier = jax.tree.map(np.array_equal, end["params"]["classifier"]["logits"], start["params"]["depth"]["logits"])
    assert all(jax.tree.leaves(classifier)), "the frozen classifier is the depth stream's"
