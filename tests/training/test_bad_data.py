"""What training does about damaged records, datasets that change, and slow input; and what a workdir says of itself."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from hallujax.console import Console
from hallujax.data.pipeline import ClipLoader
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import DamagedRecordError, DataError, UsageError
from hallujax.training import recorder
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import read_metrics
from hallujax.training.stages import train

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "data"))
from spoiled import cut, spoil  # noqa: E402


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "data" / "mocap_rgbd")


@pytest.fixture
def one(experiment, copy):
    """A stage of six steps, two epochs of twelve clips, checkpointed after each; on a dataset of its own."""
    rgb = experiment.stages["rgb"]
    rgb = dataclasses.replace(rgb, model=rgb.model | {"stage_sizes": (1,)}, epochs=2.0, evaluations=1)
    data = dataclasses.replace(experiment.data, directory=str(copy.parent))
    return dataclasses.replace(experiment, data=data, stages={"rgb": rgb}, systems=(), checkpoint_every=1)


def spoil_training_clips(copy, count):
    """All RGB of so many training clips, the first ones."""
    rows = split(PreparedDataset.open(copy), "cross_subject")["train"][:count]
    spoil(copy, "rgb", {(int(row), frame): cut for row in rows for frame in range(5)})
    return [PreparedDataset.open(copy).clip_id(row) for row in rows]


def test_a_damaged_record_stops_training_and_may_be_skipped_after_that(one, copy, tmp_path, capsys):
    """The same folder goes on: the first epoch's bad clip is borne, the second's is more than 0.1 % of the clips."""
    (clip,) = spoil_training_clips(copy, 1)
    workdir = tmp_path / "run"
    with pytest.raises(DamagedRecordError, match=rf"rgb of clip {clip}, frame \d: damaged record"):
        train(one, workdir, Console())
    skipping = dataclasses.replace(one, data=dataclasses.replace(one.data, bad_records="skip"))
    with pytest.raises(DataError, match=r"stage rgb at step \d: 2 of \d+ clips read are damaged, more than 0.1 %"):
        train(skipping, workdir, Console())
    said = capsys.readouterr().out
    assert f"skipped: {copy}/rgb/1.0.0/" in said and f"rgb of clip {clip}, frame" in said
    counts = [line["bad_clips"] for line in read_metrics(workdir / "rgb") if "bad_clips" in line]
    assert counts == sorted(counts) and set(counts) <= {0, 1, 2}
    once = dataclasses.replace(skipping, stages={"rgb": dataclasses.replace(one.stages["rgb"], epochs=1.0)})
    train(once, tmp_path / "once", Console())
    assert "1 of 12 clips were damaged and left out" in capsys.readouterr().out
    assert json.loads((tmp_path / "once" / "rgb" / "stage.json").read_text())["bad_clips"] == 1


def test_a_masked_clip_has_no_part_in_the_loss(one, copy, tiny):
    """What the loader makes of a bad clip, in the step's own reduction: the mean over the others."""
    from hallujax.training.step import masked_mean

    (clip,) = spoil_training_clips(copy, 1)
    dataset = PreparedDataset.open(copy)
    rows = split(dataset, "cross_subject")["train"][:4]
    loader = ClipLoader(dataset, ("rgb",), frames=3, sampling="mixed", seed=0, bad_records="skip")
    mask = loader(np.arange(4), rows)["mask"]
    assert dataset.clip_id(rows[0]) == clip and mask.tolist() == [0, 1, 1, 1]
    assert masked_mean(jax.numpy.array([99.0, 1.0, 2.0, 6.0]), mask) == 3.0


def test_evaluation_never_leaves_a_clip_out(one, copy, tmp_path):
    row = int(split(PreparedDataset.open(copy), "cross_subject")["validation"][3])
    spoil(copy, "rgb", {(row, frame): cut for frame in range(5)})
    skipping = dataclasses.replace(one, data=dataclasses.replace(one.data, bad_records="skip"))
    with pytest.raises(DamagedRecordError, match=f"clip {PreparedDataset.open(copy).clip_id(row)}"):
        train(skipping, tmp_path / "run", Console())


