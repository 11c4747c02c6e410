"""Prepared datasets of any size for the benchmarks: pictures neither JPEG nor PNG has too easy, and big indices."""

import json
import shutil
from pathlib import Path

import numpy as np

from data_prep import writer
from hallujax import sealed

NAME, CLASSES = "mocap_rgbd", 4
SUBJECTS = 10  # of which five train, one validates and four test, across subjects


def clip_frames(number: int, length: int, side: int) -> dict[str, np.ndarray]:
    """Moving bands with noise: `rgb` uint8 [T, H, W, 3], `depth` uint16 [T, H, W] millimetres."""
    rng = np.random.default_rng(number)
    bands = np.add.outer(np.arange(side), 2 * np.arange(side)) // 3 + 11 * number
    bands = bands + 5 * np.arange(length)[:, None, None]
    noise = rng.integers(0, 25, (length, side, side, 3), dtype=np.uint8)
    rgb = np.stack([bands, bands * 2, bands * 3], axis=-1).astype(np.uint8) // 2 + noise
    return {"rgb": rgb, "depth": (1500 + bands % 2000 + noise[..., 0]).astype(np.uint16)}


def write_prepared(root: Path, clips: int, length: int, side: int) -> Path:
    """ROOT/mocap_rgbd: so many clips of so many frames, JPEG and 16-bit PNG."""
    target, unfinished = root / NAME, root / f"{NAME}.unfinished"
    modalities = {
        "rgb": writer.Modality("jpeg", (side, side, 3)),
        "depth": writer.Modality("png16", (side, side)),
    }
    index = writer.clip_index(modalities, clips)
    index["clip"] = [f"clip{number:06}" for number in range(clips)]
    index["label"], index["subject"] = np.arange(clips) % CLASSES, np.arange(clips) % SUBJECTS + 1
    for name in modalities:
        index[f"{name}_first"], index[f"{name}_length"] = length * np.arange(clips), length
    named = ((f"clip{number:06}", clip_frames(number, length, side)) for number in range(clips))
    writer.write_shard(unfinished, NAME, modalities, 0, 1, named)
    info = {"classes": [f"class{label}" for label in range(CLASSES)], "frame_size": [side, side]}
    writer.finish(unfinished, target, NAME, modalities, 1, index, info, "Moving bands, for benchmarks.")
    return target


def write_larger_index(dataset: Path, target: Path, clips: int) -> Path:
    """A dataset of so many clips that shares the records of another, over and over: its index alone is larger."""
    shutil.copytree(dataset, target, copy_function=_link)
    index = np.load(dataset / "clips.npy")
    info = sealed.read(dataset / "dataset.json", "")
    (target / "clips.npy").unlink()
    writer.describe(target, info, np.resize(index, clips))
    return target


def frames_of(dataset: Path) -> int:
    """Of each clip."""
    info = json.loads((dataset / "dataset.json").read_text())
    return info["modalities"]["rgb"]["records"] // len(np.load(dataset / "clips.npy", mmap_mode="r"))


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
