"""The conversion on Apache Beam's DirectRunner: the bytes of the engine, and what goes wrong in one line."""

import json

import pytest
from raw_files import moving_square, write_pictures
from summaries import summary

from data_prep import beam, engine, raw
from hallujax.cli import main
from hallujax.errors import DataError, UsageError

pytest.importorskip("apache_beam", reason="Apache Beam is not installed (extra `beam`)")
DIRECT = ("--runner=DirectRunner",)


@pytest.fixture
def tree(tmp_path):
    """Twelve clips in eight shards, one of which is damaged."""
    for number in range(12):
        rgb, depth = moving_square(3, 24, 24, seed=number)
        clip = tmp_path / "raw" / ("jump" if number % 2 else "walk") / f"clip{number:02}"
        write_pictures(clip / "rgb", rgb)
        write_pictures(clip / "depth", depth)
    (clip / "depth/002.png").write_bytes(b"")
    return tmp_path / "raw"


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_same_bytes_as_without_it(tree, tmp_path, capsys):
    expected = raw.prepare("folder", tree, tmp_path / "engine", size=24, workers=1)
    command = ["prepare", "folder", f"--raw={tree}", f"--out={tmp_path}/beam", "--size=24"]
    assert main([*command, "--beam=--runner=DirectRunner"]) == 0
    assert contents(tmp_path / "beam" / "folder") == contents(expected)
    assert summary(tmp_path / "beam") == summary(tmp_path / "engine")
    assert summary(tmp_path / "beam")["jump/clip11"] == ("refused", "002.png: empty file")
    assert sorted(path.name for path in (tmp_path / "beam").iterdir()) == ["folder", "summary.json"]
    assert "12 clips: 11 kept, 0 repaired, 1 refused" in capsys.readouterr().out


def test_it_goes_on_behind_what_the_engine_finished(tree, tmp_path, monkeypatch):
    """A strict run keeps the shards without a refusal; only the other one is written by Beam."""
    with pytest.raises(DataError, match="--strict: 1 of 12"):
        raw.prepare("folder", tree, tmp_path / "out", size=24, workers=1, strict=True)
    written = []
    pipeline = beam._pipeline
    monkeypatch.setattr(beam, "_pipeline", lambda *a: (written.extend(a[2]), pipeline(*a)))
    raw.prepare("folder", tree, tmp_path / "out", size=24, beam_flags=DIRECT)
    assert len(written) == 1
    new = raw.prepare("folder", tree, tmp_path / "new", size=24, workers=1)
    assert contents(tmp_path / "out/folder") == contents(new)


def test_a_failure_is_one_line_and_leaves_no_dataset(tree, tmp_path, capsys, monkeypatch):
    def broken(*arguments):
        raise OSError("the disk is gone")

    monkeypatch.setattr(engine, "leave_receipt", broken)
    command = [
        "prepare",
        "folder",
        f"--raw={tree}",
        f"--out={tmp_path}/out",
        "--size=24",
        "--beam=--runner=DirectRunner",
    ]
    assert main(command) == 3
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("hallujax")]
    assert "Beam gave up: the disk is gone" in line and "start again to go on" in line
    assert not (tmp_path / "out/folder").exists() and not list((tmp_path / "out").rglob("attempts"))


def test_an_attempt_never_shows_half(tmp_path):
    """Two attempts at one shard leave one file, one receipt, and nothing else."""

    def task(folder, shard):
        (folder / "rgb").mkdir()
        (folder / "rgb" / f"{shard}").write_text("whole")
        return [shard]

    def fails(folder, shard):
        (folder / "rgb").mkdir()
        (folder / "rgb" / f"{shard}").write_text("ha")
        raise DataError("gone")

    (tmp_path / "receipts").mkdir()
    assert beam.attempt(3, task, partial=str(tmp_path)) == beam.attempt(3, task, partial=str(tmp_path)) == 3
    with pytest.raises(DataError):
        beam.attempt(4, fails, partial=str(tmp_path))
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {"rgb/3", "receipts/00003.json"}
    assert json.loads((tmp_path / "receipts/00003.json").read_text()) == [3]


@pytest.mark.parametrize("flag", ["--runer=DirectRunner", "fast", "--streaming"])
def test_flags_that_are_none(tree, tmp_path, flag):
    with pytest.raises(UsageError, match="--beam: "):
        raw.prepare("folder", tree, tmp_path / "out", beam_flags=[flag])
