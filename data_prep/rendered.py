"""What the rendered datasets share: the renderer must be there, what is complete is left alone, a task is a shard."""

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import engine, writer
from hallujax.errors import UsageError

_BYTES_PER_PIXEL = 2.1  # of all modalities together, measured in `mocap_rgbd`'s `quick`; larger frames take half


def render(
    name: str,
    out: pathlib.Path,
    seed: int,
    job: Callable[[], engine.Job],
    said: str,
    workers: int | None,
    progress: bool,
) -> pathlib.Path:
    """Renders `job()` to `out`/`name` and returns that path; `said` tells people which of its kinds it is.

    Raises:
      UsageError: pybullet is missing, the seed is negative, or another dataset is there.
      DataError: the disk is full or has too little space, or a worker died.
    """
    if importlib.util.find_spec("pybullet") is None:
        raise UsageError(f"rendering {name} needs pybullet: pip install 'hallujax[demo]' (Python 3.11 has wheels)")
    if seed < 0:
        raise UsageError(f"the seed of {name} must not be negative: {seed}")
    described = job()
    if engine.is_complete(out, described):
        if progress:
            print(f"{out / name}: already complete ({said})")
        return out / name
    return engine.write(out, described, workers, progress)


def job(
    name: str,
    preset: Any,
    seed: int,
    *,
    version: str,
    description: str,
    modalities: dict[str, writer.Modality],
    facts: Mapping[str, Any],
    index: Callable[[], np.ndarray],
    render_shard: Callable[..., None],
    clips: Sequence[int],
    frames: int,
) -> engine.Job:
    """The work on one rendered dataset, all of which is known beforehand.

    Args:
      name, version, description: of the dataset.
      preset: a dataclass with `name`, `size`, `shards` and `depth_noise`.
      modalities: what is stored.
      facts: for dataset.json, beside those that every rendered dataset has.
      index: makes the clip index.
      render_shard: called with the folder, the shard's number, and `preset` and `seed`.
      clips: of each shard.
      frames: in all, of which the size on disk is estimated.
    """
    identity = {"version": version, "seed": seed, **dataclasses.asdict(preset)}
    info = {
        "version": version,
        "preset": preset.name,
        "seed": seed,
        "identity": identity,
        "frame_size": [preset.size, preset.size],
        "depth_range_mm": [0, int(1000 * preset.depth_noise.maximum)],
        **facts,
    }

    def finish(directory: pathlib.Path, target: pathlib.Path, results: list) -> None:
        del results
        engine.clean(directory)
        writer.finish(directory, target, name, modalities, preset.shards, index(), info, description)

    return engine.Job(
        name=name,
        title=f"{name} {preset.name}, seed {seed}",
        identity=identity,
        modalities=modalities,
        tasks=[functools.partial(render_shard, preset=preset, seed=seed)] * preset.shards,
        clips=clips,
        estimated_bytes=int(frames * preset.size**2 * _BYTES_PER_PIXEL),
        finish=finish,
    )
