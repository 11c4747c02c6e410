"""Renders one object from all sides: the object by pybullet, the room by `mocap_rgbd.scene`, then the sensors."""

import dataclasses
import functools
import math
import pathlib

import numpy as np

from data_prep.mocap_rgbd import cameras, noise, scene
from data_prep.mocap_rgbd.canvas import Canvas, Picture
from data_prep.mocap_rgbd.render import blur
from data_prep.mocap_rgbd.world import World
from data_prep.rgbd_objects.presets import Preset
from data_prep.rgbd_objects.shapes import CLASSES, QUARTER_TURNS, Part

_ACROSS = (0.9, 1.3)  # metres, largest distance of an object's corners
_FILL = (0.75, 1.0)  # of half the frame, by half the distance of the object's corners
_RISE = (math.radians(8), math.radians(45))  # of the camera above the object
_SHADOW_SIZE, _SHADOW_DISTANCE = 96, 10.0


@dataclasses.dataclass(frozen=True)
class Thing:
    """One instance of a class; numbers start at 1, the label at 0."""

    label: int
    instance: int

    def clip_id(self, preset: Preset, view: int) -> str:
        return f"{preset.classes[self.label]}_{self.instance:03}_{view:02}"


@dataclasses.dataclass(frozen=True)
class Image:
    """`rgb` uint8 [1,H,W,3], `depth` uint16 [1,H,W] millimetres."""

    clip: str
    rgb: np.ndarray
    depth: np.ndarray


def render(world: World, preset: Preset, seed: int, thing: Thing) -> list[Image]:
    """All views of an object. Everything random is keyed by (seed, class, instance, view)."""
    name = preset.classes[thing.label]
    key = [seed, 4, list(CLASSES).index(name), thing.instance]
    parts = standing(CLASSES[name](rng := np.random.default_rng(key)), rng.uniform(*_ACROSS))
    numbers = _place(world, parts)
    return [
        _record(np.random.default_rng([*key, view]), world, preset, seed, parts, numbers, thing, view)
        for view in range(1, preset.views + 1)
    ]


def standing(parts: list[Part], across: float) -> list[Part]:
    """An object brought to a size: `across` is the largest distance of its corners, metres; it stands at y = 0."""
    low, high = bounds(parts)
    scale = across / np.linalg.norm(high - low)
    moved = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return [dataclasses.replace(p, size=p.size * scale, centre=(p.centre - moved) * scale) for p in parts]


