"""The performer's body in pybullet: posed link by link."""

import pathlib
import tempfile

import numpy as np

from data_prep.mocap_rgbd import motion, performers, rotations
from data_prep.mocap_rgbd.cameras import Camera
from data_prep.mocap_rgbd.canvas import Picture
from data_prep.mocap_rgbd.world import World

_FLESH = 0.32  # metres that the body reaches beyond its joints: the head's top above the neck


class Body(World):
    """One pybullet world with one performer in it. Use as a context manager."""

    def __init__(self):
        super().__init__()
        self._p = self.pybullet
        self._who, self._body = None, None

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
        colour, depth, mask = self.image(
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
        # The segmentation holds the link's number plus one above bit 24.
        link = (mask[found] >> 24) - 1
        return Picture((row + top) * side + column + left, depth[found], link, colour[found] / 255.0)
