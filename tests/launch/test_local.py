"""`python -m launch.local`: what it does with the processes it starts, here of a small program of these tests."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest
from launching import ROOT, wait_for

PROGRAM = """
import json, os, pathlib, signal, sys, time

here = pathlib.Path(__file__).parent
number = sys.argv[sys.argv.index("--process") + 1] if "--process" in sys.argv else "0"
starts = here / f"starts{number}"
turn = len(starts.read_text().splitlines()) if starts.exists() else 0
plan = json.loads((here / "plan.json").read_text())[int(number)]
action = plan[min(turn, len(plan) - 1)]


def leave(signum, frame):
    with open(here / "terms", "a") as log:
        print(number, file=log)
    if action != "deaf":
        sys.exit(143)


signal.signal(signal.SIGTERM, leave)
(here / f"number{number}").write_text(str(os.getpid()))
with open(starts, "a") as log:
    print(*sys.argv[1:], file=log)
print("here is", number, flush=True)
if action in ("waits", "deaf"):
    while True:
        time.sleep(0.02)
if action == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(action)
"""


class Local:
    """A launch of processes that do, start by start, what `plan[process]` says: exit codes, waits, deaf, killed."""

    def __init__(self, folder: pathlib.Path, plan, *flags: str):
        self.folder = folder / "hallujax" / "cli"
        self.folder.mkdir(parents=True)
        (folder / "hallujax" / "__init__.py").touch()
        (self.folder / "__init__.py").touch()
        (self.folder / "__main__.py").write_text(PROGRAM)
        (self.folder / "plan.json").write_text(json.dumps(plan))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launch.local", f"--processes={len(plan)}", *flags, "--", "train", "a b"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def starts(self, number: int) -> list[str]:
        path = self.folder / f"starts{number}"
        return path.read_text().splitlines() if path.exists() else []

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def test_all_are_started_again_after_a_preemption_or_a_crash(tmp_path):
    run = Local(tmp_path, [[143, 42, 0], [143, "killed", 0]])
    code, out, err = run.end()
    assert code == 0, err
    assert [len(run.starts(i)) for i in (0, 1)] == [3, 3]
    assert sorted(out.splitlines()) == ["[0] here is 0"] * 3 + ["[1] here is 1"] * 3
    ports = [re.search(r"--coordinator 127.0.0.1:(\d+)", line)[1] for line in run.starts(0)]
    assert [re.search(r":(\d+)", line)[1] for line in run.starts(1)] == ports


def test_a_failure_is_not_repeated_and_the_others_are_not_left_behind(tmp_path):
    run = Local(tmp_path, [["waits"], [3]], "--grace=0.3")
    code, _, _ = run.end()
    assert code == 3
    assert [len(run.starts(i)) for i in (0, 1)] == [1, 1]


def test_restarts_come_to_an_end(tmp_path):
    run = Local(tmp_path, [[139]], "--max-restarts=2")
    code, _, err = run.end()
    assert code == 139 and len(run.starts(0)) == 3
    assert "restart 2 of 2" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_process_once(tmp_path, number):
    run = Local(tmp_path, [["waits"], ["waits"]])
    wait_for(lambda: run.starts(0) and run.starts(1))
    run.process.send_signal(number)
    code, _, err = run.end()
    assert code == 128 + number and "stopping" in err
    assert sorted((run.folder / "terms").read_text().split()) == ["0", "1"]


def test_who_does_not_leave_is_killed(tmp_path):
    run = Local(tmp_path, [["deaf"]], "--grace=0.3")
    wait_for(lambda: run.starts(0))
    run.process.terminate()
    code, _, _ = run.end()
    assert code == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((run.folder / "number0").read_text()), 0)
