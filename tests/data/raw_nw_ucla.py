"""Writes clips of Northwestern-UCLA in the format of the set, its oddities included."""

import pathlib

import numpy as np
from PIL import Image
from raw_files import moving_square


def skeleton_text(joints: np.ndarray, first: int = 1) -> str:
    """`joints` `[n, 4]`: x, y, z, state."""
    lines = [",".join([*(f"{value:.6g}" for value in joint[:3]), str(int(joint[3]))]) for joint in joints]
    return "\n".join([str(first), *lines]) + "\n"


def joints_at(number: int) -> np.ndarray:
    """`[20, 4]`, different in every frame."""
    joints = np.random.default_rng(number).uniform(-1, 1, (20, 4)).round(3)
    joints[:, 2] += 3
    joints[:, 3] = 2
    return joints


def write_clip(folder: pathlib.Path, frames: int = 12, seed: int = 0, start: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A clip of 64x48 RGB and 32x24 depth; its indices cross 9 to 10, and every file has its own time stamp."""
    folder.mkdir(parents=True)
    rgb, depth = moving_square(frames, 48, 64, seed)
    depth = depth[:, ::2, ::2]
    stamp = 90_467_000
    for i, number in enumerate(range(start, start + frames)):
        for ending, save in (
            ("rgb.jpg", lambda path, i=i: Image.fromarray(rgb[i]).save(path, quality=95)),
            ("depth.png", lambda path, i=i: Image.fromarray(depth[i]).save(path)),
            ("depth_vis.jpg", lambda path, i=i: Image.fromarray((depth[i] // 16).astype(np.uint8)).save(path)),
            ("maprgbd.png", lambda path, i=i: Image.fromarray(depth[i]).save(path)),
            ("skeletons.txt", lambda path, number=number: path.write_text(skeleton_text(joints_at(number)))),
        ):
            stamp += 7
            save(folder / f"frame_{number}_tc_{stamp}_{ending}")
    (folder / "fileList.txt").write_text("frame_1\n")
    return rgb, depth


def file_of(folder: pathlib.Path, number: int, ending: str) -> pathlib.Path:
    (found,) = folder.glob(f"frame_{number}_tc_*_{ending}")
    return found
