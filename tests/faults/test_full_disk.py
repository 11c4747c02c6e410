"""R5: a disk that fills up is one line; what is finished is kept, and with room again the same command goes on."""

import pathlib
import subprocess

import numpy as np
import pytest
from victims import Victim, contents, differences, left_by, train_command

KIB = 2**10


@pytest.fixture
def disk(tmp_path):
    """A file system of 16 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here: that needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: pathlib.Path, leave: int) -> pathlib.Path:
    """Takes all room but `leave` bytes."""
    ballast = disk / "ballast"
    found = subprocess.run(["stat", "-f", "-c", "%a %S", str(disk)], capture_output=True, text=True, check=True)
    blocks, size = map(int, found.stdout.split())
    with ballast.open("wb") as file:
        for _ in range(max(0, blocks * size - leave) // (4 * KIB)):
            file.write(bytes(4 * KIB))
    return ballast


def one_line(said: str) -> str:
    """The line for people, after which nothing comes."""
    assert "Traceback" not in said, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("hallujax: "), said
    return line


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_training(tiny, straight, environment, disk, tmp_path, figures, times):
    """Full at a drawn moment of saving, with nothing, little or almost enough room left for a checkpoint."""
    rng, lines = np.random.default_rng(times), []
    for number in range(times):
        workdir = disk / f"run{number}"
        victim = Victim(tmp_path, train_command(tiny.parent, workdir), environment)
        nth = int(rng.integers(2, 7))
        assert victim.comes_to_phase("saving", nth), victim.said
        ballast = fill(disk, int(rng.integers(0, 1400)) * KIB)
        assert victim.end() in (3, 5), victim.said
        lines.append(one_line(victim.said))
        assert not victim.orphans()
        assert any(workdir.glob("*/checkpoints/latest/[0-9]*/MANIFEST.json"))
        ballast.unlink()
        again = Victim(tmp_path, train_command(tiny.parent, workdir), environment)
        assert again.end() == 0, again.said
        assert differences(left_by(workdir), straight[1]) == []
        subprocess.run(["rm", "-r", str(workdir)], check=True)
    figures(
        "a full disk is one line, the run goes on when there is room and ends bit for bit the same",
        times=times,
        one_line=len(lines),
        continued_bit_for_bit=times,
        said=sorted({line.split(":")[-1].strip()[:80] for line in lines}),
    )


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 5])
def test_preparing(tiny, environment, disk, tmp_path, figures, times):
    rng, wanted = np.random.default_rng(times), contents(tiny)
    size = sum(map(len, wanted.values()))
    for number in range(times):
        ballast = fill(disk, int(rng.uniform(0.05, 0.9) * size))
        command = ["prepare", "mocap_rgbd", "--preset=tiny", f"--out={disk / str(number)}", "--workers=2"]
        victim = Victim(tmp_path, command, environment)
        assert victim.end() == 3, victim.said
        one_line(victim.said)
        assert not victim.orphans() and not (disk / str(number) / "mocap_rgbd").exists()
        ballast.unlink()
        again = Victim(tmp_path, command, environment)
        assert again.end() == 0, again.said
        assert contents(disk / str(number) / "mocap_rgbd") == wanted
        subprocess.run(["rm", "-r", str(disk / str(number))], check=True)
    figures("a full disk while preparing is one line; with room the bytes are the same", times=times)
