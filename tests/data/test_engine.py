"""The parallel engine: resumed without redoing, atomic, and stopped early where it cannot succeed."""

import functools
import json
import os
import pathlib

import numpy as np
import pytest

from data_prep import engine, writer
from hallujax.errors import DataError, UsageError

MODALITIES = {"number": writer.Modality("floats", (1,))}
SHARDS = 5


def write_numbers(directory, shard, *, broken, log):
    """Shard i holds the number i, unless it is the broken one."""
    with open(log, "a") as file:
        file.write(f"{shard}\n")
    if shard == broken.get("raises"):
        raise DataError(f"shard {shard} is broken")
    if shard == broken.get("dies"):
        os._exit(1)
    clips = [(f"clip{shard}", {"number": np.full((2, 1), shard, np.float32)})]
    writer.write_shard(directory, "toy", MODALITIES, shard, SHARDS, clips)
    return {"clip": f"clip{shard}"}


def toy(tmp_path, *, version=1, estimated_bytes=0, **broken):
    def finish(directory, target, results):
        engine.clean(directory)
        (directory / "dataset.json").write_text(json.dumps({"identity": {"version": version}, "results": results}))
        os.replace(directory, target)

    task = functools.partial(write_numbers, broken=broken, log=str(tmp_path / "log"))
    return engine.Job(
        name="toy",
        title=f"toy {version}",
        identity={"version": version},
        modalities=MODALITIES,
        tasks=[task] * SHARDS,
        clips=[1] * SHARDS,
        estimated_bytes=estimated_bytes,
        finish=finish,
    )


def written(tmp_path):
    return [int(line) for line in (tmp_path / "log").read_text().split()]


def contents(directory: pathlib.Path):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_the_same_bytes_for_any_number_of_workers(tmp_path):
    one = engine.write(tmp_path / "one", toy(tmp_path), workers=1, progress=False)
    two = engine.write(tmp_path / "two", toy(tmp_path), workers=2, progress=False)
    assert contents(one) == contents(two) and len(contents(one)) == SHARDS + 1
    results = json.loads((one / "dataset.json").read_text())["results"]
    assert [result["clip"] for result in results] == [f"clip{shard}" for shard in range(SHARDS)]


def test_goes_on_without_redoing_what_is_finished(tmp_path):
    """One worker takes the shards in order, so those before the broken one are finished."""
    out = tmp_path / "out"
    with pytest.raises(DataError, match="broken"):
        engine.write(out, toy(tmp_path, raises=3), workers=1, progress=False)
    assert not (out / "toy").exists() and not [path for path in out.rglob("*.partial") if path.is_file()]
    assert written(tmp_path) == [0, 1, 2, 3]
    engine.write(out, toy(tmp_path), workers=1, progress=False)
    assert written(tmp_path) == [0, 1, 2, 3, 3, 4]
    assert [path.name for path in out.iterdir()] == ["toy"]
    assert engine.is_complete(out, toy(tmp_path))
    with pytest.raises(UsageError, match="something else than toy 2"):
        engine.is_complete(out, toy(tmp_path, version=2))


def test_a_worker_that_dies_is_one_error_and_costs_no_finished_shard(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="a worker process died"):
        engine.write(out, toy(tmp_path, dies=3), workers=2, progress=False)
    finished = {int(receipt.stem) for receipt in out.rglob("receipts/*.json")}
    before = len(written(tmp_path))
    engine.write(out, toy(tmp_path), workers=1, progress=False)
    assert written(tmp_path)[before:] == sorted(set(range(SHARDS)) - finished)


def test_a_shard_can_be_forgotten(tmp_path):
    with pytest.raises(DataError):
        engine.write(tmp_path / "out", toy(tmp_path, raises=4), workers=1, progress=False)
    engine.forget(tmp_path / "out", toy(tmp_path), [1])
    engine.write(tmp_path / "out", toy(tmp_path), workers=1, progress=False)
    assert written(tmp_path) == [0, 1, 2, 3, 4, 1, 4]


def test_space_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match=r"GiB free, about 931322\.6 GiB are needed"):
        engine.write(tmp_path / "out", toy(tmp_path, estimated_bytes=10**15), progress=False)
    assert not (tmp_path / "log").exists()


def test_progress_says_how_long_the_rest_takes(tmp_path, capsys):
    engine.write(tmp_path / "out", toy(tmp_path), workers=1)
    assert "100%" in capsys.readouterr().out
