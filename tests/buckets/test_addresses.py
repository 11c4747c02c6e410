"""Addresses on the command line: what is wrong with one is said in a line."""

import pathlib
import subprocess
import sys

import pytest

from hallujax import paths
from hallujax.cli import main
from hallujax.errors import DataError, UsageError
from hallujax.training.tensorboard import summary_writer

ROOT = pathlib.Path(__file__).parents[2]
# An installation without the extra: a finder that sees everything else.
WITHOUT = """
import sys
class Without:
    @staticmethod
    def find_spec(name, *rest):
        found = (finder.find_spec(name, *rest) for finder in finders)
        return None if name.partition(".")[0] == "gcsfs" else next(filter(None, found), None)
finders, sys.meta_path = sys.meta_path, [Without]
from hallujax.cli import entry
entry()
"""


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_folders_stay_what_they_are(tmp_path):
    assert type(paths.as_path(tmp_path)) is type(paths.as_path("runs/a")) is type(tmp_path)
    assert paths.as_path("runs/a") == pathlib.Path("runs/a")


def test_addresses_of_other_kinds(capsys):
    for place in ("s3://bucket/run", "https://host/run", "gs://", "gs:///run"):
        with pytest.raises(UsageError, match="neither a folder nor gs://BUCKET/FOLDER"):
            paths.as_path(place)
    assert "s3://bucket/run is neither" in refused(capsys, "train", "--workdir=s3://bucket/run")
    assert "gs://bucket/data is an address" in refused(capsys, "prepare", "mocap_rgbd", "--out=gs://bucket/data")


def test_a_bucket_that_is_not_there_is_one_line(store, capsys):
    for words in (("train", "--workdir=gs://nowhere/run"), ("predict", "--model=gs://nowhere/run", "a.mp4")):
        assert main(words) == 2
        assert capsys.readouterr().err == "hallujax: there is no bucket gs://nowhere, or no right to see it\n"
    with pytest.raises(DataError, match=r"gs://nowhere/run/run\.json cannot be written"):
        paths.write(paths.as_path("gs://nowhere/run/run.json"), "{}")
    assert "nowhere" not in store.buckets


def test_a_bucket_that_one_may_not_see_is_one_line(store, capsys):
    store.refused.add("secret")
    assert main(["evaluate", "--workdir=gs://secret/run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gs://secret cannot be reached (Forbidden" in line and "GOOGLE_APPLICATION_CREDENTIALS" in line


def test_without_the_extra_it_is_one_line():
    command = [sys.executable, "-c", WITHOUT, "report", "--runs=gs://bucket/run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.endswith("gs:// needs gcsfs: pip install 'hallujax[gcs]'\n") and "Traceback" not in done.stderr


def test_no_run_in_a_bucket(store, capsys):
    assert main(["report", "--runs=gs://bucket/nothing"]) == 2
    assert "no run folder at gs://bucket/nothing" in capsys.readouterr().err
    assert main(["evaluate", "--workdir=gs://bucket/nothing"]) == 2
    assert "gs://bucket/nothing is no workdir" in capsys.readouterr().err


def test_curves_wait_for_a_bucket_that_does_not_answer(store):
    """More of them than tensorboardX's queue holds: the training goes on, and they are put there when it answers."""
    board = summary_writer(paths.as_path("gs://later/run"), purge_step=0)
    for step in range(30):
        board.add_scalar("loss", 1.0, step)
    board.flush()
    store.buckets["later"] = {}
    board.add_scalar("loss", 2.0, 30)
    board.close()
    (events,) = store.buckets["later"].values()
    assert events.content.count(b"loss") == 31
