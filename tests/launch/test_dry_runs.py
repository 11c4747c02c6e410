"""What each launcher would run, word for word; `REWRITE_GOLDENS=1 pytest tests/launch/test_dry_runs.py` rewrites it."""

import os
import shutil
import subprocess
import sys

import pytest
from launching import HERE, StandIns, checkout, launched

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
            "--setup=mkdir -p ~/runs && gcsfuse 'my bucket' ~/runs",
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


def commands(tool, words):
    """Of the goldens' lines of one tool, one for each different `words` first words, without what it reads."""
    lines = (line for path in sorted((HERE / "goldens").glob("*.sh")) for line in path.read_text().splitlines())
    found = [line.removesuffix(" <<'END'") for line in lines if line.startswith(f"{tool} ")]
    return {" ".join(line.split()[:words]): line for line in found}.values()


def errors(command, **environment):
    done = subprocess.run(
        ["bash", "-c", command],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("gcloud"), reason="the Google Cloud CLI is not installed")
def test_gcloud_itself_knows_every_flag(tmp_path):
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
    lines = commands("gcloud", 5)
    for line in lines:
        said = errors(line, **config)
        assert "active account" in said, f"{line}: {said}"
    assert len(lines) == 6
    assert "unrecognized arguments: --no-such-flag" in errors(f"{line} --no-such-flag", **config)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_itself_knows_every_flag():
    """Without a cluster it stops where it would look for one, on this machine."""
    lines = commands("kubectl", 2)
    for line in lines:
        said = errors(line, KUBECONFIG="/dev/null")
        assert "localhost:8080" in said or "no objects passed" in said, f"{line}: {said}"
    assert len(lines) == 4
    assert "unknown flag: --no-such-flag" in errors(f"{line} --no-such-flag", KUBECONFIG="/dev/null")


@pytest.mark.skipif(not shutil.which("xpk"), reason="xpk is not installed")
def test_xpk_itself_makes_a_jobset_of_it(tmp_path):
    nowhere = {"HOME": str(tmp_path), "TELEMETRY_ENABLED": "false", "HTTPS_PROXY": "http://127.0.0.1:9"}
    for line in commands("xpk", 3):
        said = errors(f"{line} --dry-run --skip-validation", **nowhere)
        assert "Exiting XPK cleanly" in said, f"{line}: {said}"
        if "create" in line:
            assert "exec hallujax train" in said and "google.com/tpu: 4" in said and "maxRestarts: 50" in said
