"""What the fault injection shares: one run that is left alone, and a file that collects the figures."""

import collections
import datetime
import json
import os
import pathlib
import platform
import sys
import time

import pytest
from filelock import FileLock
from victims import ROOT, Victim, left_by, train_command

# Writers of raw files, and of weights.
sys.path += [str(ROOT / "tests" / "data"), str(ROOT / "tests" / "models")]

FIGURES = "HALLUJAX_RELIABILITY"  # where the figures go; `reports/reliability.json` if it does not say


@pytest.fixture(scope="session")
def environment():
    """Of the victims: a start costs the imports, compiled programs are kept, all of them."""
    return {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="session")
def straight(tiny, tmp_path_factory, environment):
    """(workdir, what it left) of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    victim = Victim(folder, train_command(tiny.parent, folder / "run"), environment)
    assert victim.end() == 0, victim.said
    return folder / "run", left_by(folder / "run")


@pytest.fixture
def figures(request):
    """`figures(target, **numbers)` writes what a test has found, under its name, beside what made it."""
    started = time.monotonic()

    def write(target: str, **numbers) -> None:
        path = pathlib.Path(os.environ.get(FIGURES) or ROOT / "reports" / "reliability.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {
            key: dict(value) if isinstance(value, collections.Counter) else value for key, value in numbers.items()
        }
        figure = {
            "target": target,
            **plain,
            "command": f"pytest {'-m slow ' if request.node.get_closest_marker('slow') else ''}"
            f"{pathlib.Path(request.node.path).relative_to(ROOT)} -k '{request.node.originalname}'",
            "date": datetime.date.today().isoformat(),
            "seconds": round(time.monotonic() - started),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        }
        with FileLock(path.with_suffix(".lock")):
            found = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(found | {request.node.name: figure}, indent=1) + "\n")

    return write