class _Once(Console):
    """Does something when a step is reached."""

    def __init__(self, text, act):
        super().__init__()
        self._when, self._act = text, act

    def advance(self, work, text):
        if text == self._when:
            self._act()


def test_a_dataset_that_changes_under_a_running_job_stops_it(one, copy, tmp_path):
    shard = sorted((copy / "depth" / "1.0.0").glob("*array_record*"))[0]
    whole = shard.read_bytes()

    def damage():
        shard.write_bytes(whole[:-8] + b"01234567")

    with pytest.raises(DataError, match=rf"stage rgb: {shard} is no longer what it was, while it is trained on"):
        train(one, tmp_path / "run", _Once("rgb 3/6", damage))
    checkpoints = Checkpoints(tmp_path / "run" / "rgb" / "checkpoints")
    assert checkpoints._latest.latest_step() == 2
    checkpoints.close()
    shard.write_bytes(whole)
    train(one, tmp_path / "run", Console())


def test_a_checkpoint_knows_its_dataset(one, copy, tmp_path):
    """Also when config.json, which says so first, is gone."""

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(one, tmp_path / "run", _Once("rgb 4/6", stop))
    spoil(copy, "depth", {(0, 0): lambda encoded: encoded + b" "})
    with pytest.raises(UsageError, match=r"was made with dataset_fingerprint='\w+', now it is '\w+': use another"):
        train(one, tmp_path / "run", Console())
    (tmp_path / "run" / "rgb" / "config.json").unlink()
    with pytest.raises(
        UsageError, match=r"fingerprint [0-9a-f]{12}, now it is [0-9a-f]{12}: put that dataset back, use another"
    ):
        train(one, tmp_path / "run", Console())


def test_slow_input_is_reported(one, tmp_path, monkeypatch, capsys):
    read = ClipLoader.__call__

    def slowly(self, samples, rows):
        time.sleep(0.5)
        return read(self, samples, rows)

    monkeypatch.setattr(ClipLoader, "__call__", slowly)
    monkeypatch.setattr(recorder, "_SLOW_INPUT", 0.0)  # what the share is here is the machine's affair
    short = dataclasses.replace(one, stages={"rgb": dataclasses.replace(one.stages["rgb"], epochs=1.0)})
    train(short, tmp_path, Console())
    lines = read_metrics(tmp_path / "rgb")
    waited = [line["input/waited"] for line in lines if "input/waited" in line]
    assert len(waited) == 3 and sum(waited) > 0
    summary = json.loads((tmp_path / "rgb" / "stage.json").read_text())
    assert summary["input_waited"] == pytest.approx(sum(waited), abs=0.1)
    assert re.search(r"waited \d+ s for input, \d+% of the time: raise config.data.threads", capsys.readouterr().out)


def test_a_workdir_says_what_made_it(one, tmp_path):
    """By the command line, twice: both starts are told."""
    config = tmp_path / "rgb.py"
    config.write_text(
        "import small_config\n\n\ndef get_config(folder):\n    config = small_config.get_config(folder)\n"
        "    for name in list(config.stages):\n        if name != 'rgb':\n            del config.stages[name]\n"
        "    for name in list(config.systems):\n        del config.systems[name]\n    return config\n"
    )
    program = [sys.executable, "-m", "hallujax.cli", "train", f"--config={config}:{one.data.directory}"]
    command = [*program, f"--workdir={tmp_path}/run", "--config.seed=7"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    said = f"hallujax train --config={config}:{one.data.directory} --workdir={tmp_path}/run --config.seed=7"
    assert run["command"] == said and [start["command"] for start in run["starts"]] == [said, said]
    assert run["seeds"] == {"experiment": 7, "rgb": run["seeds"]["rgb"]} and run["config"]["seed"] == 7
    assert (
        run["dataset"]["fingerprint"]
        == PreparedDataset.open(pathlib.Path(one.data.directory) / "mocap_rgbd").fingerprint
    )
    assert run["versions"]["jax"] == jax.__version__ and run["device_kinds"] == ["cpu"]
    here = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if here.returncode == 0:
        assert run["revision"].removesuffix("+changes") == here.stdout.strip()
    assert run["starts"][0]["time"] <= run["starts"][1]["time"]
