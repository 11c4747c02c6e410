"""Synthetic performers: a body, its habits and its clothes."""

import dataclasses
import pathlib
import xml.etree.ElementTree as ElementTree

import numpy as np

# The links of pybullet's humanoid.urdf; each link's frame sits at the joint of that name.
LINKS = (
    "root",
    "chest",
    "neck",
    "right_hip",
    "right_knee",
    "right_ankle",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_hip",
    "left_knee",
    "left_ankle",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
)
_REACH = 1.15  # limbs longer than the URDF's, which leave gaps at elbows and knees
_UNITS = 4.0  # the URDF is drawn at four times life size
_LEG, _ARM = ("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")


@dataclasses.dataclass(frozen=True)
class Performer:
    """Body factors (1 is the URDF's), `tempo`, constant pose offsets `style` [12,3] in radians, and skin [3]
    in 0..1."""

    scale: float
    girth: float
    legs: float
    arms: float
    tempo: float
    style: np.ndarray
    skin: np.ndarray


def performer(seed: int, number: int, style: float) -> Performer:
    """The performer `number` (from 1) of a dataset: the same in every clip."""
    rng = np.random.default_rng([seed, 1, number])
    tone = rng.uniform(0, 1)
    return Performer(
        scale=rng.uniform(0.9, 1.12),
        girth=rng.uniform(0.9, 1.4),
        legs=rng.uniform(0.94, 1.06),
        arms=rng.uniform(0.92, 1.08),
        tempo=rng.uniform(0.8, 1.25),
        style=rng.normal(0, style, (12, 3)),
        skin=(1 - tone) * np.array([0.92, 0.74, 0.62]) + tone * np.array([0.36, 0.23, 0.17]),
    )


def write_urdf(who: Performer, source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes pybullet's humanoid with this performer's proportions, and a torso between its shoulders."""
    # The file pybullet ships ends in a zero byte, which no XML parser takes.
    tree = ElementTree.fromstring(source.read_text().rstrip("\0"))
    for joint in tree.findall("joint"):
        if joint.find("axis") is None:
            # The default, written out: pybullet warns on standard output about every missing one.
            ElementTree.SubElement(joint, "axis", xyz="1 0 0")
        length = _length(joint.find("child").get("link"), who)
        _scale(joint.find("origin"), "xyz", [1, length, 1])
    for link in tree.findall("link"):
        name = link.get("name")
        for shape in link.findall("collision"):
            own = who.legs if _is(name, _LEG) else who.arms if _is(name, _ARM) else 1.0
            _scale(shape.find("origin"), "xyz", [1, own, 1])
            for geometry in shape.find("geometry"):
                for key in ("radius", "length"):
                    if geometry.get(key):
                        factor = own * _REACH if key == "length" else 1.0 if name == "neck" else who.girth
                        geometry.set(key, str(float(geometry.get(key)) * factor))
        if name == "chest":
            _capsule(link, radius=0.32 * who.girth, length=0.84, center=[-0.05, 0.72, 0], upright=False)
            _capsule(link, radius=0.40 * who.girth, length=0.5, center=[0, 0.25, 0], upright=True)
        if name == "root":
            _capsule(link, radius=0.34 * who.girth, length=0.42, center=[0, 0.12, 0], upright=False)
            _capsule(link, radius=0.30 * who.girth, length=0.5, center=[0, 0.62, 0], upright=True)
        if name == "neck":
            _capsule(link, radius=0.15, length=0.4, center=[0, 0.15, 0], upright=True)
    ElementTree.ElementTree(tree).write(target)


def _is(link: str, parts: tuple[str, ...]) -> bool:
    return link.partition("_")[2] in parts


def _length(child: str, who: Performer) -> float:
    """Factor of the bone that ends at this joint: hips and shoulders hang on the torso, which keeps its
    length."""
    if child.endswith(("knee", "ankle")):
        return who.legs
    return who.arms if child.endswith(("elbow", "wrist")) else 1.0


def _scale(element, key: str, factors) -> None:
    values = [float(v) * f for v, f in zip(element.get(key).split(), factors, strict=True)]
    element.set(key, " ".join(f"{v:.6f}" for v in values))


def _capsule(link, radius: float, length: float, center, upright: bool) -> None:
    """Adds a capsule along y (`upright`) or from side to side, in URDF units."""
    shape = ElementTree.SubElement(link, "collision")
    ElementTree.SubElement(
        shape, "origin", rpy="-1.570796 0 0" if upright else "0 0 0", xyz=" ".join(str(c) for c in center)
    )
    geometry = ElementTree.SubElement(shape, "geometry")
    ElementTree.SubElement(geometry, "capsule", radius=str(radius), length=str(length))


def global_scaling(who: Performer) -> float:
    """pybullet's `globalScaling` for this performer's URDF."""
    return who.scale / _UNITS


def clothes(rng: np.random.Generator, who: Performer, palette: np.ndarray, camouflage: float) -> np.ndarray:
    """Base colours [15,3] of the links: shirt, trousers, shoes and skin; sleeves and shorts by chance.

    `camouflage` is the share of a colour of the scene's `palette` [P,3] in each garment.
    """
    shirt, trousers, shoes = (
        camouflage * palette[rng.integers(len(palette))] + (1 - camouflage) * rng.uniform(0.05, 0.95, 3)
        for _ in range(3)
    )
    long_sleeves, long_trousers = rng.uniform(size=2) < 0.6
    colours = []
    for link in LINKS:
        if link in ("chest",) or link.endswith("shoulder"):
            colours.append(shirt)
        elif link.endswith("elbow"):
            colours.append(shirt if long_sleeves else who.skin)
        elif link == "root" or link.endswith("hip"):
            colours.append(trousers)
        elif link.endswith("knee"):
            colours.append(trousers if long_trousers else who.skin)
        elif link.endswith("ankle"):
            colours.append(shoes)
        else:
            colours.append(who.skin)
    return np.array(colours)
