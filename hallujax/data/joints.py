"""Skeletons as a stream sees them: whose place and size do not matter, and what a mirror does to them."""

from collections.abc import Sequence

import numpy as np

from hallujax.errors import DataError

JOINTS = "joints"  # the modality's name
ROOTS = ("root", "spine base", "hip center", "torso")  # what the joint in a body's middle is called


def normalize(records: np.ndarray, root: int) -> np.ndarray:
    """Joints seen from the first body's root in the first frame that has it, in units of the bodies' own size.

    Args:
      records: `[B, T, ..., J, >= 3]` as they lie on disk, with an axis of bodies or without; the first three values
        are x, y, z in metres in the camera's frame, all zero for a body that is not there.
      root: which joint is the root.

    Returns:
      float32 `[B, T, bodies, J, 3]`. One unit is the mean distance of a joint from the root of its body; where there
      is no body it is all zeros.
    """
    xyz = records[..., :3].astype(np.float32)
    if xyz.ndim == 4:
        xyz = xyz[:, :, None]
    there = xyz.any(axis=(-2, -1))  # [B, T, bodies]
    roots = xyz[..., root, :]
    first = there.reshape(len(xyz), -1).argmax(axis=1)  # frames go before bodies
    origin = roots.reshape(len(xyz), -1, 3)[np.arange(len(xyz)), first]
    reach = np.linalg.norm(xyz - roots[..., None, :], axis=-1).mean(axis=-1) * there
    size = reach.sum(axis=(1, 2)) / np.maximum(there.sum(axis=(1, 2)), 1)
    size = np.where(size > 0, size, 1.0).astype(np.float32)
    seen = (xyz - origin[:, None, None, None]) / size[:, None, None, None, None]
    return np.where(there[..., None, None], seen, np.float32(0))


def root_joint(dataset: str, names: Sequence[str]) -> int:
    """Which joint is the root.

    Raises:
      DataError: if none of the names is one of `ROOTS`.
    """
    found = [i for i, name in enumerate(names) if name in ROOTS]
    if not found:
        raise DataError(f"{dataset}: none of its joint_names is a root, which may be called {', '.join(ROOTS)}")
    return found[0]


def mirrored_joints(dataset: str, names: Sequence[str]) -> tuple[int, ...]:
    """For each joint the one that takes its place in a mirror: left and right are told by the names.

    Raises:
      DataError: if a joint on one side has no partner on the other.
    """
    swapped = [" ".join(_OTHER_SIDE.get(word, word) for word in name.replace("_", " ").split()) for name in names]
    places = {name.replace("_", " "): i for i, name in enumerate(names)}
    if missing := [name for name in swapped if name not in places]:
        raise DataError(f"{dataset}: its joint_names lack {missing[0]!r}, the partner of one that there is")
    return tuple(places[name] for name in swapped)


_OTHER_SIDE = {"left": "right", "right": "left"}
