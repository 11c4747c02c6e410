"""What the objects are made of: boxes, cylinders and balls in random proportions, and meshes of pybullet_data.

The world is y-up, in metres; an object stands on the floor at y = 0 around the origin and looks along z. Proportions
vary within a class as those of furniture do; `render.standing` brings all objects to about one size.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

Generator = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Part:
    """A solid.

    Attributes:
      kind: `box`, `cylinder` (upright) or `ball`, or the path of a mesh in pybullet_data.
      size: [3], its extents along x, y and z; a cylinder and a ball are as wide as the first says.
      centre: [3].
      material: parts of one number have one texture.
    """

    kind: str
    size: np.ndarray
    centre: np.ndarray
    material: int = 0


def box(x: float, y: float, z: float, width: float, height: float, depth: float, material: int = 0) -> Part:
    """On (x, y, z), the middle of its lower face."""
    return Part("box", np.array([width, height, depth]), np.array([x, y + height / 2, z]), material)


def cylinder(x: float, y: float, z: float, width: float, height: float, material: int = 0) -> Part:
    """On (x, y, z), the middle of its lower face."""
    return Part("cylinder", np.array([width, height, width]), np.array([x, y + height / 2, z]), material)


def ball(x: float, y: float, z: float, width: float, material: int = 0) -> Part:
    """Around (x, y, z)."""
    return Part("ball", np.full(3, width), np.array([x, y, z]), material)


def _legs(rng: Generator, width: float, depth: float, height: float, material: int) -> list[Part]:
    """Four at the corners, round or square, or a column on a foot."""
    thick = rng.uniform(0.03, 0.07)
    if rng.uniform() < 0.25:
        foot = rng.uniform(0.5, 0.8) * min(width, depth)
        return [cylinder(0, 0, 0, foot, 0.04, material), cylinder(0, 0, 0, 1.5 * thick, height, material)]
    corners = [(x * (width - thick) / 2, z * (depth - thick) / 2) for x in (-1, 1) for z in (-1, 1)]
    if rng.uniform() < 0.5:
        return [cylinder(x, 0, z, thick, height, material) for x, z in corners]
    return [box(x, 0, z, thick, height, thick, material) for x, z in corners]


def _table(rng: Generator) -> list[Part]:
    width, depth, height = rng.uniform(0.8, 1.8), rng.uniform(0.6, 1.0), rng.uniform(0.45, 0.8)
    top = rng.uniform(0.03, 0.08)
    if rng.uniform() < 0.25:
        return [cylinder(0, height, 0, depth * 1.2, top), *_legs(rng, 0.8 * depth, 0.8 * depth, height, 1)]
    return [box(0, height, 0, width, top, depth), *_legs(rng, 0.95 * width, 0.95 * depth, height, 1)]


def _stool(rng: Generator) -> list[Part]:
    width, height = rng.uniform(0.3, 0.45), rng.uniform(0.45, 0.75)
    thick = rng.uniform(0.03, 0.12)
    seat = cylinder(0, height, 0, width, thick) if rng.uniform() < 0.7 else box(0, height, 0, width, thick, width)
    return [seat, *_legs(rng, 0.85 * width, 0.85 * width, height, 1)]


def _chair(rng: Generator) -> list[Part]:
    width, depth, height = rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.5)
    thick, back = rng.uniform(0.03, 0.08), rng.uniform(0.35, 0.65)
    parts = [box(0, height, 0, width, thick, depth), *_legs(rng, width, depth, height, 1)]
    if rng.uniform() < 0.5:
        parts.append(box(0, height + thick, (0.04 - depth) / 2, width, back, 0.04))
    else:  # a frame with slats
        for x in (-1, 1):
            parts.append(box(x * (width - 0.04) / 2, height + thick, (0.04 - depth) / 2, 0.04, back, 0.04, 1))
        for rise in np.linspace(0.35, 1.0, int(rng.integers(2, 4))):
            parts.append(box(0, height + thick + rise * back - 0.08, (0.04 - depth) / 2, width, 0.08, 0.03))
    if rng.uniform() < 0.4:
        for x in (-1, 1):
            parts.append(box(x * width / 2, height + 0.22, 0, 0.05, 0.04, depth, 1))
            parts.append(box(x * width / 2, height, 0.35 * depth, 0.04, 0.22, 0.04, 1))
    return parts


def _sofa(rng: Generator) -> list[Part]:
    width, depth, height = rng.uniform(1.2, 2.3), rng.uniform(0.75, 1.0), rng.uniform(0.35, 0.45)
    arm, back = rng.uniform(0.12, 0.25), rng.uniform(0.3, 0.5)
    parts = [box(0, 0.05, 0, width, height - 0.05, depth)]
    parts.append(box(0, height, (0.2 - depth) / 2, width, back, 0.2))
    parts += [box(x * (width - arm) / 2, height, 0, arm, 0.6 * back, depth) for x in (-1, 1)]
    count = int(rng.integers(2, 4))
    inner = (width - 2 * arm) / count
    for i in range(count):
        x = (i - (count - 1) / 2) * inner
        parts.append(box(x, height, 0.1, 0.95 * inner, rng.uniform(0.06, 0.14), depth - 0.22, 1))
    return parts


def _bed(rng: Generator) -> list[Part]:
    width, length, height = rng.uniform(0.9, 1.8), rng.uniform(1.8, 2.1), rng.uniform(0.2, 0.4)
    head = rng.uniform(0.5, 1.0)
    parts = [box(0, 0.1, 0, width, height - 0.1, length, 0), box(0, height, 0, 0.97 * width, 0.2, 0.97 * length, 1)]
    parts.append(box(0, 0, -length / 2, width, height + head, 0.06, 0))
    if rng.uniform() < 0.5:
        parts.append(box(0, 0, length / 2, width, height + 0.5 * head, 0.06, 0))
    for i in range(count := 1 if width < 1.2 else 2):
        x = (i - (count - 1) / 2) * width / 2
        across = 0.4 * width if count == 2 else 0.7 * width
        parts.append(box(x, height + 0.2, 0.3 - length / 2, across, 0.1, 0.35, 2))
    return parts


def _bookshelf(rng: Generator) -> list[Part]:
    width, height, depth = rng.uniform(0.6, 1.1), rng.uniform(1.2, 2.0), rng.uniform(0.25, 0.4)
    parts = [box(x * width / 2, 0, 0, 0.03, height, depth) for x in (-1, 1)]
    if rng.uniform() < 0.6:
        parts.append(box(0, 0, -depth / 2, width, height, 0.02))
    shelves = int(rng.integers(3, 6))
    for i in range(shelves + 1):
        parts.append(box(0, i * (height - 0.03) / shelves, 0, width, 0.03, depth))
        free, x = rng.uniform(0.3, 0.95) * (width - 0.06), -width / 2 + 0.03
        while i < shelves and free > 0.1:
            thick, tall = rng.uniform(0.04, 0.12), rng.uniform(0.5, 0.85) * height / shelves
            book = 1 + len(parts) % 3
            parts.append(box(x + thick / 2, i * height / shelves + 0.03, 0, thick, tall, 0.8 * depth, book))
            x, free = x + thick, free - thick
    return parts


def _dresser(rng: Generator) -> list[Part]:
    width, height, depth = rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.1), rng.uniform(0.4, 0.55)
    parts = [box(0, 0.06, 0, width, height - 0.06, depth), *_legs(rng, width, depth, 0.06, 1)[:4]]
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(1, 3))
    for row in range(rows):
        for column in range(columns):
            w, h = width / columns, (height - 0.08) / rows
            x, y = (column - (columns - 1) / 2) * w, 0.07 + row * h
            parts.append(box(x, y + 0.02, depth / 2, 0.92 * w, h - 0.03, 0.03, 2))
            parts.append(ball(x, y + h / 2, depth / 2 + 0.03, 0.05, 1))
    return parts


def _lamp(rng: Generator) -> list[Part]:
    height, shade, tall = rng.uniform(0.4, 1.5), rng.uniform(0.25, 0.5), rng.uniform(0.18, 0.35)
    parts = [cylinder(0, 0, 0, rng.uniform(0.2, 0.3), 0.03, 1), cylinder(0, 0, 0, rng.uniform(0.02, 0.05), height, 1)]
    if rng.uniform() < 0.3:
        parts.append(ball(0, 0.12, 0, rng.uniform(0.15, 0.25), 1))
    if rng.uniform() < 0.3:
        parts.append(ball(0, height + shade / 2, 0, shade))
    else:  # narrower towards the top
        steps = 6
        for i in range(steps):
            parts.append(cylinder(0, height + i * tall / steps, 0, shade * (1 - 0.5 * i / steps), tall / steps))
    return parts


def _monitor(rng: Generator) -> list[Part]:
    width, height, rise = rng.uniform(0.4, 0.8), rng.uniform(0.28, 0.42), rng.uniform(0.06, 0.2)
    thick = rng.uniform(0.02, 0.06) if rng.uniform() < 0.7 else rng.uniform(0.2, 0.4)
    parts = [box(0, rise, -thick / 2, width, height, thick)]
    parts.append(box(0, rise + 0.02, 0.005, width - 0.04, height - 0.04, 0.01, 1))
    parts.append(box(0, 0, -thick / 2, 0.06, rise, 0.04))
    foot = rng.uniform(0.18, 0.32)
    parts.append(cylinder(0, 0, -thick / 2, foot, 0.02) if rng.uniform() < 0.5 else box(0, 0, 0, foot, 0.02, 0.16))
    return parts


def _bottle(rng: Generator) -> list[Part]:
    width, height = rng.uniform(0.07, 0.12), rng.uniform(0.15, 0.25)
    neck, tall = rng.uniform(0.25, 0.5) * width, rng.uniform(0.05, 0.12)
    parts = [
        cylinder(0, 0, 0, width, height),
        ball(0, height, 0, width),
        cylinder(0, height, 0, neck, width / 2 + tall),
    ]
    parts.append(cylinder(0, height + width / 2 + tall, 0, 1.15 * neck, 0.02, 1))
    if rng.uniform() < 0.6:
        parts.append(cylinder(0, 0.3 * height, 0, 1.02 * width, 0.4 * height, 2))
    return parts


def _mesh(path: str, size: tuple[float, float, float]) -> Callable[[Generator], list[Part]]:
    """A mesh of these extents, each stretched by up to a quarter."""

    def make(rng: Generator) -> list[Part]:
        stretched = np.array(size) * np.exp(rng.uniform(-0.22, 0.22, 3))
        return [Part(path, stretched, np.array([0.0, stretched[1] / 2, 0.0]))]

    return make


# Those of the meshes that are not y-up, about x.
QUARTER_TURNS: Mapping[str, int] = {"objects/mug.obj": -1}

CLASSES: Mapping[str, Callable[[Generator], list[Part]]] = {
    "bed": _bed,
    "bookshelf": _bookshelf,
    "bottle": _bottle,
    "bunny": _mesh("bunny.obj", (0.93, 1.44, 1.97)),
    "chair": _chair,
    "dresser": _dresser,
    "duck": _mesh("duck_vhacd.obj", (1.65, 1.55, 1.16)),
    "lamp": _lamp,
    "monitor": _monitor,
    "mug": _mesh("objects/mug.obj", (0.082, 0.1, 0.122)),
    "sofa": _sofa,
    "stool": _stool,
    "table": _table,
    "teddy": _mesh("teddy2_VHACD_CHs.obj", (0.76, 0.93, 0.63)),
}
