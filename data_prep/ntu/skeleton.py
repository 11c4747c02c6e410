"""Reads `.skeleton` files.

Text, separated by white space: the number of frames; in each the number of bodies; for each body ten values that start
with its id, the number of joints (25), and for each joint x y z (metres, in the camera's frame), the same point in the
depth map, the same in the RGB frame, an orientation of four, and its tracking state (2 tracked, 1 inferred).
"""

import dataclasses
import math
import pathlib

import numpy as np

from hallujax.errors import DataError

JOINTS = 25
_BODY_VALUES, _JOINT_VALUES = 10, 12
_MOST_BODIES = 6  # that the sensor follows
_SPREAD = 0.8  # a person is higher than wide by more than this; furniture that was taken for one is not


@dataclasses.dataclass(frozen=True)
class Body:
    """One body, in the frames that it is seen in.

    Attributes:
      frames: `[n]`, from 0.
      joints: float64 `[n, 25, 7]`: x, y, z, depth map's x, y, RGB frame's x, y (of 1920x1080).
      tracked: bool `[n, 25]`.
    """

    frames: np.ndarray
    joints: np.ndarray
    tracked: np.ndarray


def read(path: pathlib.Path) -> tuple[int, list[Body]]:
    """The number of frames, and all bodies in the order they turn up.

    Raises:
      DataError: the file is short, goes on behind its last frame, or holds what cannot be.
    """
    try:
        tokens = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: unreadable ({error.__class__.__name__})") from error
    if not tokens:
        raise DataError(f"{path.name}: empty file")
    position, frame = 0, -1

    def count(what: str, low: int, high: float = math.inf) -> int:
        nonlocal position
        if position >= len(tokens):
            raise DataError(f"{path.name}: it ends within frame {frame + 1} of {length}")
        token = tokens[position]
        position += 1
        if not (token.isdecimal() and low <= int(token) <= high):
            raise DataError(f"{path.name}: {what} is {token[:20]!r}{f' in frame {frame + 1}' if frame >= 0 else ''}")
        return int(token)

    length = count("the number of frames", 0, len(tokens))
    seen: dict[str, tuple[list[int], list[np.ndarray]]] = {}
    for frame in range(length):
        here = set()
        for _ in range(count("the number of bodies", 0, _MOST_BODIES)):
            body = tokens[position] if position < len(tokens) else ""
            position += _BODY_VALUES
            count("the number of joints", JOINTS, JOINTS)
            values = tokens[position : position + JOINTS * _JOINT_VALUES]
            if len(values) < JOINTS * _JOINT_VALUES:
                raise DataError(f"{path.name}: it ends within frame {frame + 1} of {length}")
            position += len(values)
            try:
                joints = np.array(values, np.float64).reshape(JOINTS, _JOINT_VALUES)
            except ValueError as error:
                raise DataError(f"{path.name}: a joint of frame {frame + 1} is no number") from error
            if not np.isfinite(joints[:, :7]).all():
                raise DataError(f"{path.name}: a joint of frame {frame + 1} is not finite")
            if body in here:
                raise DataError(f"{path.name}: body {body[:20]} is twice in frame {frame + 1}")
            here.add(body)
            frames, found = seen.setdefault(body, ([], []))
            frames.append(frame)
            found.append(joints)
    if position != len(tokens):
        raise DataError(f"{path.name}: {len(tokens) - position} values behind its last frame")
    return length, [
        Body(np.array(frames), np.stack(found)[:, :, :7], np.stack(found)[:, :, 11] == 2)
        for frames, found in seen.values()
    ]


def performers(bodies: list[Body], length: int) -> list[Body]:
    """At most two of several bodies, the one that moves most first, as the dataset's authors say they chose.

    Bodies of a few frames and those that are wider than high are mistakes of the sensor, unless there is no other.
    """
    lasting = [body for body in bodies if len(body.frames) >= min(11, length / 2)]
    candidates = lasting or bodies
    upright = [body for body in candidates if _spread(body, 0) <= _SPREAD * _spread(body, 1)]
    return sorted(upright or candidates, key=_motion, reverse=True)[:2]


def _spread(body: Body, axis: int) -> float:
    """How far the joints are apart along x or y, in metres, the mean over frames."""
    return float(np.ptp(body.joints[:, :, axis], axis=1).mean())


def _motion(body: Body) -> float:
    return float(body.joints[:, :, :3].reshape(-1, 3).var(axis=0).sum())
