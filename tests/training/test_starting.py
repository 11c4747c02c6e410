"""What a start costs, without a clock: what is imported, traced and compiled until the first step is done."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Each would take more time than all of hallujax's own modules, and nothing in a training asks for them.
UNWANTED = ("torch", "tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "scipy.stats", "av", "cv2", "jinja2")
PROGRAMS = ("train_step", "_initialize_one")  # of any size: they must come from the cache, and be traced once


def start(data, folder, name):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # how long it takes must not decide
    }
    script = pathlib.Path(__file__).with_name("starting.py")
    command = [sys.executable, str(script), str(data), str(folder / name)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def starts(tiny, tmp_path_factory):
    """A start with an empty compilation cache, and one with what that left."""
    folder = tmp_path_factory.mktemp("starts")
    return [start(tiny.parent, folder, name) for name in ("cold", "warm")]


def test_nothing_is_imported_that_training_does_not_need(starts):
    assert not set(UNWANTED) & set(starts[0]["modules"])


def test_programs_are_traced_once_and_come_from_the_cache(starts):
    cold, warm = starts
    for program in PROGRAMS:
        assert warm["traced"].count(program) == 1
    assert warm["compile_requests_use_cache"] == warm["cache_hits"] == cold["compile_requests_use_cache"] <= 7
    assert cold["cache_hits"] == 0


def test_what_stays_is_not_searched_for_garbage(starts):
    """All of it was, five times, before imports and traces were left alone."""
    assert starts[1]["searched"] <= 1
