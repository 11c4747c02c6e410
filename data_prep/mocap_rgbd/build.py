"""Renders `mocap_rgbd` in parallel, one task a shard, and puts the dataset together."""

import contextlib
import ctypes
import dataclasses
import hashlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from data_prep import writer
from data_prep.mocap_rgbd import cameras, performers
from data_prep.mocap_rgbd.presets import PRESETS, VERSION, Preset
from hallujax.errors import DataError, UsageError

NAME = "mocap_rgbd"
_DESCRIPTION = (
    "Motion capture of 15 actions (one recording each, from pybullet's DeepMimic data), performed by "
    "synthetic performers and rendered to RGB, noisy metric depth and 3-D joints from three cameras."
)


def prepare(out, preset="quick", seed=0, workers=None, progress=True, force=False) -> pathlib.Path:
    """Renders the dataset to `out`/mocap_rgbd and returns that path.

    A complete dataset of the same preset and seed is left alone; an interrupted rendering goes on behind its
    last finished shard. The bytes depend on preset and seed alone, not on the number of `workers` (default:
    all cores).

    Raises:
        UsageError: unknown preset, pybullet is missing, or another dataset is there and `force` is not set.
        DataError: the disk is full, or a worker died.
    """
    preset = _preset(preset)
    if importlib.util.find_spec("pybullet") is None:
        raise UsageError("rendering mocap_rgbd needs pybullet: pip install 'hallujax[demo]' (Python 3.11 has wheels)")
    if seed < 0:
        raise UsageError(f"the seed of {NAME} must not be negative: {seed}")
    out = pathlib.Path(out)
    target = out / NAME
    identity = _identity(preset, seed)
    if _found(target) == identity and not force:
        if progress:
            print(f"{target}: already complete ({preset.name}, seed {seed}, {preset.clips} clips)")
        return target
    if target.exists() and not force:
        raise UsageError(
            f"{target} holds something else than {preset.name}, seed {seed}: choose another folder or force"
        )
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    partial = out / f".{NAME}-{key}.partial"
    try:
        for other in out.glob(f".{NAME}-*.partial"):
            if other != partial:
                shutil.rmtree(other)
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}") from error
    modalities = _modalities(preset)
    todo = [s for s in range(preset.shards) if not writer.finished(partial, NAME, modalities, s, preset.shards)]
    workers = max(1, min(workers or os.cpu_count() or 1, len(todo) or 1))
    try:
        with _bar(progress, preset, len(todo)) as advance:
            _run(partial, preset, seed, todo, workers, advance)
    finally:
        writer.sweep(partial)
    info = {
        "version": VERSION,
        "preset": preset.name,
        "seed": seed,
        "identity": identity,
        "classes": list(preset.actions),
        "frame_size": [preset.size, preset.size],
        "depth_range_mm": [0, int(1000 * preset.depth_noise.maximum)],
        "intrinsics": cameras.intrinsics(preset.size),
        "joint_names": list(performers.LINKS),
    }
    writer.finish(partial, target, NAME, modalities, preset.shards, _index(preset), info, _DESCRIPTION)
    return target


def _preset(preset) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r} of {NAME}: one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _identity(preset: Preset, seed: int) -> dict:
    """Everything the bytes depend on, as it reads back from JSON."""
    return json.loads(json.dumps({"version": VERSION, "seed": seed, **dataclasses.asdict(preset)}))


def _found(target: pathlib.Path):
    with contextlib.suppress(OSError, ValueError):
        return json.loads((target / "dataset.json").read_text()).get("identity")
    return None


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


def _render_shard(directory: pathlib.Path, preset: Preset, seed: int, shard: int) -> int:
    """Renders and writes one shard; returns how many clips it holds."""
    from data_prep.mocap_rgbd.body import Body
    from data_prep.mocap_rgbd.render import render

    mine = np.array_split(np.arange(preset.performances), preset.shards)[shard]
    everything = _performances(preset)
    with Body() as body:
        clips = (clip for number in mine for clip in render(body, preset, seed, everything[number]))
        records = ((c.clip, {"rgb": c.rgb, "depth": c.depth, "joints": c.joints}) for c in clips)
        writer.write_shard(directory, NAME, _modalities(preset), shard, preset.shards, records)
    return len(mine) * preset.cameras


def _die_with_parent(parent: int) -> None:
    """Workers leave Ctrl-C to the parent and, on Linux, are killed when it dies however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _run(directory, preset, seed, shards, workers, advance) -> None:
    """Renders `shards` in spawned processes; on an error or Ctrl-C they are stopped at once."""
    if not shards:
        return
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_die_with_parent,
            initargs=(os.getpid(),),
        )
        try:
            futures = [pool.submit(_render_shard, directory, preset, seed, shard) for shard in shards]
            for future in as_completed(futures):
                advance(future.result())
            pool.shutdown()
        except BrokenProcessPool as error:
            raise DataError(f"a rendering process died (out of memory?); start again to go on: {directory}") from error
        finally:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _one_thread_each():
    """NumPy's BLAS would start as many threads in every worker as there are cores; children inherit the
    limit."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _bar(progress: bool, preset: Preset, shards: int):
    """Yields `advance(clips)`: a progress bar on a terminal, a line a shard elsewhere."""
    total = preset.clips * shards // preset.shards
    title = f"{NAME} {preset.name}"
    if not progress:
        yield lambda clips: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total)
            yield lambda clips: bar.advance(task, clips)
    else:
        started, done = time.monotonic(), 0

        def line(clips: int) -> None:
            nonlocal done
            done += clips
            spent = time.monotonic() - started
            left = spent * max(total - done, 0) / done
            print(
                f"{title}: {done}/{total} clips, {spent:.0f} s, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

        yield line
