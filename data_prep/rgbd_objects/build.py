"""Renders `rgbd_objects` in parallel, one task a shard, and puts the dataset together."""

import pathlib

import numpy as np

from data_prep import engine, rendered, writer
from data_prep.mocap_rgbd import cameras
from data_prep.rgbd_objects.presets import PRESETS, VERSION, Preset
from hallujax.errors import UsageError

NAME = "rgbd_objects"
_DESCRIPTION = (
    "Single RGB-D images of furniture and small things, made of primitives in random proportions and meshes of "
    "pybullet_data, in rendered rooms, with a depth sensor's noise."
)


def prepare(out, preset="quick", seed=0, workers=None, progress=True) -> pathlib.Path:
    """Renders the dataset to `out`/rgbd_objects and returns that path; as `mocap_rgbd.prepare`.

    Raises:
        UsageError: unknown preset, pybullet is missing, or another dataset is there.
        DataError: the disk is full or has too little space, or a worker died.
    """
    if not isinstance(preset, Preset) and preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r} of {NAME}: one of {', '.join(PRESETS)}")
    preset = preset if isinstance(preset, Preset) else PRESETS[preset]
    said = f"{preset.name}, seed {seed}, {preset.images} images"
    return rendered.render(NAME, pathlib.Path(out), seed, lambda: _job(preset, seed), said, workers, progress)


def _job(preset: Preset, seed: int) -> engine.Job:
    return rendered.job(
        NAME,
        preset,
        seed,
        version=VERSION,
        description=_DESCRIPTION,
        modalities=_modalities(preset),
        facts={"classes": list(preset.classes), "intrinsics": cameras.intrinsics(preset.size)},
        index=lambda: _index(preset),
        render_shard=_render_shard,
        clips=[len(mine) * preset.views for mine in _shares(preset)],
        frames=preset.images,
    )


def _shares(preset: Preset) -> list[np.ndarray]:
    """The numbers of the objects of each shard."""
    return np.array_split(np.arange(preset.objects), preset.shards)


def _modalities(preset: Preset) -> dict[str, writer.Modality]:
    side = (preset.size, preset.size)
    return {"rgb": writer.Modality("jpeg", (*side, 3)), "depth": writer.Modality("png16", side)}


def _things(preset: Preset) -> list:
    """All objects in the order of the dataset; each gives one image a view."""
    from data_prep.rgbd_objects.render import Thing

    return [Thing(label, n) for n in range(1, preset.instances + 1) for label in range(len(preset.classes))]


def _index(preset: Preset) -> np.ndarray:
    """`subject` is the instance, `camera` the view's sector."""
    index = writer.clip_index(_modalities(preset), preset.images)
    rows = [(thing, view) for thing in _things(preset) for view in range(1, preset.views + 1)]
    for row, (thing, view) in zip(index, rows, strict=True):
        row["clip"] = thing.clip_id(preset, view)
        row["label"], row["subject"], row["camera"] = thing.label, thing.instance, view
    for name in _modalities(preset):
        index[f"{name}_length"] = 1
        index[f"{name}_first"] = np.arange(preset.images)
    return index


def _render_shard(directory: pathlib.Path, shard: int, *, preset: Preset, seed: int) -> None:
    """Renders and writes one shard."""
    from data_prep.mocap_rgbd.world import World
    from data_prep.rgbd_objects.render import render

    everything = _things(preset)
    with World() as world:
        images = (image for n in _shares(preset)[shard] for image in render(world, preset, seed, everything[n]))
        records = ((image.clip, {"rgb": image.rgb, "depth": image.depth}) for image in images)
        writer.write_shard(directory, NAME, _modalities(preset), shard, preset.shards, records)
