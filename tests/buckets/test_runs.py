"""Runs in a bucket: the same numbers as on a disk, whatever kills them, and everything that reads a run reads them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from training.run_together import CONFIG, ROOT, start

import hallujax
from hallujax import paths
from hallujax.cli import main
from hallujax.data.records import PreparedDataset
from hallujax.evaluation.evaluate import Predictions
from hallujax.tables import evaluate_again, train_table
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import CLOCK, read_metrics
from hallujax.training.summary import read_summary
from hallujax.tuning import _take_over

STAGES = ("depth", "rgb")
TIMES = ("seconds", "input_waited", "peak_memory_mib", "metrics_sha256")


def networks(stage):
    checkpoints = Checkpoints(stage / "checkpoints")
    found = jax.tree.map(np.asarray, checkpoints.restore_best(read_summary(stage)["best_step"]))
    checkpoints.close()
    return found


def assert_same(one, other, stages=STAGES):
    """That two workdirs hold the same, bit for bit, times apart."""
    for stage in stages:
        a, b = one / stage, other / stage
        jax.tree.map(np.testing.assert_array_equal, networks(a), networks(b))
        curves = [[{k: v for k, v in line.items() if k not in CLOCK} for line in read_metrics(s)] for s in (a, b)]
        assert curves[0] == curves[1]
        summaries = [{k: v for k, v in read_summary(s).items() if k not in TIMES} for s in (a, b)]
        assert summaries[0] == summaries[1]
        assert (a / "config.json").read_bytes() == (b / "config.json").read_bytes()
        for split in ("validation", "test"):
            first, second = (Predictions.load(s / f"predictions_{split}.npz") for s in (a, b))
            np.testing.assert_array_equal(first.clip, second.clip)
            np.testing.assert_array_equal(first.logits, second.logits)


@pytest.fixture(scope="module")
def table(store, data, experiment):
    """A table of two stages and one seed, in a bucket as its data are."""
    few = dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, directory=data),
        stages={name: experiment.stages[name] for name in STAGES},
        systems=[system for system in experiment.systems if set(system.stages) <= set(STAGES)],
    )
    out = paths.as_path("gs://bucket/table")
    train_table(few, out, 1, command="hallujax table")
    return out


def test_a_table_is_bit_for_bit_that_of_a_disk(store, table, trained):
    assert_same(table / "seed0", trained)
    assert json.loads((table / "results.json").read_text())[0]["method"] == "Depth"
    assert not [name for name in store.buckets["bucket"] if "partial" in name or "orbax-checkpoint-tmp" in name]
    for stage in STAGES:
        (events,) = (name for name in store.buckets["bucket"] if name.startswith(f"table/seed0/{stage}/tensorboard/"))
        assert b"validation/accuracy" in store.buckets["bucket"][events].content


def test_everything_reads_it(store, table, trained, tiny, tmp_path, capsys):
    assert main(["report", f"--runs={table}"]) == 0
    page = store.buckets["bucket"]["table/report.html"].content.decode()
    assert "gs://bucket/data" in page and "Depth" in page and "Problems" not in page
    before = store.buckets["bucket"].pop("table/seed0/rgb/predictions_test.npz").content
    evaluate_again(table / "seed0", "test", None)
    assert store.buckets["bucket"]["table/seed0/rgb/predictions_test.npz"].content == before
    frames = PreparedDataset.open(tiny).read("rgb", [0], [range(5)])[0]
    there = hallujax.load("gs://bucket/table", "RGB")(frames)
    here = hallujax.load(trained, "RGB")(frames)
    np.testing.assert_array_equal(there.scores["fused"].logits, here.scores["fused"].logits)
    assert main(["export", str(table), "--system=RGB", f"--out={tmp_path / 'export'}"]) == 0
    assert main(["export", str(trained), "--system=RGB", f"--out={tmp_path / 'other'}"]) == 0
    first, second = (tmp_path / name / "model.safetensors" for name in ("export", "other"))
    assert first.read_bytes() == second.read_bytes()


def test_a_stage_that_a_trial_takes_over_is_copied(store, trained, experiment, tmp_path):
    """To a bucket and from it: a bucket has no links."""
    only = dataclasses.replace(experiment, stages={"depth": experiment.stages["depth"]}, systems=())
    there = paths.as_path("gs://bucket/trial")
    _take_over(only, there, [trained])
    _take_over(only, tmp_path / "trial", [there])
    for place in (there, tmp_path / "trial"):
        assert_same(place, trained, ["depth"])
    assert not (tmp_path / "trial" / "depth").is_symlink()


@pytest.fixture
def configured(tmp_path_factory, data):
    """A configuration file of one stage, its flags for several checkpoints, and a cache of compiled programs."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.py").write_text(CONFIG.replace('"control"', '"depth"'))
    flags = ("training.epochs=4.0", "training.evaluations=2", "checkpoint_every=2")
    return folder, [f"--config={folder}/config.py:{data}", *(f"--config.{flag}" for flag in flags)]


