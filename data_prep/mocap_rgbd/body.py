"""The performer's body in pybullet: posed link by link, drawn by its software renderer."""

import contextlib
import dataclasses
import math
import os
import pathlib
import tempfile

import numpy as np

from data_prep.mocap_rgbd import motion, performers, rotations
from data_prep.mocap_rgbd.cameras import FAR, NEAR, Camera

_FLESH = 0.32  # metres that the body reaches beyond its joints: the head's top above the neck


@dataclasses.dataclass(frozen=True)
class Picture:
    """The N pixels of a square picture that show the body: their number `pixel` [N] in row-major order,
    `depth` [N] in metres along the optical axis, `link` [N] and `shading` [N] in 0..1, shadows of the body on
    itself included."""

    pixel: np.ndarray
    depth: np.ndarray
    link: np.ndarray
    shading: np.ndarray


class Body:
    """One pybullet world with one performer in it. Use as a context manager."""

    def __init__(self):
        with _quiet():
            import pybullet
            import pybullet_data
        self._p = pybullet
        self.data = pybullet_data.getDataPath()
        self._world = pybullet.connect(pybullet.DIRECT)
        self._who, self._body = None, None

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._p.disconnect(self._world)

    def become(self, who: performers.Performer) -> None:
        """Takes the shape of a performer."""
        if who is self._who:
            return
        self._p.resetSimulation()
        with tempfile.TemporaryDirectory(prefix="mocap_rgbd_") as folder:
            path = pathlib.Path(folder, "performer.urdf")
            performers.write_urdf(who, pathlib.Path(self.data, "humanoid", "humanoid.urdf"), path)
            self._body = self._p.loadURDF(
                str(path),
                globalScaling=performers.global_scaling(who),
                flags=self._p.URDF_MAINTAIN_LINK_ORDER,  # performers.LINKS is the file's order
            )
        self._who = who
        names = [self._p.getJointInfo(self._body, i)[12].decode() for i in range(len(performers.LINKS))]
        self._joints = [names.index(name) for name in motion.SPHERICAL + motion.HINGES]

    def pose(self, poses: motion.Poses, t: int) -> None:
        """Takes pose `t`."""
        self._p.resetBasePositionAndOrientation(self._body, poses.position[t], poses.orientation[t])
        angles = [*poses.spherical[t].tolist(), *([angle] for angle in poses.hinges[t].tolist())]
        self._p.resetJointStatesMultiDof(self._body, self._joints, angles)

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions [15,3] (metres) and rotation matrices [15,3,3] of the joints of the current pose."""
        states = self._p.getLinkStates(self._body, range(len(performers.LINKS)), computeForwardKinematics=1)
        return np.array([s[4] for s in states]), rotations.matrix(np.array([s[5] for s in states]))

    def draw(self, camera: Camera, supersample: int, joints: np.ndarray, light: np.ndarray, ambient: float) -> Picture:
        """The body as `camera` sees it at `supersample` times its resolution, lit from `light` [3].

        `joints` [15,3] are where `pose` put them: only their part of the picture is drawn, which halves the
        time.
        """
        side = camera.size * supersample
        xyz, uv = camera.project(joints)
        margin = _FLESH * camera.focal / xyz[:, 2].min()
        low, high = (uv.min(axis=0) - margin) * supersample, (uv.max(axis=0) + margin) * supersample
        left, top = np.clip(low, 0, side - 1).astype(int)
        right, bottom = np.clip(np.ceil(high) + 1, 1, side).astype(int)
        colour, buffer, mask = self._image(
            camera,
            side,
            (left, top, right, bottom),
            lightDirection=light.tolist(),
            lightAmbientCoeff=ambient,
            lightDiffuseCoeff=1 - ambient,
            lightSpecularCoeff=0.0,
            shadow=0,  # the body's shadow on itself is hardly seen and costs half as much again
        )
        found = np.flatnonzero(mask >= 0)
        row, column = np.divmod(found, right - left)
        depth = FAR * NEAR / (FAR - (FAR - NEAR) * buffer[found].astype(np.float64))
        # The segmentation holds the link's number plus one above bit 24.
        link = (mask[found] >> 24) - 1
        return Picture((row + top) * side + column + left, depth, link, colour[found] / 255.0)

    def silhouette(self, camera: Camera) -> np.ndarray:
        """1 where `camera` sees the body, else 0, float [S,S]."""
        mask = self._image(camera, camera.size, (0, 0, camera.size, camera.size), shadow=0)[2]
        return (mask >= 0).astype(np.float64).reshape(camera.size, camera.size)

    def _image(self, camera: Camera, side: int, window: tuple[int, int, int, int], **light):
        """Red, z-buffer and segmentation, each [N], of a window of the picture of side * side pixels."""
        left, top, right, bottom = window
        projection = np.array(self._p.computeProjectionMatrixFOV(math.degrees(camera.field), 1.0, NEAR, FAR))
        # The window's part of the picture plane, stretched to all of it.
        stretch = np.eye(4)
        stretch[0, 0], stretch[0, 3] = side / (right - left), (side - left - right) / (right - left)
        stretch[1, 1], stretch[1, 3] = side / (bottom - top), (top + bottom - side) / (bottom - top)
        _, _, colour, buffer, mask = self._p.getCameraImage(
            right - left,
            bottom - top,
            camera.view_matrix(),
            (projection.reshape(4, 4) @ stretch.T).ravel().tolist(),
            renderer=self._p.ER_TINY_RENDERER,
            flags=self._p.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX,
            **light,
        )
        return np.asarray(colour).reshape(-1, 4)[:, 0], np.asarray(buffer).ravel(), np.asarray(mask).ravel()


@contextlib.contextmanager
def _quiet():
    """Importing pybullet prints its build time on the process's own standard output and error."""
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
