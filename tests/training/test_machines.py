"""What machines do to runs: several devices, full disks, Ctrl-C; real processes throughout."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from small_config import get_config

from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.evaluation.evaluate import Evaluator, Predictions
from hallujax.experiment import read_config
from hallujax.models.streams import initialize
from hallujax.training.sharding import make_mesh
from hallujax.training.start import build_method

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def one_stage(tmp_path_factory):
    """A configuration file with a single stage, `depth`."""
    path = tmp_path_factory.mktemp("config") / "depth.py"
    path.write_text(
        "import small_config\n\n\ndef get_config(folder):\n"
        "    config = small_config.get_config(folder)\n    config.training.model.stage_sizes = (1,)\n"
        "    for name in list(config.stages):\n"
        "        if name != 'depth':\n            del config.stages[name]\n"
        "    for name in list(config.systems):\n        del config.systems[name]\n    return config\n"
    )
    return path


def start(config, tiny, workdir, *flags, devices=1, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), **variables}
    environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    program = [sys.executable, "-m", "hallujax.cli", "train", f"--config={config}:{tiny.parent}"]
    return subprocess.Popen(
        [*program, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_whole_stage_runs_on_eight_devices_and_compiles_once(one_stage, tiny, tmp_path):
    """Four epochs, validated and saved between, the state in two parts: one step and one evaluation are compiled."""
    flags = ("mesh.model=2", "training.batch_size=8", "training.ghost_batch=1", "training.epochs=4.0")
    flags = [f"--config.{flag}" for flag in (*flags, "checkpoint_every=2")]
    process = start(one_stage, tiny, tmp_path, *flags, devices=8, JAX_LOG_COMPILES="1")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    summary = json.loads((tmp_path / "depth" / "stage.json").read_text())
    assert summary["steps"] >= 6
    for function in ("train_step", "evaluation_step"):
        assert len(re.findall(rf"Compiling jit\({function}\)", errors)) == 1, errors
    assert Predictions.load(tmp_path / "depth" / "predictions_test.npz").logits.shape[1] == 4
    assert len(json.loads((tmp_path / "run.json").read_text())["devices"]) == 8


def test_ctrl_c_saves_and_leaves_with_130(one_stage, tiny, tmp_path):
    process = start(one_stage, tiny, tmp_path, "--config.training.epochs=200.0")
    metrics = tmp_path / "depth" / "metrics.jsonl"
    for _ in range(6000):
        if metrics.exists() and metrics.stat().st_size > 0:
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("hallujax: stopped in depth at step ")
    assert list((tmp_path / "depth" / "checkpoints" / "latest").glob("[0-9]*"))


def test_a_full_disk_is_one_line(one_stage, tiny, tmp_path):
    """A 64 KiB file system; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        process = start(one_stage, tiny, disk / "run")
        _, errors = process.communicate(timeout=200)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert process.returncode in (3, 5), errors
    lines = errors.strip().splitlines()
    assert lines[-1].startswith("hallujax: ") and "Traceback" not in errors, errors


def test_evaluation_never_reads_the_privileged_modality(tiny, tmp_path, monkeypatch):
    experiment = read_config(get_config(str(tiny.parent)))
    dataset = PreparedDataset.open(tiny)
    rows = split(dataset, "cross_subject")["test"]
    read, seen = dataset.read, set()

    def spy(modality, *arguments):
        seen.add(modality)
        return read(modality, *arguments)

    monkeypatch.setattr(dataset, "read", spy)

    for name in ("rgb", "hallucination", "step4", "admd"):
        method = build_method(experiment.stages[name], len(dataset.classes))
        batch = {"rgb": np.zeros((1, 3, 32, 32, 3), np.float32), "depth": np.zeros((1, 3, 32, 32, 3), np.float32)}

        params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(0))
        evaluator = Evaluator(method, dataset, experiment.data, experiment.transforms, make_mesh())
        assert evaluator.predict(params, batch_stats, rows).logits.shape == (len(rows), 4)
    assert seen == {"rgb"}
