"""The stage graph on the shipped table configuration, shrunk: every stage really trains, resumes and is tabulated."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small_config import get_config

from hallujax.console import Console
from hallujax.errors import CheckpointError, HallujaxError, UsageError
from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.table import as_csv, tabulate, write_table
from hallujax.experiment import from_json, read_config
from hallujax.tables import train_table
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import CLOCK, read_metrics
from hallujax.training.stages import train
from hallujax.training.stop import Stopped

ROOT = pathlib.Path(__file__).parents[2]


def only(experiment, *names):
    """The experiment with some of its stages and no table."""
    stages = {name: stage for name, stage in experiment.stages.items() if name in names}
    return dataclasses.replace(experiment, stages=stages, systems=())


def digest(directory: pathlib.Path) -> dict[str, bytes]:
    checkpoints = Checkpoints(directory / "checkpoints")
    networks = checkpoints.restore_best()
    checkpoints.close()
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in jax.tree.leaves_with_path(networks)
    }


def test_every_stage_leaves_what_the_format_promises(trained, experiment):
    for name in experiment.stages:
        summary = json.loads((trained / name / "stage.json").read_text())
        assert summary["steps"] * summary["batch_size"] == summary["clip_passes"]
        lines = read_metrics(trained / name)
        steps = [line["step"] for line in lines if "validation/accuracy" not in line]
        assert steps == list(range(1, summary["steps"] + 1))
        assert sum("validation/accuracy" in line for line in lines) == min(2, summary["steps"])
        assert Predictions.load(trained / name / "predictions_test.npz").logits.shape[1] == 4
        assert list((trained / name / "tensorboard").iterdir())
    admd = [line for line in read_metrics(trained / "admd") if "student/fool" in line]
    assert {"discriminator/real", "discriminator/fake", "gradient_norm/hallucination"} <= set(admd[0])


def test_the_frozen_teacher_is_the_stage_it_came_from(trained):
    teacher, student = digest(trained / "depth"), digest(trained / "admd")
    frozen = {key: value for key, value in student.items() if "['depth']" in key}
    assert frozen == teacher
    head = "['params']['hallucination']['logits']['kernel']"
    assert student[head] == teacher["['params']['depth']['logits']['kernel']"], "no loss reaches the student's head"


def test_the_table_counts_ancestors_and_missing_seeds(trained, experiment, tmp_path):
    rows = tabulate(experiment, {0: trained, 1: trained.parent / "seed1"})
    by_name = {row["method"]: row for row in rows}
    passes = {
        name: json.loads((trained / name / "stage.json").read_text())["clip_passes"] for name in experiment.stages
    }
    assert by_name["RGB"]["clip_passes"] == passes["rgb"]
    expected = sum(passes[n] for n in ("depth", "rgb", "two_stream", "hallucination", "step4"))
    assert by_name["Hallucination + RGB (step 4)"]["clip_passes"] == expected
    assert by_name["ADMD two-stream"]["test_modalities"] == ["rgb"]
    assert by_name["Two-stream (step 2)"]["test_modalities"] == ["rgb", "depth"]
    assert by_name["Depth"]["published"] == {"ntu_cross_subject": 70.44}
    assert all(row["accuracies"]["1"] is None and row["deviation"] is None for row in rows)
    write_table(tmp_path, rows, {"classes": []})
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == len(rows)
    assert set(results[0]) == {"method", "test_modalities", "seed", "accuracy", "test_clips"}
    rgb = Predictions.load(trained / "rgb" / "predictions_test.npz")
    rgb2 = Predictions.load(trained / "rgb2" / "predictions_test.npz")
    fused = ((rgb.logits + rgb2.logits) / 2).argmax(1) == rgb.label
    assert by_name["RGB ensemble"]["accuracies"]["0"] == pytest.approx(fused.mean())
    assert len(as_csv(rows).splitlines()) == len(rows) + 1
    assert "(1 of 2 seeds)" in (tmp_path / "table.md").read_text()


def test_a_second_start_trains_nothing(trained, experiment, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.npz")}
    train(experiment, trained, Console())
    assert capsys.readouterr().out.count("done already") == len(experiment.stages)
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*.npz")}


def test_a_table_takes_over_what_train_left_in_a_seeds_folder(trained, experiment, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "seed0")
    train_table(experiment, tmp_path, 1, command="hallujax table")
    said = capsys.readouterr().out
    assert said.count("done already") == len(experiment.stages) and "steps of" not in said
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == tabulate(experiment, {0: trained})


def test_other_settings_in_the_same_folder_are_refused(trained, experiment):
    other = dataclasses.replace(experiment, transforms=dataclasses.replace(experiment.transforms, flip=0.25))
    with pytest.raises(UsageError, match=r"transforms.flip=0.5, now it is 0.25"):
        train(other, trained, Console())


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("batch_size", 100_000, r"stages\.rgb2\.batch_size is 100000, more than its \d+ training clips"),
        ("model.layout", "caffe", "layout='caffe' is unknown"),
        ("model.temporal_kernel", 4, "temporal_kernel=4 must be odd"),
        ("options.modality", "infrared", "has no modality infrared|no stream sees infrared"),
    ],
)
def test_what_is_wrong_with_the_last_stage_is_said_before_the_first_starts(tiny, tmp_path, key, value, said):
    config = get_config(str(tiny.parent))
    config.stages.rgb2.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=said):
        train(only(read_config(config), "depth", "rgb2"), tmp_path, Console())
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_weights_that_no_stage_starts_from_leave_finished_ones_as_they_are(experiment):
    given = dataclasses.replace(experiment, imagenet_weights="/weights/resnet50.safetensors")
    assert given.identity("step4") == experiment.identity("step4")
    rgb = dataclasses.replace(experiment.stages["rgb"], init_from={"rgb": ("imagenet", "")})
    stages = experiment.stages | {"rgb": rgb}
    identities = [dataclasses.replace(each, stages=stages).identity("step4") for each in (given, experiment)]
    assert identities[0] != identities[1], "its ancestor starts from them"


def test_evaluating_again_gives_the_same_predictions(trained, experiment, capsys):
    from hallujax.tables import evaluate_again

    before = Predictions.load(trained / "step4" / "predictions_test.npz").logits
    evaluate_again(trained, "test", None)
    np.testing.assert_allclose(Predictions.load(trained / "step4" / "predictions_test.npz").logits, before, rtol=1e-5)
    assert "ADMD two-stream" in capsys.readouterr().out
    with pytest.raises(UsageError, match="did you mean"):
        evaluate_again(trained.parent, "test", None)


def test_run_json_gives_the_experiment_back(trained, experiment):
    again = from_json(json.loads((trained / "run.json").read_text())["config"])
    assert again.identity("admd") == experiment.identity("admd")
    assert [system.name for system in again.systems] == [system.name for system in experiment.systems]


def test_a_teacher_of_another_architecture_is_refused(trained, experiment, tmp_path):
    admd = experiment.stages["admd"]
    wider = dataclasses.replace(admd, model=admd.model | {"width": 8})
    other = dataclasses.replace(
        only(experiment, "depth", "admd"), stages={"depth": experiment.stages["depth"], "admd": wider}
    )
    (tmp_path / "depth").symlink_to(trained / "depth")
    with pytest.raises(CheckpointError, match=r"cannot start from depth/depth: .*\(.*\) there, \(.*\) here"):
        train(other, tmp_path, Console())


def test_a_checkpoint_of_another_architecture_is_refused(trained, experiment, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    from hallujax.training.state import TrainState

    zeros = TrainState(np.int32(0), {"rgb": {"w": np.zeros((2, 3), np.float32)}}, {"rgb": {}}, {})
    state = jax.tree.map(jax.numpy.asarray, zeros)
    checkpoints.save(1, state, {"position": 0})
    checkpoints.wait()
    other = state.replace(params={"rgb": {"w": jax.numpy.zeros((2, 4))}})
    with pytest.raises(CheckpointError, match=r"another architecture: params/rgb/w is float32\[2, 3\] there"):
        checkpoints.restore(other)
    checkpoints.close()


def test_unknown_sources_and_circles_are_named(tiny):
    config = get_config(str(tiny.parent))
    config.stages.control.init_from.rgb = ("deph", "depth")
    with pytest.raises(UsageError, match="starts from stage 'deph'"):
        read_config(config)
    config.stages.control.init_from.rgb = ("control", "rgb")
    with pytest.raises(UsageError, match="circle"):
        read_config(config)


def test_imagenet_weights_must_be_given(experiment, tmp_path):
    rgb = dataclasses.replace(experiment.stages["rgb"], init_from={"rgb": ("imagenet", "")})
    imagenet = dataclasses.replace(experiment, stages={"rgb": rgb}, systems=())
    with pytest.raises(UsageError, match="imagenet_weights"):
        train(imagenet, tmp_path / "a", Console())
    with pytest.raises(CheckpointError, match=r"nowhere.safetensors"):
        train(dataclasses.replace(imagenet, imagenet_weights="nowhere.safetensors"), tmp_path / "b", Console())


def test_a_loss_that_is_not_finite_stops_the_run(experiment, tmp_path):
    rgb = experiment.stages["rgb"]
    broken = dataclasses.replace(rgb, optimizer=dataclasses.replace(rgb.optimizer, learning_rate=1e30, warmup=0.0))
    with pytest.raises(HallujaxError, match=r"stage rgb at step \d"):
        train(dataclasses.replace(experiment, stages={"rgb": broken}, systems=()), tmp_path, Console())


class _StopsAt(Console):
    """Asks for a stop, as Ctrl-C's handler does, after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self._left = steps

    def advance(self, work, text):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_plateau_ends_a_stage_where_it_would_have_without_an_interruption(experiment, tmp_path):
    """At learning rate zero with frozen statistics no evaluation is better than the first."""
    rgb = experiment.stages["rgb"]
    still = dataclasses.replace(
        rgb,
        model=rgb.model | {"batch_norm_momentum": 1.0},
        optimizer=dataclasses.replace(rgb.optimizer, learning_rate=0.0),
        plateau=dataclasses.replace(rgb.plateau, patience=2, drops=1),
        evaluations=12,
        epochs=4.0,
    )
    one = dataclasses.replace(experiment, stages={"rgb": still}, systems=())
    train(one, tmp_path / "straight", Console())
    with pytest.raises(Stopped):
        train(one, tmp_path / "broken", _StopsAt(3))
    train(one, tmp_path / "broken", Console())
    for run in ("straight", "broken"):
        lines = read_metrics(tmp_path / run / "rgb")
        scales = [line["learning_rate_scale"] for line in lines if "learning_rate_scale" in line]
        assert sum("validation/accuracy" in line for line in lines) == 5  # the best, two for each of two drops
        assert scales[0] == 1.0 and scales[-1] == pytest.approx(0.1)
        assert json.loads((tmp_path / run / "rgb" / "stage.json").read_text())["steps"] == 5  # of twelve


