"""Real `hallujax` processes that are watched, interrupted and started again, and what a run leaves, to compare."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.path import atomicity

from hallujax.training.metrics_log import CLOCK, read_metrics
from hallujax.training.summary import read_summary

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = pathlib.Path(__file__).with_name("two_stages_config.py")
# What two runs may differ in: durations, and the length and checksum of the log that holds them.
TIMES = (*CLOCK, "waited", "input_waited", "peak_memory_mib", "log", "log_digest", "metrics_sha256")


class Victim:
    """A command of hallujax in a process group of its own."""

    def __init__(self, scratch: pathlib.Path, arguments: list[str], environment: Mapping[str, str]):
        self._marks, self._said = scratch / "marks", scratch / "said"
        self._marks.write_text("starting 0")
        program = [sys.executable, str(pathlib.Path(__file__).with_name("victim.py")), str(self._marks)]
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [*program, *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def phase(self) -> tuple[str, int]:
        """What it is doing, and for the how-manieth time."""
        words = self._marks.read_text().split()
        return (words[0], int(words[1])) if len(words) == 2 else ("starting", 0)

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def comes_to(self, condition: Callable[[], bool], seconds: float = 600.0) -> bool:
        """Waits until `condition()`; False if the process ended first."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"the moment never came:\n{self.said}"
            time.sleep(0.001)
        return True

    def comes_to_phase(self, phase: str, times: int) -> bool:
        """Waits until it is in a phase for at least so manieth a time; False if it ended first."""
        return self.comes_to(lambda: (found := self.phase)[0] == phase and found[1] >= times)

    def send(self, number: int) -> None:
        """A signal: SIGKILL to all its processes, others to itself, as schedulers do."""
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self, seconds: float = 600.0) -> int:
        """Its exit code; it is killed if it takes longer."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            raise AssertionError(f"still there after {seconds} s:\n{self.said}") from None

    def orphans(self) -> list[int]:
        """Processes of its group that are still there after five seconds."""
        deadline = time.monotonic() + 5
        while found := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_mine(pid)]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return found

    def _is_mine(self, pid: int) -> bool:
        try:
            state, _, group = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            return False
        return state != "Z" and int(group) == self.process.pid


def train_command(data: pathlib.Path, workdir: pathlib.Path, *flags: str) -> list[str]:
    return ["train", f"--config={CONFIG}:{data}", f"--workdir={workdir}", *flags]


def being_saved(workdir: pathlib.Path) -> set[tuple[str, int]]:
    """Checkpoints that orbax has begun and not finished; a new one of the same name is another."""
    return {(str(path), path.stat().st_ino) for path in workdir.glob(f"*/checkpoints/*/*{atomicity.TMP_DIR_SUFFIX}*")}


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    """Every file's bytes."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def left_by(workdir: pathlib.Path) -> dict[str, object]:
    """All that a finished run left, times apart: parameters, statistics, optimiser states and progress of every
    checkpoint, every array as its bytes; metrics; predictions; stage.json and config.json."""
    left: dict[str, object] = {}
    for stage in sorted(path.parent for path in workdir.glob("*/stage.json")):
        for step in sorted(stage.glob("checkpoints/*/[0-9]*")):
            for item in ("state", "networks"):
                if (step / item).exists():
                    tree = ocp.StandardCheckpointer().restore(step / item)
                    for path, leaf in jax.tree.leaves_with_path(tree):
                        key = f"{stage.name}/{step.parent.name}/{step.name}/{item}{jax.tree_util.keystr(path)}"
                        left[key] = (str(leaf.dtype), np.asarray(leaf).tobytes())
            if (step / "progress").exists():
                progress = json.loads((step / "progress" / "metadata").read_text())
                left[f"{stage.name}/{step.name}/progress"] = _timeless(progress)
        left[f"{stage.name}/metrics"] = [_timeless(line) for line in read_metrics(stage)]
        left[f"{stage.name}/stage.json"] = _timeless(read_summary(stage))
        left[f"{stage.name}/config.json"] = (stage / "config.json").read_bytes()
        for path in sorted(stage.glob("*.npz")):
            with np.load(path) as arrays:
                left |= {f"{stage.name}/{path.name}/{name}": arrays[name].tobytes() for name in arrays}
    return left


def _timeless(entry: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry.items() if key not in TIMES}


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Names of what only one has, or has otherwise."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
