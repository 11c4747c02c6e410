"""The room around a performer, cast ray by ray in NumPy: it stands still, so it is drawn once a clip.

Every surface has a solid texture, a sum of a few sine waves in its own coordinates, so its band is known,
plus on the walls flat shapes ("posters") that only RGB can see.
"""

import dataclasses
import math

import numpy as np

from data_prep.mocap_rgbd.cameras import Camera
from data_prep.mocap_rgbd.presets import Difficulty

_FAR = 1e6


@dataclasses.dataclass(frozen=True)
class Texture:
    """Solid textures of S surfaces: `base` [S,3], wave vectors [S,W,3] (radians a metre), `phase` [S,W],
    `colour` [S,W,3]."""

    base: np.ndarray
    vectors: np.ndarray
    phase: np.ndarray
    colour: np.ndarray

    def __call__(self, surface: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Albedo [N,3] in 0..1 of points [N,3], each on one `surface` [N]."""
        angle = np.einsum("nwk,nk->nw", self.vectors[surface], position) + self.phase[surface]
        albedo = self.base[surface] + np.einsum("nw,nwc->nc", np.sin(angle), self.colour[surface])
        return np.clip(albedo, 0.02, 1.0)


def texture(rng: np.random.Generator, base: np.ndarray, amplitude: float, wavelength, waves: int) -> Texture:
    """Random textures around the colours `base` [S,3]; wavelengths in metres, `amplitude` the standard
    deviation."""
    surfaces = len(base)
    direction = rng.normal(size=(surfaces, waves, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    length = np.exp(rng.uniform(*np.log(wavelength), (surfaces, waves, 1)))
    # Mostly light and dark, a little colour.
    colour = rng.normal(0, 0.9, (surfaces, waves, 1)) + rng.normal(0, 0.4, (surfaces, waves, 3))
    return Texture(
        base,
        direction * (2 * np.pi / length),
        rng.uniform(0, 2 * np.pi, (surfaces, waves)),
        # Longer waves are stronger, as in pictures of real rooms.
        colour * amplitude * math.sqrt(2) * length / np.sqrt(np.sum(length**2, axis=1, keepdims=True)),
    )


def palette(rng: np.random.Generator, colours: int = 5) -> np.ndarray:
    """The colours [P,3] of a scene: walls, objects, posters and part of the clothes come from it."""
    return rng.uniform(0.15, 0.85, (colours, 1)) + rng.uniform(-0.15, 0.15, (colours, 3))


@dataclasses.dataclass(frozen=True)
class Space:
    """Where a clip takes place: the performer stays within `reach` metres of the vertical through `center`
    [3]."""

    center: np.ndarray
    reach: float
    floor: float  # its height
    palette: np.ndarray  # [P,3]
    light: np.ndarray  # [3], the direction towards it
    ambient: float  # share of the light that comes from everywhere
    shadow: float  # share of the light that a cast shadow takes away


@dataclasses.dataclass(frozen=True)
class Background:
    """What the camera sees without the performer, N = size * size pixels.

    `depth` [N] metres along the optical axis, `points` [N,3] in the world, `lit` [N,3] colours in 0..1
    without cast shadows, `cosine` [N] between the surface and the ray.
    """

    depth: np.ndarray
    points: np.ndarray
    lit: np.ndarray
    cosine: np.ndarray


def background(rng: np.random.Generator, camera: Camera, space: Space, difficulty: Difficulty) -> Background:
    """Draws a floor, one or two walls, and clutter that leaves the performer's reach free."""
    rays = camera.rays(1).reshape(-1, 3)
    forward = camera.rotation[2] * [1, 0, 1]
    forward /= np.linalg.norm(forward)
    surfaces = _Surfaces(camera.eye, rays)
    surfaces.plane(np.array([0.0, space.floor, 0.0]), np.array([0.0, 1.0, 0.0]))
    slant = rng.normal(0, math.radians(15))
    surfaces.plane(space.center + forward * (space.reach + rng.uniform(0.2, 1.6)), -_turn(forward, slant))
    if rng.uniform() < 0.5:
        side = 1 if rng.uniform() < 0.5 else -1
        aside = _turn(forward, side * math.pi / 2)
        # Turned only so that it recedes: a side wall that closes in on the camera would hide the performer.
        surfaces.plane(space.center + aside * (space.reach + rng.uniform(0.3, 0.9)), -_turn(aside, -side * abs(slant)))
    walls = surfaces.count
    for _ in range(rng.integers(*difficulty.clutter, endpoint=True)):
        _clutter(rng, surfaces, space, forward)
    points = camera.eye + rays * surfaces.depth[:, None]
    base = space.palette[rng.integers(len(space.palette), size=surfaces.count)]
    base = np.clip(base + rng.normal(0, 0.06, base.shape), 0, 1)
    solid = texture(rng, base, difficulty.texture_amplitude / 2, difficulty.texture_wavelength, waves=8)
    albedo = solid(surfaces.surface, points)
    _posters(rng, albedo, surfaces.surface, points, space, forward, walls, difficulty)
    diffuse = np.clip(surfaces.normals @ space.light, 0, 1)[:, None]
    cosine = -np.einsum("nk,nk->n", surfaces.normals, rays) / np.linalg.norm(rays, axis=1)
    lit = albedo * (space.ambient + (1 - space.ambient) * diffuse)
    return Background(surfaces.depth, points, lit, np.abs(cosine))


def _turn(vector: np.ndarray, angle: float) -> np.ndarray:
    """Turns about the vertical."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] + s * vector[2], vector[1], c * vector[2] - s * vector[0]])


def _clutter(rng, surfaces: "_Surfaces", space: Space, forward: np.ndarray) -> None:
    """A box or a ball, on the floor behind the performer or to the side."""
    behind, across, aside = rng.uniform(-0.2, space.reach + 1.2), rng.uniform(-1.7, 1.7), rng.uniform(0.2, 0.7)
    if behind < space.reach:
        across = math.copysign(space.reach + aside, across)
    spot = space.center + forward * behind + _turn(forward, math.pi / 2) * across
    spot[1] = space.floor
    if rng.uniform() < 0.3:
        radius = rng.uniform(0.12, 0.4)
        spot[1] += rng.uniform(0, 1.0) + radius
        surfaces.ball(spot, radius)
    else:
        half = np.array([rng.uniform(0.06, 0.4), rng.uniform(0.1, 0.85), rng.uniform(0.06, 0.3)])
        spot[1] += half[1]
        surfaces.box(spot, half, rng.uniform(0, math.pi))


def _posters(rng, albedo, surface, points, space: Space, forward, walls: int, difficulty: Difficulty) -> None:
    """Paints ellipses and rectangles on floor and walls, in place; some are as long and thin as a limb."""
    from_center = points - space.center
    across, flat = from_center @ _turn(forward, math.pi / 2), from_center @ forward
    height = points[:, 1] - space.floor
    for _ in range(rng.integers(*difficulty.posters, endpoint=True)):
        where = int(rng.integers(walls))
        a = across - rng.uniform(-1.3, 1.3)
        b = flat - rng.uniform(-1.0, 1.0) if where == 0 else height - rng.uniform(0.2, 1.9)
        angle = rng.uniform(0, math.pi)
        x = (a * math.cos(angle) + b * math.sin(angle)) / rng.uniform(0.15, 0.6)
        y = (b * math.cos(angle) - a * math.sin(angle)) / rng.uniform(0.06, 0.3)
        inside = (x * x + y * y < 1) if rng.uniform() < 0.5 else (np.abs(x) < 1) & (np.abs(y) < 1)
        colour = space.palette[rng.integers(len(space.palette))] + rng.normal(0, 0.15, 3)
        albedo[inside & (surface == where)] = np.clip(colour, 0.02, 1)


class _Surfaces:
    """The nearest hit of every ray so far; surfaces are numbered in the order they are added."""

    def __init__(self, eye: np.ndarray, rays: np.ndarray):
        self.eye, self.rays = eye, rays
        self.depth = np.full(len(rays), _FAR)
        self.surface = np.zeros(len(rays), int)
        self.normals = np.zeros((len(rays), 3))
        self.count = 0

    def _add(self, depth: np.ndarray, normal: np.ndarray) -> None:
        nearer = (depth > 0) & (depth < self.depth)
        self.depth = np.where(nearer, depth, self.depth)
        self.surface[nearer] = self.count
        self.normals[nearer] = np.broadcast_to(normal, self.normals.shape)[nearer]
        self.count += 1

    def plane(self, point: np.ndarray, normal: np.ndarray) -> None:
        facing = self.rays @ normal
        distance = (point - self.eye) @ normal
        with np.errstate(divide="ignore"):
            self._add(np.where(facing < -1e-4, distance / facing, -1.0), normal)

    def ball(self, center: np.ndarray, radius: float) -> None:
        to_eye = self.eye - center
        a = np.einsum("nk,nk->n", self.rays, self.rays)
        b = self.rays @ to_eye
        root = b * b - a * (to_eye @ to_eye - radius * radius)
        depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, -1.0)
        self._add(depth, (self.eye + self.rays * depth[:, None] - center) / radius)

    def box(self, center: np.ndarray, half: np.ndarray, yaw: float) -> None:
        c, s = math.cos(yaw), math.sin(yaw)
        axes = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
        origin, rays = axes @ (self.eye - center), self.rays @ axes.T
        rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
        near = (-np.sign(rays) * half - origin) / rays
        far = (np.sign(rays) * half - origin) / rays
        # Maxima of three columns one by one: NumPy reduces short rows slowly.
        entry = np.maximum(np.maximum(near[:, 0], near[:, 1]), near[:, 2])
        leave = np.minimum(np.minimum(far[:, 0], far[:, 1]), far[:, 2])
        face = np.where(near[:, 0] == entry, 0, np.where(near[:, 1] == entry, 1, 2))
        normal = -np.sign(np.take_along_axis(rays, face[:, None], axis=1)) * axes[face]
        self._add(np.where(entry < leave, entry, -1.0), normal)
