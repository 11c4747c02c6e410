"""Renders one performance: the body by pybullet, the room by scene.py, put together by depth, then the
sensors."""

import dataclasses
import functools
import math

import numpy as np

from data_prep.mocap_rgbd import cameras, motion, noise, performers, scene
from data_prep.mocap_rgbd.body import Body
from data_prep.mocap_rgbd.canvas import Canvas
from data_prep.mocap_rgbd.presets import Preset

_SKIN = 0.15  # metres from a joint to the skin, at most
_SOLE = 0.07  # metres from the lowest joint to the floor at scale 1
_SHADOW_SIZE = 96
_SHADOW_DISTANCE = 14.0
_SHADOW_HALF = 2.2  # metres of the square that the light's picture covers


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
    """`rgb` uint8 [T,H,W,3], `depth` uint16 [T,H,W] millimetres, `joints` float32 [T,15,5]: x y z metres, u v
    pixels."""

    clip: str
    rgb: np.ndarray
    depth: np.ndarray
    joints: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Acted:
    """What all cameras share: poses, joints and their frames in the world, the light and the shadow it
    casts."""

    who: performers.Performer
    poses: motion.Poses
    joints: np.ndarray  # [T,15,3] metres
    frames: np.ndarray  # [T,15,3,3]
    floor: float  # its height
    light: np.ndarray  # [3], the direction towards it
    lamp: cameras.Camera  # the light as a camera
    shadows: list[np.ndarray]  # of it [S*S]: the share of the light the body takes

    @property
    def center(self) -> np.ndarray:
        return (self.joints.min(axis=(0, 1)) + self.joints.max(axis=(0, 1))) / 2


def render(body: Body, preset: Preset, seed: int, what: Performance) -> list[Clip]:
    """The clips of one performance, camera by camera. Everything random is keyed by (seed, performance,
    camera)."""
    key = [seed, 2, what.performer, what.repetition, what.action]
    acted = _act(np.random.default_rng(key), body, preset, seed, what)
    return [
        _record(np.random.default_rng([*key, number]), body, preset, seed, acted, what, number)
        for number in range(1, preset.cameras + 1)
    ]


@functools.lru_cache(maxsize=1)
def _performer(seed: int, number: int, style: float) -> performers.Performer:
    return performers.performer(seed, number, style)


def _act(rng: np.random.Generator, body: Body, preset: Preset, seed: int, what: Performance) -> _Acted:
    who = _performer(seed, what.performer, preset.difficulty.style)
    body.become(who)
    action = preset.actions[what.action]
    poses = motion.sample(body.data, action, motion.instants(rng, body.data, action, preset.frames, who.tempo))
    if rng.uniform() < 0.5:
        poses = motion.mirror(poses)
    poses = motion.vary(poses, rng, who.style, preset.difficulty.pose)
    # Towards camera 2 or camera 3 in turn, as NTU's performers did.
    towards = cameras.ANGLES[2 + what.repetition % 2] + rng.normal(0, math.radians(12))
    poses = motion.place(poses, -towards, who.scale * who.legs)
    placed = []
    for t in range(preset.frames):
        body.pose(poses, t)
        placed.append(body.frames())
    joints, frames = (np.stack(a) for a in zip(*placed, strict=True))
    # From above, and from the side where the cameras stand.
    angle, height = rng.uniform(-1.2, 1.2), rng.uniform(0.7, 1.6)
    light = np.array([math.cos(angle), height, math.sin(angle)]) / math.hypot(1.0, height)
    middle = (joints.min(axis=(0, 1)) + joints.max(axis=(0, 1))) / 2
    eye = middle + light * _SHADOW_DISTANCE
    field = 2 * math.atan(_SHADOW_HALF / _SHADOW_DISTANCE)
    lamp = cameras.Camera(eye, cameras.look_at(eye, middle, 0.0), _SHADOW_SIZE, field)
    shadows = []
    for t in range(preset.frames):
        body.pose(poses, t)
        shadows.append(blur(body.silhouette(lamp)).ravel())
    # Not the very lowest: varied poses push a foot through the floor now and then, and all else would float.
    floor = np.quantile(joints[..., 1].min(axis=1), 0.1) - _SOLE * who.scale
    return _Acted(who, poses, joints, frames, floor, light, lamp, shadows)


def blur(picture: np.ndarray) -> np.ndarray:
    """A penumbra: means over 3 * 3 pixels."""
    for axis in (0, 1):
        picture = (np.roll(picture, 1, axis) + picture + np.roll(picture, -1, axis)) / 3
    return picture


def _record(rng, body: Body, preset: Preset, seed: int, acted: _Acted, what: Performance, number: int) -> Clip:
    """What camera `number` makes of it, in one of its rooms."""
    difficulty, step, size = preset.difficulty, preset.supersample, preset.size
    camera = cameras.aim(rng, number, what.setup, acted.joints.reshape(-1, 3), acted.floor, size)
    ambient, shade = rng.uniform(*difficulty.ambient), rng.uniform(*difficulty.shadow)
    # Which room is drawn apart from who acts and what, so it tells nothing about the action.
    decor = np.random.default_rng([seed, 3, number, int(rng.integers(difficulty.rooms))]) if difficulty.rooms else rng
    palette = scene.palette(decor)
    reach = np.linalg.norm((acted.joints - acted.center)[..., [0, 2]], axis=-1).max() + _SKIN
    space = scene.Space(acted.center, reach, acted.floor, palette, acted.light, ambient, shade)
    room = scene.background(decor, camera, space, difficulty)
    base = performers.clothes(rng, acted.who, palette, rng.uniform(*difficulty.camouflage))
    clothing = scene.texture(rng, base, difficulty.clothing_amplitude / 2, difficulty.clothing_wavelength, waves=4)
    gain = rng.uniform(*difficulty.exposure) * rng.uniform(0.9, 1.1, 3)
    darkened = acted.lamp.pixels(room.points)
    canvas = Canvas(camera, step, room)
    rgb, depth = [], []
    for t in range(preset.frames):
        body.pose(acted.poses, t)
        seen, points = canvas.visible(body.draw(camera, step, acted.joints[t], acted.light, ambient))
        local = np.einsum("nk,nkj->nj", points - acted.joints[t, seen.link], acted.frames[t, seen.link])
        colour = clothing(seen.link, local) * seen.shading[:, None]
        behind = room.lit * (1 - shade * acted.shadows[t][darkened])[:, None]
        image, *planes = canvas.merge(seen, colour, behind)
        rgb.append(noise.sense_rgb(rng, image, gain, difficulty))
        depth.append(noise.sense_depth(rng, *planes, preset.depth_noise))
    joints = np.concatenate(camera.project(acted.joints), axis=-1).astype(np.float32)
    return Clip(what.clip_id(number), np.stack(rgb), np.stack(depth), joints)
