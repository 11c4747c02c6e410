"""What each launcher would run, word for word. `REWRITE_GOLDENS=1 pytest tests/launch/test_dry_runs.py` writes it anew."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from launching import HERE, ROOT, StandIns, checkout, launched

JOB = ["train", "--config=configs/admd.py:mocap_rgbd,cross_subject", "--workdir=/runs/a run"]  # a blank to be quoted
GOOGLE = ["--name=admd", "--project=my-project", "--zone=us-east5-b"]
IMAGE = ["--image=registry/hallujax"]
CLUSTER = ["--cluster=my-cluster"]
GKE = [*GOOGLE, *IMAGE, *CLUSTER, "--location=us-east5"]
FORMS = {
    "local_one_gpu": ("local", ["--gpus=0"]),
    "local_a_process_a_gpu": ("local", ["--processes=2", "--gpus=0,1,2,3", "--port=8476"]),
    "local_two_cpu_processes": ("local", ["--processes=2", "--cpu-devices=2", "--port=8476"]),
    "slurm": ("gpu.slurm", ["--name=admd", "--folder=/home/me/a folder", "--nodes=2", "--sbatch=--partition=gpu"]),
    "slurm_container": ("gpu.slurm", ["--name=admd", "--folder=/f", "--python=apptainer exec --nv i.sif python3"]),
    "gke": ("tpu.gke", [*GKE, "--tpu=tpu-v6e-slice", "--topology=4x4"]),
    "gke_spot_slices": (
        "tpu.gke",
        [*GKE, "--tpu=tpu-v5p-slice", "--topology=2x2x4", "--slices=2", "--spot", "--claim=runs=/runs", "--built=r1"],
    ),
    "xpk": ("tpu.xpk", [*GOOGLE, *IMAGE, *CLUSTER, "--tpu-type=v6e-16", "--storage=runs"]),
    "queued": (
        "tpu.queued",
        [
            *GOOGLE,
            "--accelerator-type=v6e-16",
            "--runtime-version=v2-alpha-tpuv6e",
            "--create=--spot",
            "--setup=mkdir -p runs && gcsfuse 'my bucket' runs",
        ],
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("checkout"))


@pytest.mark.parametrize("name", FORMS)
def test_prints_what_it_would_run_and_runs_nothing(name, folder, tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # of the suite
    form, words = FORMS[name]
    stand_ins = StandIns(tmp_path / "bin")
    code, out, err = launched(folder, form, [*words, "--dry-run", "--", *JOB], stand_ins)
    assert code == 0, err
    assert not stand_ins.calls()
    commit = subprocess.check_output(["git", "-C", folder, "rev-parse", "--short=12", "HEAD"], text=True).strip()
    out = out.replace(commit, "REVISION").replace(sys.executable, "python").replace(str(folder), "CHECKOUT")
    golden = HERE / "goldens" / f"{name}.sh"
    if "REWRITE_GOLDENS" in os.environ:
        golden.write_text(out)
    assert out == golden.read_text()
    subprocess.run(["bash", "-n", golden], check=True)


def commands(tool):
    """The golden lines of one tool, and as many words as `bash` makes of them."""
    lines = (line for path in sorted((HERE / "goldens").glob("*.sh")) for line in path.read_text().splitlines())
    return sorted({re.sub(r" <<'END'$| \|.*", "", line) for line in lines if line.startswith(f"{tool} ")})


@pytest.mark.skipif(not shutil.which("gcloud"), reason="the Google Cloud CLI is not installed")
@pytest.mark.parametrize("command", commands("gcloud"), ids=lambda line: " ".join(line.split()[1:5]))
def test_gcloud_itself_knows_every_flag(command, tmp_path):
    """Without an account it parses the whole command line first, and only then asks who you are."""
    config = {
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_PROXY_TYPE": "http",  # nowhere, should it ever try to reach the network
        "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
        "CLOUDSDK_PROXY_PORT": "9",
    }
    done = subprocess.run(["bash", "-c", command], env=os.environ | config, capture_output=True, text=True, timeout=60)
    assert "active account" in done.stderr, done.stderr
    wrong = subprocess.run(["bash", "-c", f"{command} --no-such-flag"], env=os.environ | config, capture_output=True, text=True)
    assert "unrecognized arguments" in wrong.stderr
