"""Real processes that train: two on this machine, and two that the script for SLURM starts on what seems a cluster."""

import json
import os
import signal
import sys

import pytest
from launching import HERE, ROOT, checkout, start, wait_for

CONFIG = "--config=tests/data/one_stage_config.py:mocap_rgbd,cross_subject"


def trained(workdir):
    """What a finished run says of itself."""
    assert (workdir / "depth" / "stage.json").exists()
    return json.loads((workdir / "run.json").read_text())


def test_two_processes_on_this_machine(tiny, tmp_path):
    workdir = tmp_path / "run"
    job = ["train", CONFIG, f"--config.data.directory={tiny.parent}", f"--workdir={workdir}"]
    process = start(ROOT, "local", ["--processes=2", "--cpu-devices=2", "--", *job], PYTHONPATH=str(ROOT))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert len(trained(workdir)["devices"]) == 4
    assert "[0] " in out


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_slurm_stops_requeues_and_finishes_the_job(tiny, tmp_path):
    """From the login node to the end: jax reads SLURM's environment; SIGTERM after some steps; started again."""
    cluster, folder, workdir = tmp_path / "bin", tmp_path / "a folder", tmp_path / "run"
    cluster.mkdir()
    for tool in ("sbatch", "srun", "scontrol", "scancel"):
        text = (HERE / "slurm_stand_in.py").read_text()
        (cluster / tool).write_text(f"#!{sys.executable}\n{text}")
        (cluster / tool).chmod(0o755)
    words = ["--name=run", f"--folder={folder}", "--gpus-per-node=2", "--poll=0.2", f"--python={sys.executable}"]
    job = ["train", CONFIG, f"--config.data.directory={tiny.parent}", f"--workdir={workdir}"]
    more = ["--config.training.epochs=20.0", "--config.checkpoint_every=5", "--config.log_every=1"]
    folder_of_code = checkout(tmp_path / "checkout", "hallujax", "configs", "data_prep", "tests")
    environment = {"PATH": f"{cluster}:{os.environ['PATH']}", "JAX_PLATFORMS": "cpu"}
    process = start(folder_of_code, "gpu.slurm", [*words, "--", *job, *more], **environment)
    metrics = workdir / "depth" / "metrics.jsonl"
    wait_for(lambda: process.poll() is not None or lines(metrics) > 6, 300)
    state = json.loads((cluster / "job.json").read_text())
    for task in state["tasks"]:  # as --signal=TERM@120 does
        os.kill(task, signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "exit code 143; requeued, restart 1 of 50" in out
    assert json.loads((cluster / "job.json").read_text())["restarts"] == 1
    (copy,) = (folder / "code").iterdir()
    run = trained(workdir)
    assert len(run["devices"]) == 2 and run["revision"] == copy.name
