"""One server for all tests of this folder."""

import pathlib
import sys

import pytest

for neighbour in ("deploy", "evaluation"):  # `encoded` and `headless_chromium` are theirs
    sys.path.append(str(pathlib.Path(__file__).parents[1] / neighbour))

from running import serving  # noqa: E402

import hallujax  # noqa: E402

SYSTEM = "Hallucination + RGB (step 4)"


@pytest.fixture(scope="session")
def server(trained, tiny):
    """The tiny table, with its benchmark's clips."""
    limits = {"batch": 4, "upload": 2, "clip": 60, "decode": 60, "decode-memory": 512}
    bounds = [text for name, most in limits.items() for text in (f"--max-{name}", str(most))]
    with serving("--model", trained, "--system", SYSTEM, "--data", tiny.parent, *bounds) as running:
        yield running


@pytest.fixture(scope="session")
def predictor(trained):
    return hallujax.load(trained, SYSTEM)
