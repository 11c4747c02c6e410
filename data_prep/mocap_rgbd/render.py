"""Renders one performance: the body by pybullet's software renderer, the room by scene.py, composed by depth."""

import contextlib
import dataclasses
import math
import os
import pathlib
import tempfile

import numpy as np

from data_prep.mocap_rgbd import cameras, motion, noise, performers, rotations, scene
from data_prep.mocap_rgbd.presets import Preset

_SHADOW_SIZE = 96
_SHADOW_DISTANCE = 14.0
_SHADOW_FIELD = 2 * math.atan(2.2 / _SHADOW_DISTANCE)
_BODY = 0.15  # metres from a joint to the skin, at most
_SOLE = 0.07  # metres from the lowest joint to the floor at scale 1


@dataclasses.dataclass(frozen=True)
class Performance:
    """One action done once; every camera records it as one clip. All numbers start at 1, `action` at 0."""

    performer: int
    repetition: int
    action: int

    @property
    def setup(self) -> int:
        return 1 + (self.performer + self.repetition) % len(cameras.SETUPS)

    def clip_id(self, camera: int) -> str:
        return f"S{self.setup:03}C{camera:03}P{self.performer:03}R{self.repetition:03}A{self.action + 1:03}"


@dataclasses.dataclass(frozen=True)
class Clip:
    """`rgb` uint8 [T,H,W,3], `depth` uint16 [T,H,W] millimetres, `joints` float32 [T,15,5] (x y z metres, u v pixels)."""

    clip: str
    rgb: np.ndarray
    depth: np.ndarray
    joints: np.ndarray