def bounds(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates, [3] each."""
    return (
        np.min([part.centre - part.size / 2 for part in parts], axis=0),
        np.max([part.centre + part.size / 2 for part in parts], axis=0),
    )


def _record(rng, world, preset: Preset, seed: int, parts, numbers, thing: Thing, view: int) -> Image:
    difficulty, step = preset.difficulty, preset.supersample
    low, high = bounds(parts)
    middle, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    camera = _aim(rng, view, preset, middle, radius)
    angle, height = rng.uniform(-math.pi, math.pi), rng.uniform(0.7, 1.6)
    light = np.array([math.cos(angle), height, math.sin(angle)]) / math.hypot(1.0, height)
    ambient, shade = rng.uniform(*difficulty.ambient), rng.uniform(*difficulty.shadow)
    # Which room is drawn apart from what stands in it, so it tells nothing about the class.
    decor = np.random.default_rng([seed, 5, int(rng.integers(difficulty.rooms))]) if difficulty.rooms else rng
    palette = scene.palette(decor)
    space = scene.Space(middle, radius, 0.0, palette, light, ambient, shade)
    room = scene.background(decor, camera, space, difficulty)
    eye = middle + light * _SHADOW_DISTANCE
    field = 2 * math.atan(1.6 * radius / _SHADOW_DISTANCE)
    lamp = cameras.Camera(eye, cameras.look_at(eye, middle, 0.0), _SHADOW_SIZE, field)
    shadow = blur(world.silhouette(lamp)).ravel()[lamp.pixels(room.points)]

    materials = 1 + max(part.material for part in parts)
    hidden = rng.uniform(*difficulty.camouflage)
    base = hidden * palette[rng.integers(len(palette), size=materials)]
    base = base + (1 - hidden) * rng.uniform(0.05, 0.95, (materials, 3))
    texture = scene.texture(rng, base, difficulty.clothing_amplitude / 2, difficulty.clothing_wavelength, waves=4)
    gain = rng.uniform(*difficulty.exposure) * rng.uniform(0.9, 1.1, 3)

    canvas = Canvas(camera, step, room)
    seen, points = canvas.visible(_draw(world, camera, step, light, ambient, numbers))
    material = np.array([part.material for part in parts])[seen.link]
    colour = texture(material, points - middle) * seen.shading[:, None]
    image, *planes = canvas.merge(seen, colour, room.lit * (1 - shade * shadow)[:, None])
    rgb = noise.sense_rgb(rng, image, gain, difficulty)
    depth = noise.sense_depth(rng, *planes, preset.depth_noise)
    return Image(thing.clip_id(preset, view), rgb[None], depth[None])


def _aim(rng: np.random.Generator, view: int, preset: Preset, middle: np.ndarray, radius: float) -> cameras.Camera:
    """From somewhere in the view's sector of the half circle, so near that the object fills a share of the frame."""
    angle = math.pi * ((view - 1 + rng.uniform(0.1, 0.9)) / preset.views - 0.5)
    rise = rng.uniform(*_RISE)
    distance = radius / (rng.uniform(*_FILL) * math.tan(cameras.VERTICAL_FIELD / 2))
    away = np.array([math.cos(rise) * math.sin(angle), math.sin(rise), math.cos(rise) * math.cos(angle)])
    target = middle + rng.normal(0, 0.06 * radius, 3)
    eye = target + max(distance, 2 * cameras.NEAR + radius) * away
    return cameras.Camera(eye, cameras.look_at(eye, target, rng.normal(0, math.radians(3))), preset.size)


def _place(world: World, parts: list[Part]) -> np.ndarray:
    """Empties the world, puts the parts into it, and returns the part [bodies] of each body's number."""
    p = world.pybullet
    p.resetSimulation()
    numbers = []
    for i, part in enumerate(parts):
        position, turn = part.centre, [0.0, 0.0, 0.0, 1.0]
        if part.kind == "box":
            shape = p.createVisualShape(p.GEOM_BOX, halfExtents=(part.size / 2).tolist())
        elif part.kind == "ball":
            shape = p.createVisualShape(p.GEOM_SPHERE, radius=part.size[0] / 2)
        elif part.kind == "cylinder":
            shape = p.createVisualShape(p.GEOM_CYLINDER, radius=part.size[0] / 2, length=part.size[1])
            turn = p.getQuaternionFromEuler([math.pi / 2, 0, 0])  # its axis is z
        else:
            low, high = _extents(pathlib.Path(world.data, part.kind))
            turn = p.getQuaternionFromEuler([QUARTER_TURNS.get(part.kind, 0) * math.pi / 2, 0, 0])
            matrix = np.array(p.getMatrixFromQuaternion(turn)).reshape(3, 3)
            scale = np.abs(matrix.T) @ part.size / (high - low)
            position = part.centre - matrix @ (scale * (low + high) / 2)
            shape = p.createVisualShape(p.GEOM_MESH, fileName=str(pathlib.Path(world.data, part.kind)), meshScale=scale)
        body = p.createMultiBody(baseVisualShapeIndex=shape, basePosition=position, baseOrientation=turn)
        p.changeVisualShape(body, -1, rgbaColor=[1, 1, 1, 1])
        numbers += [0] * (body + 1 - len(numbers))
        numbers[body] = i
    return np.array(numbers)


@functools.cache
def _extents(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates of an .obj file's points."""
    points = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(points, float).min(axis=0), np.array(points, float).max(axis=0)


def _draw(world: World, camera: cameras.Camera, step: int, light, ambient: float, numbers: np.ndarray) -> Picture:
    side = camera.size * step
    colour, depth, mask = world.image(
        camera,
        side,
        (0, 0, side, side),
        lightDirection=light.tolist(),
        lightAmbientCoeff=ambient,
        lightDiffuseCoeff=1 - ambient,
        lightSpecularCoeff=0.0,
        shadow=0,
    )
    found = np.flatnonzero(mask >= 0)
    # The segmentation holds the body's number below bit 24.
    return Picture(found, depth[found], numbers[mask[found] & 0xFFFFFF], colour[found] / 255.0)
