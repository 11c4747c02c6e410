"""The room around a performer, cast ray by ray in NumPy: it stands still, so it is drawn once a clip.

Every surface has a solid texture, a sum of a few sine waves in its own coordinates, so its band is known, plus on
the walls flat shapes ("posters") that only RGB can see.
"""

import dataclasses
import math

import numpy as np

from data_prep.mocap_rgbd.cameras import Camera
from data_prep.mocap_rgbd.presets import Difficulty

_WAVES = 8
_FAR = 1e6


@dataclasses.dataclass(frozen=True)
class Texture:
    """Solid textures of S surfaces: `base` [S,3], wave vectors [S,W,3] (radians a metre), `phase` [S,W], `colour` [S,W,3]."""

    base: np.ndarray
    vectors: np.ndarray
    phase: np.ndarray
    colour: np.ndarray

    def __call__(self, surface: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Albedo [N,3] in 0..1 of points [N,3], each on one `surface` [N]."""
        angle = np.einsum("nwk,nk->nw", self.vectors[surface], position) + self.phase[surface]
        albedo = self.base[surface] + np.einsum("nw,nwc->nc", np.sin(angle), self.colour[surface])
        return np.clip(albedo, 0.02, 1.0)


def texture(rng: np.random.Generator, base: np.ndarray, amplitude: float, wavelength) -> Texture:
    """Random textures around the colours `base` [S,3]; wavelengths in metres, `amplitude` the standard deviation."""
    surfaces = len(base)
    direction = rng.normal(size=(surfaces, _WAVES, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    length = np.exp(rng.uniform(*np.log(wavelength), (surfaces, _WAVES, 1)))
    # Mostly light and dark, a little colour.
    colour = rng.normal(0, 0.9, (surfaces, _WAVES, 1)) + rng.normal(0, 0.4, (surfaces, _WAVES, 3))
    return Texture(
        base,
        direction * (2 * np.pi / length),
        rng.uniform(0, 2 * np.pi, (surfaces, _WAVES)),
        # Longer waves are stronger, as in pictures of real rooms.
        colour * amplitude * math.sqrt(2) * length / np.sqrt(np.sum(length**2, axis=1, keepdims=True)),
    )


def palette(rng: np.random.Generator, colours: int = 5) -> np.ndarray:
    """The colours [P,3] of a scene: walls, objects, posters and part of the clothes come from it."""
    return rng.uniform(0.15, 0.85, (colours, 1)) + rng.uniform(-0.15, 0.15, (colours, 3))


@dataclasses.dataclass(frozen=True)
class Background:
    """What the camera sees without the performer, N = side * side pixels.

    `depth` [N] metres along the optical axis, `points` [N,3] in the world, `lit` and `shaded` [N,3] (0..1, in full
    light and in the performer's shadow), `cosine` [N] between the surface and the ray.
    """

    depth: np.ndarray
    points: np.ndarray
    lit: np.ndarray
    shaded: np.ndarray
    cosine: np.ndarray


def background(
    rng: np.random.Generator,
    camera: Camera,
    supersample: int,
    center: np.ndarray,
    reach: float,
    floor: float,
    colours: np.ndarray,
    light: np.ndarray,
    ambient: float,
    shadow: float,
    difficulty: Difficulty,
) -> Background:
    """Draws a room around `center` [3] as seen by `camera`, lit from the direction `light` [3].

    Walls and objects keep at least `reach` metres away from the vertical through `center`.
    """
    rays = camera.rays(supersample).reshape(-1, 3)
    forward = camera.rotation[2] * [1, 0, 1]
    forward /= np.linalg.norm(forward)
    surfaces = _Surfaces(camera.eye, rays)
    surfaces.plane(np.array([center[0], floor, center[2]]), np.array([0.0, 1.0, 0.0]))
    back = center + forward * (reach + rng.uniform(0.2, 1.6))
    wall = rng.normal(0, math.radians(15))
    side = 1 if rng.uniform() < 0.5 else -1
    surfaces.plane(back, -_turn(forward, wall))
    if rng.uniform() < 0.5:
        aside = _turn(forward, math.pi / 2) * side
        surfaces.plane(
            center + aside * (reach + rng.uniform(0.3, 0.9)), -_turn(aside, min(0.0, wall * side) * side)
        )
    walls = surfaces.count
    for _ in range(rng.integers(*difficulty.clutter, endpoint=True)):
        _clutter(rng, surfaces, center, reach, floor, forward)
    depth, surface, normal = surfaces.depth, surfaces.surface, surfaces.normals()
    points = camera.eye + rays * depth[:, None]
    base = np.clip(
        colours[rng.integers(len(colours), size=surfaces.count)] + rng.normal(0, 0.06, (surfaces.count, 3)),
        0,
        1,
    )
    albedo = texture(rng, base, difficulty.texture_amplitude / 2, difficulty.texture_wavelength)(
        surface, points
    )
    _posters(rng, albedo, surface, points, center, forward, floor, walls, colours, difficulty)
    diffuse = np.clip(normal @ light, 0, 1)[:, None]
    direct = (1 - ambient) * diffuse
    cosine = -np.einsum("nk,nk->n", normal, rays) / np.linalg.norm(rays, axis=1)
    return Background(
        depth, points, albedo * (ambient + direct), albedo * (ambient + direct) * (1 - shadow), np.abs(cosine)
    )


def _turn(vector: np.ndarray, angle: float) -> np.ndarray:
    """Turns about the vertical."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([c * vector[0] + s * vector[2], vector[1], c * vector[2] - s * vector[0]])


def _clutter(rng, surfaces: "_Surfaces", center, reach, floor, forward) -> None:
    """A box or a ball on the floor, behind the performer or well to the side."""
    beside = _turn(forward, math.pi / 2)
    behind, across = rng.uniform(-0.2, reach + 1.2), rng.uniform(-1.7, 1.7)
    if behind < reach:
        across = math.copysign(reach + rng.uniform(0.2, 0.7), across)
    spot = np.array([center[0], floor, center[2]]) + forward * behind + beside * across
    if rng.uniform() < 0.3:
        radius = rng.uniform(0.12, 0.4)
        surfaces.ball(spot + [0, rng.uniform(0, 1.0) + radius, 0], radius)
    else:
        half = np.array([rng.uniform(0.06, 0.4), rng.uniform(0.1, 0.85), rng.uniform(0.06, 0.3)])
        surfaces.box(spot + [0, half[1], 0], half, rng.uniform(0, math.pi))


def _posters(rng, albedo, surface, points, center, forward, floor, walls, colours, difficulty) -> None:
    """Paints ellipses and rectangles on the floor and walls, in place; some are as tall and thin as a limb."""
    beside = _turn(forward, math.pi / 2)
    across, up, flat = (points - center) @ beside, points[:, 1] - floor, (points - center) @ forward
    for _ in range(rng.integers(*difficulty.posters, endpoint=True)):
        where = int(rng.integers(walls))
        on_floor = where == 0
        a = across - rng.uniform(-1.3, 1.3)
        b = flat - rng.uniform(-1.0, 1.0) if on_floor else up - rng.uniform(0.2, 1.9)
        angle = rng.uniform(0, math.pi)
        long, wide = rng.uniform(0.15, 0.6), rng.uniform(0.06, 0.3)
        x = (a * math.cos(angle) + b * math.sin(angle)) / long
        y = (b * math.cos(angle) - a * math.sin(angle)) / wide
        inside = (x * x + y * y < 1) if rng.uniform() < 0.5 else (np.abs(x) < 1) & (np.abs(y) < 1)
        colour = np.clip(colours[rng.integers(len(colours))] + rng.normal(0, 0.15, 3), 0.02, 1)
        albedo[inside & (surface == where)] = colour


class _Surfaces:
    """The nearest hit of every ray so far; surfaces are numbered in the order they are added."""

    def __init__(self, eye: np.ndarray, rays: np.ndarray):
        self.eye, self.rays = eye, rays
        self.depth = np.full(len(rays), _FAR)
        self.surface = np.zeros(len(rays), int)
        self._normals = np.zeros((len(rays), 3))
        self.count = 0

    def normals(self) -> np.ndarray:
        return self._normals

    def _add(self, depth: np.ndarray, normal: np.ndarray) -> None:
        nearer = (depth > 0) & (depth < self.depth)
        self.depth = np.where(nearer, depth, self.depth)
        self.surface[nearer] = self.count
        self._normals[nearer] = np.broadcast_to(normal, self._normals.shape)[nearer]
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
