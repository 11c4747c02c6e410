"""The files that are not Python, by the linters of their kind."""

import json
import re
import subprocess
import sysconfig
import tomllib

import pytest
from launching import ROOT

SCRIPTS = [ROOT / "launch" / "gpu" / "train.sbatch", ROOT / "launch" / "tpu" / "worker.sh"]
DOCKERFILE = ROOT / "launch" / "Dockerfile"


def linter(name):
    return f"{sysconfig.get_path('scripts')}/{name}"


def test_every_script_is_looked_at():
    found = [path for path in (ROOT / "launch").rglob("*") if path.is_file() and path.read_bytes()[:2] == b"#!"]
    assert sorted(found) == sorted(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script):
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run([linter("shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_hadolint():
    done = subprocess.run([linter("hadolint"), "--failure-threshold=info", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_passes_signals_on_and_is_nobody():
    """What hadolint does not ask: a pinned patch version, no root, an entry point without a shell."""
    text = DOCKERFILE.read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000"]
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    assert json.loads(entry) == ["tini", "--", "hallujax"]
    assert not re.search(r"^ADD ", text, re.MULTILINE)


def test_the_extras_that_are_installed_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [DOCKERFILE, *SCRIPTS, *(ROOT / "launch").rglob("*.py")]
    wanted = {
        extra for path in files for extra in re.findall(r"\bvideo,(?:gcs,)?(cuda\w+|tpu)\b[\"\]]", path.read_text())
    }
    assert wanted == {"cuda12", "tpu"} and wanted | {"video", "gcs"} <= project["optional-dependencies"].keys()
