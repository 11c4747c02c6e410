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
    limits = (
        "--max-batch",
        "4",
        "--max-upload",
        "2",
        "--max-clip",
        "60",
        "--max-decode",
        "60",
        "--max-decode-memory",
        "512",
    )
    with serving("--model", trained, "--system", SYSTEM, "--data", tiny.parent, *limits) as running:
        yield running


@pytest.fixture(scope="session")
def predictor(trained):
    return hallujax.load(trained, SYSTEM)
