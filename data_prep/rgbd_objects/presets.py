"""Sizes and difficulty of `rgbd_objects`."""

import dataclasses

from data_prep.mocap_rgbd.presets import EASIER, DepthNoise, Difficulty
from data_prep.rgbd_objects.shapes import CLASSES

# Part of the identity of a rendered dataset: raise it when the same preset and seed give other bytes.
VERSION = "1.0.0"


# What `mocap_rgbd` has, with rooms that recur more rarely: there is one image of each where a clip has a dozen.
_DIFFICULTY = Difficulty(rooms=24)
_DEPTH_NOISE = DepthNoise()


@dataclasses.dataclass(frozen=True)
class Preset:
    """One size of the dataset: classes * instances * views images."""

    name: str
    size: int  # pixels, square
    instances: int  # of each class: another shape, other materials
    views: int  # of each instance, each from its own sector of the half circle in front of it
    shards: int  # fixed here and never by the number of workers, so the bytes do not depend on it
    supersample: int = 2
    classes: tuple[str, ...] = tuple(CLASSES)
    difficulty: Difficulty = _DIFFICULTY
    depth_noise: DepthNoise = _DEPTH_NOISE

    @property
    def objects(self) -> int:
        return len(self.classes) * self.instances

    @property
    def images(self) -> int:
        return self.objects * self.views


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", 32, instances=4, views=3, shards=2, classes=("chair", "lamp", "mug", "table")),
        Preset("quick", 64, instances=40, views=6, shards=28, difficulty=dataclasses.replace(EASIER, rooms=24)),
        Preset("standard", 64, instances=80, views=8, shards=56),
    )
}