def train(configured, workdir, **how):
    folder, flags = configured
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "JAX_COMPILATION_CACHE_DIR": str(folder / "xla")}
    command = [sys.executable, "-m", "hallujax.cli", "train", *flags, f"--workdir={workdir}"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )


def finish(process):
    said, wrong = process.communicate(timeout=900)
    assert process.returncode == 0, wrong
    return said


@pytest.mark.slow
def test_killed_while_it_saves_it_ends_like_one_left_alone(store, configured, tmp_path):
    """SIGKILL between the files of the second checkpoint; the same command goes on from the first."""
    finish(train(configured, tmp_path / "whole"))
    killed, objects = train(configured, "gs://bucket/killed"), store.buckets["bucket"]
    wanted, deadline = "killed/depth/checkpoints/latest/4/", time.monotonic() + 900
    while not any(name.startswith(wanted) for name in list(objects)):
        assert killed.poll() is None and time.monotonic() < deadline, killed.stderr.read()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert f"{wanted}commit_success.txt" not in objects
    assert "continued after 2 of 12 steps" in finish(train(configured, "gs://bucket/killed"))
    assert_same(paths.as_path("gs://bucket/killed"), tmp_path / "whole", ["depth"])


@pytest.mark.slow
def test_two_processes_share_a_bucket(store, data, tmp_path):
    """Two of two devices train a table in it, and end like two that train on a disk."""
    (tmp_path / "config.py").write_text(CONFIG)
    for workdir in ("gs://bucket/two", tmp_path / "two"):
        words = ("table", f"--config={tmp_path}/config.py:{data}", f"--workdir={workdir}", "--seeds=1")
        with start(tmp_path / "config.py", tmp_path / "xla", *words) as run:
            assert run.wait() == [0, 0], [run.lines(i) for i in range(2)]
    assert_same(paths.as_path("gs://bucket/two/seed0"), tmp_path / "two/seed0", ("depth", "control"))


@pytest.mark.slow
def test_robustness_and_tuning_in_a_bucket(store, data, tiny, tmp_path, capsys):
    """What reads depth beside a run, and what takes finished stages over: copied, where a disk has links."""
    names = ("depth", "rgb", "admd")
    config = CONFIG.replace('("depth", "control")', repr(names)).replace('{"depth", "control"}', repr(set(names)))
    (tmp_path / "config.py").write_text(config)
    config, objects = f"--config={tmp_path}/config.py:{data}", store.buckets["bucket"]
    assert main(["table", config, "--workdir=gs://bucket/noisy", "--seeds=1"]) == 0
    assert main(["robustness", "--workdir=gs://bucket/noisy"]) == 0
    assert {f"noisy/robustness.{kind}" for kind in ("csv", "json", "svg")} <= objects.keys()
    assert main(["report", "--runs=gs://bucket/noisy"]) == 0
    dataset = PreparedDataset.open(tiny)
    for modality in ("rgb", "depth"):
        np.save(tmp_path / f"{modality}.npy", dataset.read(modality, [0], [range(5)])[0])
    words = ["predict", "--model=gs://bucket/noisy", str(tmp_path / "rgb.npy"), f"--depth={tmp_path / 'depth.npy'}"]
    assert main(words) == 0 and "threshold" in capsys.readouterr().out
    tune = ["tune", config, "--vary=config.stages.rgb.epochs=0.7,1.4", "--start-from=gs://bucket/noisy/seed0"]
    assert main([*tune, "--workdir=gs://bucket/tuned"]) == 0
    assert objects["tuned/tune.csv"].content.count(b"\n") == 3
    finished = objects["noisy/seed0/rgb/stage.json"].content
    (copied,) = (name for name in objects if name.startswith("tuned/") and objects[name].content == finished)
    assert_same(paths.as_path(f"gs://bucket/{copied}").parent.parent, paths.as_path("gs://bucket/noisy/seed0"), ["rgb"])
