"""Writes samples of NTU RGB+D in the formats of the set: a person, who is a box, walks through all of them."""

import pathlib

import numpy as np
from raw_files import write_pictures, write_video

# From (x, y, 1) in the RGB frame to the depth map: near the published ones, and none of them.
RGB_TO_DEPTH = np.array([[0.349, 0.004, -81.0], [-0.002, 0.351, 11.0]])
HALF = np.array([90.0, 260.0])  # of the person, pixels of 1920x1080
DEPTH_NAME = "MDepth-{:08}.png"


def centre(t: int) -> np.ndarray:
    return np.array([800.0 + 12 * t, 520.0])


def body_points() -> np.ndarray:
    """25 joints, -1..1 in the box, its corners among them."""
    corners = [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    return np.concatenate([corners, np.random.default_rng(0).uniform(-1, 1, (21, 2))])


def skeleton_text(frames: list[list[tuple[str, np.ndarray]]]) -> str:
    """For every frame (body id, joints' RGB coordinates `[25, 2]`), as a person 2.5 m away."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, rgb in bodies:
            depth = np.column_stack([rgb, np.ones(len(rgb))]) @ RGB_TO_DEPTH.T
            xyz = np.column_stack([(rgb - [960, 540]) * [2.5 / 1081, -2.5 / 1081], np.full(len(rgb), 2.5)])
            lines += [f"{body} 0 1 1 1 1 0 0.02 -0.1 2", str(len(rgb))]
            for joint in np.column_stack([xyz, depth, rgb, np.zeros((len(rgb), 4))]):
                lines.append(" ".join(f"{value:.7g}" for value in joint) + " 2")
    return "\n".join(lines) + "\n"


def write_sample(root: pathlib.Path, name: str, frames: int = 12, scale: int = 8) -> None:
    """A whole sample; `scale` says how much smaller than 1920x1080 the video is."""
    rgb = np.full((frames, 1080 // scale, 1920 // scale, 3), 20, np.uint8)
    depth = np.zeros((frames, 424, 512), np.uint16)
    skeletons = []
    for t in range(frames):
        low, high = centre(t) - HALF, centre(t) + HALF
        left, top, right, bottom = np.rint(np.concatenate([low, high]) / scale).astype(int)
        rgb[t, top:bottom, left:right] = (230, 200, 180)
        (left, top), (right, bottom) = (np.rint(RGB_TO_DEPTH @ [*corner, 1]).astype(int) for corner in (low, high))
        depth[t, top:bottom, left:right] = 2500 + t
        skeletons.append([("72057594037931101", centre(t) + body_points() * HALF)])
    write_video(root / "nturgb+d_rgb" / f"{name}_rgb.avi", rgb)
    write_pictures(root / "nturgb+d_depth_masked" / name, depth, DEPTH_NAME)
    folder = root / "nturgb+d_skeletons"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.skeleton").write_text(skeleton_text(skeletons))
