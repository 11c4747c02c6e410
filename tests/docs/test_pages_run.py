"""The pages that say so run: every block of theirs, in order, in a copy of the repository, as real processes."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from page import ROOT, patch, script


@pytest.fixture
def checkout(tmp_path):
    """A copy of the sources in which pages may write and patch."""
    for name in ("hallujax", "configs", "data_prep"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(page, folder):
    """Runs a page in `folder`; what it printed is shown if it fails."""
    path = folder / "page.sh"
    path.write_text(script(ROOT / "docs" / page))
    bin_folder = pathlib.Path(sys.executable).parent  # where the console script `hallujax` is
    environment = {**os.environ, "PYTHONPATH": str(folder), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", path], cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{page}:\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def test_the_tutorial(checkout):
    said = run("tutorial.md", checkout)
    assert (checkout / "data/mocap_rgbd/contact_sheet.png").exists()
    assert (checkout / "runs/tutorial/report.html").exists()
    assert '"system": "ADMD two-stream"' in said


@pytest.mark.parametrize("page", ["method", "modality", "dataset"])
def test_the_worked_examples(page, checkout):
    run(f"extend/{page}.md", checkout)


def test_a_patch_fits_in_one_place_or_is_an_error():
    assert patch("a\nb\nc\n", "-a\n+A\n@@\n b\n+B\n") == "A\nb\nB\nc\n"
    for text in ("x\n", "a\na\n"):
        with pytest.raises(ValueError, match=f"fits in {text.count('a')} places"):
            patch(text, "-a\n+A\n")
