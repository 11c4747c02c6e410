"""A checkout to launch from, and commands of clusters that only seem to be there."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = ("gcloud", "kubectl", "xpk", "docker", "sbatch", "scontrol", "scancel", "srun", "sudo", "systemctl", "python3")


class StandIns:
    """Commands on PATH that stand in for those of clusters.

    Args:
      folder: for them and for what they note.
      script: (pattern, answers): a call whose words match gets the next of the answers, after the last the last again.
        An answer is {"out": text, "code": exit code, "sleep": seconds}. What matches nothing succeeds without a word.
    """

    def __init__(self, folder: pathlib.Path, script: Sequence[tuple[str, list[dict[str, Any]]]] = ()):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "script.json").write_text(json.dumps(list(script)))
        text = f"#!{sys.executable} -ES\n{(HERE / 'stand_in.py').read_text()}"
        for tool in TOOLS:
            (folder / tool).write_text(text)
            (folder / tool).chmod(0o755)

    def calls(self) -> list[dict[str, Any]]:
        """What was called, in order: `words`, the `bytes` it read, a `manifest` given to kubectl."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def lines(self, pattern: str = "") -> list[str]:
        """The calls that contain `pattern`, words joined by blanks."""
        return [line for call in self.calls() if pattern in (line := " ".join(call["words"]))]


def checkout(folder: pathlib.Path, *more: str) -> pathlib.Path:
    """A git repository of what the launchers copy: themselves, and `more` folders."""
    for name in ("launch", *more):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".gitignore").write_text("__pycache__\n")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=all"]):
        subprocess.run([*git, *words], check=True)
    return folder


def start(folder: pathlib.Path, form: str, words: Sequence[str], stand_ins: StandIns | None = None, **environment: str):
    """Starts `python -m launch.FORM WORDS...` in a checkout; returns the process, its output piped."""
    path = f"{stand_ins.folder}:{os.environ['PATH']}" if stand_ins else os.environ["PATH"]
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{form}", *words],
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launched(folder: pathlib.Path, form: str, words: Sequence[str], stand_ins: StandIns | None = None):
    """The same, to its end: exit code, standard output, standard error."""
    process = start(folder, form, words, stand_ins)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Returns when `condition` has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
