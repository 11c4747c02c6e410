"""R13 and R15: the same command twice leaves the same, wherever its files lie."""

import os
import pathlib
import shutil
import subprocess

import pytest
from victims import Victim, contents, differences, left_by, train_command

ODD = {
    "spaces": "a run with  spaces",
    "unicode": "läuft-走る-\N{FENCER}",
    "long": "l" * 200,
    "quotes": 'it\'s "quoted" $HOME & (more)',
}


def run_in(folder: pathlib.Path, data: pathlib.Path, scratch: pathlib.Path, environment) -> dict[str, object]:
    victim = Victim(scratch, train_command(data, folder), environment)
    assert victim.end() == 0, victim.said
    return left_by(folder)


@pytest.fixture
def read_only(tiny, tmp_path):
    """The data in a folder that cannot be written; for root that takes a mount."""
    data = tmp_path / "data"
    shutil.copytree(tiny.parent, data)
    if os.geteuid():
        for path in [data, *data.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield data
        for path in [data, *data.rglob("*")]:
            path.chmod(0o755)
        return
    bound = subprocess.run(["mount", "--bind", "-o", "ro", str(data), str(data)], capture_output=True)
    if bound.returncode:
        pytest.skip("may not mount here, and nothing is read-only to root otherwise")
    yield data
    subprocess.run(["umount", str(data)], check=True)


def test_a_second_run_from_read_only_data_in_an_odd_place_is_the_same(
    read_only, straight, environment, tmp_path, figures
):
    with pytest.raises(OSError):
        (read_only / "touched").touch()
    folder = tmp_path / "it's a  «run» 走る" / ("l" * 200)
    left = run_in(folder, read_only, tmp_path, environment)
    assert differences(left, straight[1]) == []
    figures(
        "two runs leave the same, the second from read-only data in a folder of 200 letters, spaces and Unicode",
        runs=2,
        arrays_and_files_compared=len(left),
        different=0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_every_odd_place(tiny, straight, environment, tmp_path, figures, name):
    """Data and runs, prepared and trained there."""
    folder = tmp_path / ODD[name]
    victim = Victim(tmp_path, ["prepare", "mocap_rgbd", "--preset=tiny", f"--out={folder}", "--workers=2"], environment)
    assert victim.end() == 0, victim.said
    assert contents(folder / "mocap_rgbd") == contents(tiny)
    assert differences(run_in(folder / "run", folder, tmp_path, environment), straight[1]) == []
    figures("prepared and trained in an odd place, all the same", different=0)
