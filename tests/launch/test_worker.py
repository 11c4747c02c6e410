"""`worker.sh`, which runs on TPU VMs: systemd is a stand-in, log and process are real."""

import os
import subprocess
import threading

import pytest
from launching import ROOT, StandIns

WORKER = ROOT / "launch" / "tpu" / "worker.sh"


def worker(tmp_path, script, *words):
    stand_ins = StandIns(tmp_path / "bin", script)
    environment = {"PATH": f"{stand_ins.folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", WORKER, *words], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    return done, stand_ins


def test_install_makes_an_environment_and_again_only_updates_it(tmp_path):
    done, stand_ins = worker(tmp_path, [], "install")
    assert done.returncode == 0, done.stderr
    assert [line.split()[3] for line in stand_ins.lines("python3")] == ["install", "venv", "pip"]
    assert stand_ins.calls()[-1]["words"][-1] == f"{ROOT}[video,gcs,tpu]"
    (tmp_path / "environment").mkdir()
    done, stand_ins = worker(tmp_path, [], "install")
    assert len(stand_ins.lines(" venv ")) == 1  # the first


def test_start_makes_a_unit_of_the_job(tmp_path):
    (tmp_path / "hallujax.log").write_text("of an earlier start")
    failing = [["systemctl", [{"code": 5}]]]  # there is none to stop
    done, stand_ins = worker(tmp_path, failing, "start", "abc", "train", "--distributed", "--workdir=/a b")
    assert done.returncode == 0, done.stderr
    words = stand_ins.calls()[-1]["words"]
    python = words.index(f"{tmp_path}/environment/bin/python")
    assert words[:2] == ["sudo", "systemd-run"] and "--unit=hallujax" in words[:python]
    assert words[python + 1 :] == ["-m", "hallujax.cli", "train", "--distributed", "--workdir=/a b"]
    assert {"--setenv=HALLUJAX_REVISION=abc", f"--working-directory={ROOT}"} <= set(words)
    assert not (tmp_path / "hallujax.log").exists()


@pytest.mark.parametrize("how, status, code", [("1", "0", 0), ("1", "143", 143), ("1", "3", 3), ("2", "9", 137)])
def test_watch_prints_the_log_and_returns_the_code(tmp_path, how, status, code):
    """Exited (1) or killed by a signal (2), as systemd numbers them."""
    log = tmp_path / "hallujax.log"
    job = subprocess.Popen(["bash", "-c", f"echo first > {log}; sleep 1; echo last >> {log}"])
    script = [
        ["MainPID", [{"out": str(job.pid)}]],
        ["SubState", [{"out": "running"}, {"out": "exited"}]],
        ["ExecMainStatus", [{"out": status}]],
        ["ExecMainCode", [{"out": how}]],
    ]
    threading.Thread(target=job.wait).start()  # else its number stays taken
    done, _ = worker(tmp_path, script, "watch")
    assert done.returncode == code, done.stderr
    assert done.stdout.split() == ["first", "last"]


def test_watch_after_the_end(tmp_path):
    (tmp_path / "hallujax.log").write_text("all\n")
    script = [["MainPID", [{"out": "0"}]], ["ExecMainStatus", [{"out": "42"}]], ["ExecMainCode", [{"out": "1"}]]]
    done, _ = worker(tmp_path, script, "watch")
    assert done.returncode == 42 and done.stdout == "all\n"
