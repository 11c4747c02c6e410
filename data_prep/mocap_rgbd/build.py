"""Renders `mocap_rgbd` in parallel, one task a shard, and puts the dataset together."""

import pathlib

import numpy as np

from data_prep import engine, rendered, writer
from data_prep.mocap_rgbd import cameras, performers
from data_prep.mocap_rgbd.presets import PRESETS, VERSION, Preset
from hallujax.errors import UsageError

NAME = "mocap_rgbd"
_DESCRIPTION = (
    "Motion capture of 15 actions (one recording each, from pybullet's DeepMimic data), performed by "
    "synthetic performers and rendered to RGB, noisy metric depth and 3-D joints from three cameras."
)


def prepare(out, preset="quick", seed=0, workers=None, progress=True) -> pathlib.Path:
    """Renders the dataset to `out`/mocap_rgbd and returns that path.

    A complete dataset of the same preset and seed is left alone; an interrupted rendering goes on behind its
    last finished shard. The bytes depend on preset and seed alone, not on the number of `workers` (default:
    all cores).

    Raises:
        UsageError: unknown preset, pybullet is missing, or another dataset is there.
        DataError: the disk is full or has too little space, or a worker died.
    """
    preset = _preset(preset)
    said = f"{preset.name}, seed {seed}, {preset.clips} clips"
    return rendered.render(NAME, pathlib.Path(out), seed, lambda: _job(preset, seed), said, workers, progress)


def _job(preset: Preset, seed: int) -> engine.Job:
    return rendered.job(
        NAME,
        preset,
        seed,
        version=VERSION,
        description=_DESCRIPTION,
        modalities=_modalities(preset),
        facts={
            "classes": list(preset.actions),
            "intrinsics": cameras.intrinsics(preset.size),
            "joint_names": list(performers.LINKS),
        },
        index=lambda: _index(preset),
        render_shard=_render_shard,
        clips=[len(mine) * preset.cameras for mine in _shares(preset)],
        frames=preset.clips * preset.frames,
    )


def _shares(preset: Preset) -> list[np.ndarray]:
    """The numbers of the performances of each shard."""
    return np.array_split(np.arange(preset.performances), preset.shards)


def _preset(preset) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r} of {NAME}: one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _modalities(preset: Preset) -> dict[str, writer.Modality]:
    side = (preset.size, preset.size)
    return {
        "rgb": writer.Modality("jpeg", (*side, 3)),
        "depth": writer.Modality("png16", side),
        "joints": writer.Modality("floats", (len(performers.LINKS), 5)),
    }


def _performances(preset: Preset):
    """All performances in the order of the dataset; each gives one clip a camera."""
    from data_prep.mocap_rgbd.render import Performance

    return [
        Performance(performer, repetition, action)
        for performer in range(1, preset.performers + 1)
        for repetition in range(1, preset.repetitions + 1)
        for action in range(len(preset.actions))
    ]


def _index(preset: Preset) -> np.ndarray:
    index = writer.clip_index(_modalities(preset), preset.clips)
    rows = [(what, camera) for what in _performances(preset) for camera in range(1, preset.cameras + 1)]
    for row, (what, camera) in zip(index, rows, strict=True):
        row["clip"] = what.clip_id(camera)
        row["label"], row["subject"], row["camera"] = what.action, what.performer, camera
        row["setup"], row["repetition"] = what.setup, what.repetition
    for name in _modalities(preset):
        index[f"{name}_length"] = preset.frames
        index[f"{name}_first"] = np.arange(preset.clips) * preset.frames
    return index


def _render_shard(directory: pathlib.Path, shard: int, *, preset: Preset, seed: int) -> None:
    """Renders and writes one shard."""
    from data_prep.mocap_rgbd.body import Body
    from data_prep.mocap_rgbd.render import render

    everything = _performances(preset)
    with Body() as body:
        clips = (clip for number in _shares(preset)[shard] for clip in render(body, preset, seed, everything[number]))
        records = ((c.clip, {"rgb": c.rgb, "depth": c.depth, "joints": c.joints}) for c in clips)
        writer.write_shard(directory, NAME, _modalities(preset), shard, preset.shards, records)
