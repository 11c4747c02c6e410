"""What all raw trees have in common: killed and gone on with, and splits larger than TFDS writes without TensorFlow."""

import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from own_builder import Frames
from raw_files import moving_square, write_pictures
from tensorflow_datasets.core import shuffle

from data_prep import raw
from hallujax.data.records import PreparedDataset

ROOT = pathlib.Path(__file__).parents[2]


def write_tree(root, clips=16, frames=4, side=64):
    for number in range(clips):
        rgb, depth = moving_square(frames, side, side, seed=number)
        noise = np.random.default_rng(number).integers(0, 30, rgb.shape, dtype=np.uint8)
        write_pictures(root / f"class{number % 2}" / f"clip{number:02}" / "rgb", rgb + noise)
        write_pictures(root / f"class{number % 2}" / f"clip{number:02}" / "depth", depth)
    return root


def contents(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers' files as they appear")
def test_a_killed_conversion_goes_on_and_redoes_nothing(tmp_path):
    """SIGKILL in the middle: no dataset is seen, the receipts that are there stay, the bytes are those of one go."""
    tree, out = write_tree(tmp_path / "raw", clips=32, frames=20, side=128), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "hallujax.cli",
        "prepare",
        "folder",
        f"--raw={tree}",
        f"--out={out}",
        "--workers=1",
    ]
    process = subprocess.Popen([*command, "--size=128"], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (receipts := list(out.rglob("receipts/*.json"))) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert receipts and not (out / "folder").exists() and not (out / "summary.json").exists()
    (partial,) = out.glob(".folder-*.partial")
    written = {path: os.stat(path).st_mtime_ns for path in partial.rglob("receipts/*.json")}
    assert 0 < len(written) < 8
    kept = {}

    def look(directory, job, shards, workers):
        kept.update({path: os.stat(path).st_mtime_ns for path in directory.rglob("receipts/*.json")})
        assert len(shards) == 8 - len(written)
        yield from raw.convert.engine.processes(directory, job, shards, workers)

    found = raw.convert.convert(raw.SCANS["folder"](tree, size=128), out, workers=1, run=look)
    assert kept == written
    whole = raw.prepare("folder", tree, tmp_path / "whole", size=128, workers=1)
    assert contents(found) == contents(whole)
    assert sorted(path.name for path in out.iterdir()) == ["folder", "summary.json"]


def test_splits_above_the_builders_limit(tmp_path, monkeypatch):
    """TFDS holds a split in memory up to this size (1 GiB) and needs TensorFlow beyond it; a conversion does not."""
    tree = write_tree(tmp_path / "raw")
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 20_000)
    if importlib.util.find_spec("tensorflow") is None:
        with pytest.raises(ModuleNotFoundError, match="tensorflow"):
            Frames(tree, data_dir=tmp_path / "tfds").download_and_prepare()
    out = raw.prepare("folder", tree, tmp_path / "out", size=64, workers=1)
    info = PreparedDataset.open(out).info["modalities"]["rgb"]
    assert sum(shard["bytes"] for shard in info["shards"]) > 3 * shuffle.MAX_MEM_BUFFER_SIZE
    source = tfds.builder_from_directory(out / "rgb" / "1.0.0").as_data_source(split="frames")
    assert len(source) == 16 * 4
    frame = source[37]
    assert frame["clip"] == b"class1/clip03" and frame["frame"] == 1 and frame["rgb"].shape == (64, 64, 3)


def test_the_builder_is_a_fair_peer(tmp_path):
    """Below its limit TFDS's builder stores the same frames."""
    tree = write_tree(tmp_path / "raw", clips=2)
    builder = Frames(tree, data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    assert len(builder.as_data_source(split="frames")) == 8
