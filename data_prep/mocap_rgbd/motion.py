"""Motion capture from pybullet's DeepMimic clips: reading, sampling, mirroring and varying it.

The frames are y-up, the performer looks along +x and the right hand is at +z. One frame of the files is the
duration, the root's position and quaternion (w first), then in this order: chest, neck, right hip, right
knee, right ankle, right shoulder, right elbow, left hip, left knee, left ankle, left shoulder, left elbow;
knees and elbows are one angle, the others quaternions.
"""

import dataclasses
import functools
import json
import pathlib

import numpy as np

from data_prep.mocap_rgbd import rotations

SPHERICAL = (
    "chest",
    "neck",
    "right_hip",
    "right_ankle",
    "right_shoulder",
    "left_hip",
    "left_ankle",
    "left_shoulder",
)
HINGES = ("right_knee", "right_elbow", "left_knee", "left_elbow")
_SPHERICAL_COLUMNS = (8, 12, 16, 21, 25, 30, 35, 39)
_HINGE_COLUMNS = (20, 29, 34, 43)
_MIRRORED_SPHERICAL = [0, 1, 5, 6, 7, 2, 3, 4]
_MIRRORED_HINGES = [2, 3, 0, 1]
# Hips, knees and ankles vary less, or feet would leave the floor.
_SPHERICAL_FREEDOM = np.array([1, 1, 0.5, 0.7, 1.6, 0.5, 0.7, 1.6])[:, None]
_HINGE_FREEDOM = np.array([0.5, 1.5, 0.5, 1.5])

CYCLIC = ("run", "walk")
CYCLIC_SECONDS = 1.6
LONGEST_PATH = 0.9  # metres; longer paths are shortened as on a treadmill, so that the camera need not pan


@dataclasses.dataclass
class Poses:
    """Poses at T instants: `position` [T,3] metres, `orientation` [T,4], `spherical` [T,8,4], `hinges`
    [T,4]."""

    position: np.ndarray
    orientation: np.ndarray
    spherical: np.ndarray
    hinges: np.ndarray


@functools.cache
def _load(directory: str, action: str):
    with open(pathlib.Path(directory) / "data" / "motions" / f"humanoid3d_{action}.txt") as file:
        frames = np.array(json.load(file)["Frames"], dtype=np.float64)
    times = np.concatenate([[0.0], np.cumsum(frames[:-1, 0])])
    wxyz = [1, 2, 3, 0]
    return times, Poses(
        frames[:, 1:4],
        frames[:, 4:8][:, wxyz],
        np.stack([frames[:, c : c + 4][:, wxyz] for c in _SPHERICAL_COLUMNS], axis=1),
        frames[:, list(_HINGE_COLUMNS)],
    )


def sample(directory: str, action: str, seconds: np.ndarray) -> Poses:
    """Poses of `action` at `seconds` [T]; times past the end of a cyclic motion go on from where it ended."""
    times, poses = _load(directory, action)
    laps, seconds = np.divmod(seconds, times[-1]) if action in CYCLIC else (0 * seconds, seconds)
    low = np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(times) - 2)
    fraction = np.clip((seconds - times[low]) / (times[low + 1] - times[low]), 0, 1)[:, None]
    lap = poses.position[-1] - poses.position[0]
    lap[1] = 0.0
    return Poses(
        poses.position[low] * (1 - fraction) + poses.position[low + 1] * fraction + laps[:, None] * lap,
        rotations.interpolate(poses.orientation[low], poses.orientation[low + 1], fraction),
        rotations.interpolate(poses.spherical[low], poses.spherical[low + 1], fraction[:, None]),
        poses.hinges[low] * (1 - fraction) + poses.hinges[low + 1] * fraction,
    )


def instants(rng: np.random.Generator, directory: str, action: str, frames: int, tempo: float) -> np.ndarray:
    """Times [T] of a clip's frames: where it starts and ends, its tempo, and a smooth warp all vary."""
    duration = _load(directory, action)[0][-1]
    if action in CYCLIC:
        start, length = rng.uniform(0, duration), CYCLIC_SECONDS * tempo * rng.uniform(0.9, 1.1)
    else:
        start = rng.uniform(0, 0.1) * duration
        length = rng.uniform(0.88, 1.0) * duration - start
    unit = np.linspace(0, 1, frames)
    phase, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    warp = strength / (2 * np.pi) * (np.sin(2 * np.pi * unit + phase) - np.sin(phase))
    return start + length * (unit + warp)


def mirror(poses: Poses) -> Poses:
    """Left and right exchanged: a reflection at the plane z = 0."""
    reflect = np.array([-1.0, -1.0, 1.0, 1.0])
    return Poses(
        poses.position * [1, 1, -1],
        poses.orientation * reflect,
        (poses.spherical * reflect)[:, _MIRRORED_SPHERICAL],
        poses.hinges[:, _MIRRORED_HINGES],
    )


def vary(poses: Poses, rng: np.random.Generator, style: np.ndarray, amount: float) -> Poses:
    """Adds a performer's habits `style` [12,3] (radians) and smooth random variation of standard deviation
    `amount`."""
    unit = np.linspace(0, 1, len(poses.position))
    waves = [np.sin(2 * np.pi * (k * unit + rng.uniform(size=(12, 3, 1)))) for k in (0.5, 1.0)]
    noise = sum(rng.normal(0, amount, (12, 3, 1)) * wave for wave in waves)
    offset = np.moveaxis(style[..., None] + noise, -1, 0)
    return Poses(
        poses.position,
        poses.orientation,
        rotations.multiply(poses.spherical, rotations.from_vector(offset[:, :8] * _SPHERICAL_FREEDOM)),
        poses.hinges + offset[:, 8:, 2] * _HINGE_FREEDOM,
    )


def place(poses: Poses, yaw: float, scale: float) -> Poses:
    """Turns the motion by `yaw` radians, scales its path to the body and shortens long paths; starts at the
    origin."""
    turn = rotations.from_vector(np.array([0.0, yaw, 0.0]))
    position = (poses.position - poses.position[0] * [1, 0, 1]) * scale
    length = np.ptp(position[:, [0, 2]], axis=0).max()
    position[:, [0, 2]] *= min(1.0, LONGEST_PATH / max(length, 1e-6))
    return Poses(
        position @ rotations.matrix(turn).T,
        rotations.multiply(turn, poses.orientation),
        poses.spherical,
        poses.hinges,
    )
