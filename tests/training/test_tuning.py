"""`hallujax tune` on the tiny dataset: what is trained, shared, ranked, resumed, and that no test clip is read."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

from data_prep import writer
from hallujax import sealed
from hallujax.cli import main, read_flags
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError
from hallujax.evaluation.evaluate import Predictions
from hallujax.tuning import _only, _take_over, tune

RATE = "config.stages.control.optimizer.learning_rate"


@pytest.fixture(scope="module")
def without_test_clips(tiny, tmp_path_factory):
    """The dataset with an index that sends whoever reads a test clip to the records of another: an error."""
    folder = tmp_path_factory.mktemp("ruined") / "mocap_rgbd"
    shutil.copytree(tiny, folder)
    index = np.load(folder / "clips.npy")
    test = split(PreparedDataset.open(tiny), "cross_subject")["test"]
    index["rgb_first"][test] = np.roll(index["rgb_first"][test], 1)
    writer.describe(folder, sealed.read(folder / "dataset.json", ""), index)
    with pytest.raises(DataError, match="belongs to clip"):
        PreparedDataset.open(folder).read("rgb", test[:1], [[0]])
    return folder


@pytest.fixture(scope="module")
def config(without_test_clips):
    """Flags: every trial compiles its own programs, so the networks are the smallest."""
    file = pathlib.Path(__file__).parents[1] / "small_config.py"
    return f"--config={file}:{without_test_clips.parent}", "--config.training.model.stage_sizes=(1,)"


@pytest.fixture(scope="module")
def read(config):
    return lambda flags: read_flags([*config, *flags])


@pytest.fixture(scope="module")
def tuned(read, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    return out, tune(read, [f"{RATE}=1e-3,1e30,2e-3"], out)


def test_trials_are_ranked_by_validation_and_one_that_fails_does_not_stop_the_others(tuned):
    out, rows = tuned
    table = list(csv.DictReader((out / "tune.csv").open()))
    assert [row[RATE] for row in table] == ["1e-3", "1e30", "2e-3"]
    failed = table[1]
    assert failed["note"].startswith("failed: ") and "stage control at step" in failed["note"]
    assert failed["validation_accuracy"] == "" and rows[-1][RATE] == "1e30"
    accuracies = [row["validation_accuracy"] for row in rows[:2]]
    assert accuracies == sorted(accuracies, reverse=True)
    found = {}
    for folder in out.glob("trial-*"):
        rate = json.loads((folder / "control" / "config.json").read_text())["stages"]["control"]["optimizer"]
        if (folder / "control" / "stage.json").exists():
            stored = Predictions.load(folder / "control" / "predictions_validation.npz")
            found[rate["learning_rate"]] = stored.accuracy
    assert found == {float(row[RATE]): float(row["validation_accuracy"]) for row in table[::2]}


def test_no_test_clip_is_read_and_what_trials_share_is_trained_once(tuned):
    out, _ = tuned
    assert not list(out.glob("*/*/predictions_test*"))
    folders = sorted(out.glob("trial-*"))
    assert len(folders) == 3 and sum((folder / "depth").is_symlink() for folder in folders) == 2
    assert len({(folder / "depth").resolve() for folder in folders}) == 1
    assert not any((folder / "rgb").exists() for folder in folders), "the control starts from depth alone"


def test_more_values_keep_the_trials_that_are_done_and_a_workdir_lends_its_stages(
    tuned, config, read, tmp_path, capsys
):
    out, before = tuned
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/*/stage.json")}
    rows = tune(read, [f"{RATE}=1e-3,2e-3,4e-3"], out)
    assert len(rows) == 3 and {row[RATE] for row in rows} == {"1e-3", "2e-3", "4e-3"}
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    kept = {row[RATE]: row["validation_accuracy"] for row in before[:2]}
    assert {row[RATE]: row["validation_accuracy"] for row in rows if row[RATE] in kept} == kept
    lender = next(path.parent.parent for path in finished if path.parent.name == "depth")
    arguments = [f"--workdir={tmp_path}", f"--vary={RATE}=5e-3", f"--start-from={lender}"]
    assert main(["tune", *config, *arguments]) == 0
    assert f"best on validation clips: --{RATE}=5e-3" in capsys.readouterr().out
    (depth,) = tmp_path.glob("trial-*/depth")
    assert depth.is_symlink() and depth.resolve() == (lender / "depth").resolve()


def test_stages_are_lent_through_links_and_again_when_they_have_moved(tuned, read, tmp_path):
    out, _ = tuned
    lender = next(path.parents[1] for path in out.glob("*/depth/stage.json") if not path.parent.is_symlink())
    shutil.copytree(lender, tmp_path / "lender")
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "deep")
    experiment = _only(read([]), "depth")
    (tmp_path / "lent").symlink_to(tmp_path / "lender")
    _take_over(experiment, tmp_path / "runs" / "trial", [tmp_path / "lent"])
    assert (tmp_path / "runs" / "trial" / "depth" / "stage.json").exists()
    (tmp_path / "lender").rename(tmp_path / "moved")
    _take_over(experiment, tmp_path / "runs" / "trial", [tmp_path / "moved"])
    assert (tmp_path / "runs" / "trial" / "depth").resolve() == (tmp_path / "moved" / "depth").resolve()


def test_trials_are_drawn_by_the_seed_and_more_of_them_keep_the_fewer(read):
    from hallujax.tuning import _combinations

    values = {"a": list("123"), "b": list("45")}
    every = _combinations(values, None, 0)
    assert len(every) == 6 and every[1] == {"a": "1", "b": "5"}
    few, more = _combinations(values, 2, 0), _combinations(values, 4, 0)
    assert more[:2] == few and few != _combinations(values, 2, 1)


def test_what_cannot_be_tuned_is_said_before_anything_is_trained(read, tmp_path):
    for varied, options, message in (
        ([RATE], {}, "write config.KEY=VALUE"),
        (["training.epochs=1,2"], {}, "write config.KEY=VALUE"),
        ([f"{RATE}=1,"], {}, "write config.KEY=VALUE"),
        (["config.training.epochs=1.0,2.0"], {}, "--stage is needed"),
        (["config.stages.rgb.epochs=1.0,2.0"], {"stage": "control"}, "leave stage 'control'"),
        ([f"{RATE}=1e-3,0.001"], {}, "leave stage 'control'"),
        ([f"{RATE}=1e-3,fast"], {}, "could not convert"),
        ([f"{RATE}=1e-3"], {"trials": 0}, "--trials is 0"),
        (["config.training.epochs=1.0,2.0"], {"stage": "nope"}, "no stage 'nope'"),
        ([f"{RATE}=1e-3"], {"start_from": tmp_path}, "has none of the stages finished"),
    ):
        with pytest.raises(UsageError, match=message):
            tune(read, varied, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["tune", "--config=x.py", f"--workdir={tmp_path}"])