def wait_for(condition, process, seconds=120):
    for _ in range(seconds * 50):
        if condition():
            return
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.02)
    raise AssertionError("the moment to interrupt never came")


def test_killed_and_interrupted_runs_end_bit_for_bit_like_an_uninterrupted_one(tiny, tmp_path):
    """SIGKILL in the first stage, SIGTERM later, then to the end; against one run that was left alone."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    run = {"cwd": ROOT, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    config = ROOT / "tests" / "faults" / "two_stages_config.py"

    def start(workdir):
        program = [sys.executable, "-m", "hallujax.cli", "train", f"--config={config}:{tiny.parent}"]
        return subprocess.Popen([*program, f"--workdir={workdir}"], **run)

    straight = start(tmp_path / "straight")
    assert straight.wait(300) == 0, straight.stderr.read()

    broken = tmp_path / "broken"
    process = start(broken)
    wait_for(lambda: list((broken / "depth" / "checkpoints" / "latest").glob("[0-9]*")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(broken)
    wait_for(lambda: list((broken / "admd" / "checkpoints" / "latest").glob("[0-9]*")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "the same command continues" in process.stderr.read()
    process = start(broken)
    assert process.wait(300) == 0, process.stderr.read()

    for stage in ("depth", "admd"):
        assert digest(broken / stage) == digest(tmp_path / "straight" / stage)
        lines = [read_metrics(folder / stage) for folder in (broken, tmp_path / "straight")]
        for line in (line for each in lines for line in each):
            for name in CLOCK:
                line.pop(name, None)
        assert lines[0] == lines[1]