class Renderer:
    """Holds one pybullet world. Everything random is keyed by (seed, performance, camera)."""

    def __init__(self, preset: Preset, seed: int):
        with _quiet():
            import pybullet
            import pybullet_data
        self._p = pybullet
        self._data = pybullet_data.getDataPath()
        self._world = pybullet.connect(pybullet.DIRECT)
        self._preset, self._seed = preset, seed
        self._performer, self._body = None, None
        self._folder = tempfile.TemporaryDirectory(prefix="mocap_rgbd_")

    def close(self) -> None:
        self._p.disconnect(self._world)
        self._folder.cleanup()

    def clips(self, what: Performance) -> list[Clip]:
        """The clips of one performance, in the order of the cameras."""
        preset, difficulty = self._preset, self._preset.difficulty
        key = [self._seed, 2, what.performer, what.repetition, what.action]
        rng = np.random.default_rng(key)
        who = performers.performer(self._seed, what.performer, difficulty.style)
        self._load(what.performer, who)
        poses = self._motion(rng, who, what)
        links = [self._links(poses, t) for t in range(preset.frames)]
        joints = np.stack([position for position, _ in links])
        floor = joints[..., 1].min() - _SOLE * who.scale
        light = _light(rng)
        center = (joints.min(axis=(0, 1)) + joints.max(axis=(0, 1))) / 2
        shadows = [self._shadow(poses, t, center, light) for t in range(preset.frames)]
        return [
            self._record(
                np.random.default_rng([*key, number]), what, number, who, poses, links, shadows, floor, light
            )
            for number in range(1, preset.cameras + 1)
        ]

    def _motion(self, rng, who, what: Performance) -> motion.Poses:
        action = self._preset.actions[what.action]
        times = motion.instants(rng, self._data, action, self._preset.frames, who.tempo)
        poses = motion.sample(self._data, action, times)
        if rng.uniform() < 0.5:
            poses = motion.mirror(poses)
        poses = motion.vary(poses, rng, who.style, self._preset.difficulty.pose)
        # Towards camera 2 or camera 3 in turn, as NTU's performers did.
        towards = cameras.ANGLES[2 + what.repetition % 2]
        return motion.place(poses, -towards + rng.normal(0, math.radians(12)), who.scale * who.legs)

    def _load(self, number: int, who: performers.Performer) -> None:
        if number == self._performer:
            return
        self._p.resetSimulation()
        path = pathlib.Path(self._folder.name, "performer.urdf")
        performers.write_urdf(who, pathlib.Path(self._data, "humanoid", "humanoid.urdf"), path)
        # Maintained link order: LINKS is the file's order.
        flags = self._p.URDF_MAINTAIN_LINK_ORDER
        self._body = self._p.loadURDF(str(path), globalScaling=performers.global_scaling(who), flags=flags)
        self._performer = number
        names = [self._p.getJointInfo(self._body, i)[12].decode() for i in range(len(performers.LINKS))]
        self._spherical = [names.index(name) for name in motion.SPHERICAL]
        self._hinges = [names.index(name) for name in motion.HINGES]

    def _pose(self, poses: motion.Poses, t: int) -> None:
        self._p.resetBasePositionAndOrientation(self._body, poses.position[t], poses.orientation[t])
        values = [*poses.spherical[t].tolist(), *([angle] for angle in poses.hinges[t].tolist())]
        self._p.resetJointStatesMultiDof(self._body, self._spherical + self._hinges, values)

    def _links(self, poses: motion.Poses, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions [15,3] and rotation matrices [15,3,3] of the joints' frames in the world."""
        self._pose(poses, t)
        states = self._p.getLinkStates(self._body, range(len(performers.LINKS)), computeForwardKinematics=1)
        return np.array([s[4] for s in states]), rotations.matrix(np.array([s[5] for s in states]))

    def _shadow(self, poses, t: int, center, light):
        """What the light sees of the body, [S,S], blurred to a penumbra: 1 where the light is taken."""
        self._pose(poses, t)
        view, projection = _light_camera(self._p, center, light)
        image = self._p.getCameraImage(
            _SHADOW_SIZE, _SHADOW_SIZE, view, projection, shadow=0, renderer=self._p.ER_TINY_RENDERER
        )
        mask = (np.asarray(image[4]).reshape(_SHADOW_SIZE, _SHADOW_SIZE) >= 0).astype(np.float64)
        for axis in (0, 1):
            mask = (np.roll(mask, 1, axis) + mask + np.roll(mask, -1, axis)) / 3
        return mask

    def _record(self, rng, what, number, who, poses, links, shadows, floor, light) -> Clip:
        preset, difficulty = self._preset, self._preset.difficulty
        joints = np.stack([position for position, _ in links])
        camera = cameras.aim(rng, number, what.setup, joints.reshape(-1, 3), floor, preset.size)
        ambient, shade = rng.uniform(*difficulty.ambient), rng.uniform(*difficulty.shadow)
        colours = scene.palette(rng)
        center = (joints.min(axis=(0, 1)) + joints.max(axis=(0, 1))) / 2
        reach = np.linalg.norm((joints - center)[..., [0, 2]], axis=-1).max() + _BODY
        room = scene.background(
            rng, camera, preset.supersample, center, reach, floor, colours, light, ambient, shade, difficulty
        )
        base = performers.clothes(rng, who, colours, rng.uniform(*difficulty.camouflage))
        clothing = scene.texture(rng, base, difficulty.clothing_amplitude / 2, difficulty.clothing_wavelength)
        gain = rng.uniform(*difficulty.exposure) * rng.uniform(0.9, 1.1, 3)
        taken = _light_pixels(self._p, room.points, center, light)
        side, step = preset.size * preset.supersample, preset.supersample
        rgb, depth = [], []
        for t, (position, rotation) in enumerate(links):
            self._pose(poses, t)
            shading, body_depth, link = self._body_image(camera, side, light, ambient)
            visible = np.flatnonzero((link >= 0) & (body_depth < room.depth))
            shadow = shadows[t].ravel()[taken] if taken is not None else 0.0
            image = room.lit + (room.shaded - room.lit) * shadow[:, None]
            which = link[visible]
            points = camera.eye + camera.rays(step).reshape(-1, 3)[visible] * body_depth[visible, None]
            local = np.einsum("nk,nkj->nj", points - position[which], rotation[which])
            image[visible] = clothing(which, local) * shading[visible]
            metres = room.depth.copy()
            metres[visible] = body_depth[visible]
            cosine = room.cosine.copy()
            cosine[visible] = 1.0
            rgb.append(noise.sense_rgb(rng, _shrink(image.reshape(side, side, 3), step), gain, difficulty))
            first = [a.reshape(side, side)[::step, ::step] for a in (metres, cosine)]
            depth.append(noise.sense_depth(rng, *first, preset.depth_noise))
        xyz, uv = camera.project(joints)
        return Clip(
            what.clip_id(number),
            np.stack(rgb),
            np.stack(depth),
            np.concatenate([xyz, uv], axis=-1).astype(np.float32),
        )

    def _body_image(self, camera: cameras.Camera, side: int, light: np.ndarray, ambient: float):
        """Shading [N,1] in 0..1, depth [N] in metres and link [N] (-1: none) of the body alone."""
        near, far = cameras.NEAR, cameras.FAR
        image = self._p.getCameraImage(
            side,
            side,
            camera.view_matrix(),
            self._p.computeProjectionMatrixFOV(math.degrees(cameras.VERTICAL_FIELD), 1.0, near, far),
            lightDirection=light.tolist(),
            lightAmbientCoeff=ambient,
            lightDiffuseCoeff=1 - ambient,
            lightSpecularCoeff=0.0,
            shadow=1,
            renderer=self._p.ER_TINY_RENDERER,
            flags=self._p.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX,
        )
        shading = np.asarray(image[2]).reshape(-1, 4)[:, :1] / 255.0
        buffer = np.asarray(image[3]).ravel().astype(np.float64)
        mask = np.asarray(image[4]).ravel()
        return shading, far * near / (far - (far - near) * buffer), np.where(mask >= 0, (mask >> 24) - 1, -1)


def _shrink(image: np.ndarray, step: int) -> np.ndarray:
    """Means of step * step blocks of [S,S,3]; sums of slices are several times faster than a reduction."""
    return sum(image[i::step, j::step] for i in range(step) for j in range(step)) / step**2


def _light(rng: np.random.Generator) -> np.ndarray:
    """Direction towards the light: from above and from the side where the cameras stand."""
    angle, height = rng.uniform(-1.2, 1.2), rng.uniform(0.7, 1.6)
    light = np.array([math.cos(angle), height, math.sin(angle)])
    return light / np.linalg.norm(light)


def _light_camera(p, center: np.ndarray, light: np.ndarray):
    view = p.computeViewMatrix((center + light * _SHADOW_DISTANCE).tolist(), center.tolist(), [0.0, 1.0, 0.0])
    return view, p.computeProjectionMatrixFOV(math.degrees(_SHADOW_FIELD), 1.0, 5.0, 40.0)


def _light_pixels(p, points: np.ndarray, center: np.ndarray, light: np.ndarray) -> np.ndarray:
    """For each point [N,3] of the room, the pixel [N] of the shadow picture it falls on."""
    view, projection = (np.array(m).reshape(4, 4).T for m in _light_camera(p, center, light))
    clip = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ (projection @ view).T
    ndc = clip[:, :2] / clip[:, 3:]
    pixel = ((ndc * [1, -1] + 1) / 2 * _SHADOW_SIZE).astype(int)
    # Outside the light's picture there is no body: its border is empty.
    u, v = np.clip(pixel, 0, _SHADOW_SIZE - 1).T
    return v * _SHADOW_SIZE + u


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
