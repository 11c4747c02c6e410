"""From a raw tree to a prepared dataset: clips are read in worker processes, bad ones are left out and counted.

A dataset's own module scans the raw tree into a `Raw`, quickly and without decoding, and gives the function that reads
one clip. What became of every clip is in `summary.json`, in the dataset and beside it.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep import engine, writer
from hallujax.errors import DataError

SUMMARY = "summary.json"
CLIPS_PER_SHARD = 32  # what a kill costs at most, for each worker
_SHARDS_AT_LEAST = 8  # of few clips, so that the cores have something to do
_REFUSALS_SHOWN = 20
_UNPAIRED = 0.1  # of the frames may lack a partner and be left out; where more do, something else is wrong
_BYTES_PER_PIXEL = {"jpeg": 0.5, "png": 3.0, "png16": 1.0}  # 0.34 and 0.52 measured in `mocap_rgbd`'s `standard`
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that was found, not yet read.

    Attributes:
      id: unique.
      label: number of its class.
      subject, camera, setup, repetition: 0 where nothing is known.
      split: one of `SPLITS`, or empty if the raw tree says nothing of it.
      sources: by modality, paths in the raw tree, relative to it.
      stamp: sizes of the files and lengths of the folders, so that a changed tree is another dataset.
    """

    id: str
    label: int
    subject: int = 0
    camera: int = 0
    setup: int = 0
    repetition: int = 0
    split: str = ""
    sources: Mapping[str, str]
    stamp: Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """A clip that was read.

    Attributes:
      frames: by modality, as `writer.write_shard` takes them.
      repaired: what had to be changed, or empty.
      remark: what to know of it all the same, or empty.
    """

    frames: Mapping[str, Sequence[np.ndarray | bytes]]
    repaired: str = ""
    remark: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raw:
    """A raw tree.

    Attributes:
      name: of the dataset. description: for TFDS. version: raised when the same tree gives other bytes.
      classes: names of the labels. modalities: what is written.
      clips: in the order of the dataset, ids unique.
      refused: (clip, reason) of those that are known to be bad before they are read.
      read: reads a clip in a worker; picklable. What it raises as DataError is the reason of a refusal.
      frames: about how many all clips have together.
      options: what else the bytes depend on. info: for dataset.json; holds `frame_size`.
      notes: lines for the screen.
    """

    name: str
    description: str
    version: str
    classes: Sequence[str]
    modalities: Mapping[str, writer.Modality]
    clips: Sequence[Clip]
    refused: Sequence[tuple[str, str]]
    read: Callable[[Clip], Reading]
    frames: int
    options: Mapping[str, Any]
    info: Mapping[str, Any]
    notes: Sequence[str] = ()


def pair(numbers: Mapping[str, Sequence[int]], unpaired: float = _UNPAIRED) -> tuple[list[int], str]:
    """The frame numbers that all modalities have, and what was left out, or nothing.

    Raises:
      DataError: there is none, or more than this share of the longest modality, `unpaired`, would be left out.
    """
    common = sorted(set.intersection(*map(set, numbers.values())))
    longest = max(map(len, numbers.values()))
    counts = ", ".join(f"{name} {len(found)}" for name, found in numbers.items())
    if not common or len(common) < (1 - unpaired) * longest:
        raise DataError(f"frames do not pair: {counts}, {len(common)} in common")
    alike = len(common) == longest
    return common, "" if alike else f"frames left out that have no partner: {counts}, {len(common)} in common"


def convert(
    raw: Raw,
    out: pathlib.Path,
    *,
    workers: int | None = None,
    strict: bool = False,
    run: engine.Runner | None = None,
) -> pathlib.Path:
    """Writes the dataset to `out`/NAME and returns that path; says what was kept, repaired and refused.

    `workers` and `run` as in `engine.write`.

    Raises:
      DataError: no clip is left, or one is refused and `strict` is set (then no dataset is written); or as
        `engine.write`.
      UsageError: `out` holds another dataset of that name.
    """
    if not raw.clips:
        _check(raw, out, _summary(raw, []), strict)
    job = _job(raw, out, strict)
    if engine.is_complete(out, job):
        outcomes = json.loads((out / raw.name / SUMMARY).read_text())
        _check(raw, out, outcomes, strict)
        print(f"{out / raw.name}: already complete, {_counts(outcomes)}")
        return out / raw.name
    target = engine.write(out, job, workers, run=run)
    shutil.copyfile(target / SUMMARY, out / SUMMARY)
    _say(raw, json.loads((target / SUMMARY).read_text()), target / SUMMARY)
    return target


def _job(raw: Raw, out: pathlib.Path, strict: bool) -> engine.Job:
    shards = min(len(raw.clips), max(_SHARDS_AT_LEAST, -(-len(raw.clips) // CLIPS_PER_SHARD)))
    shares = [[raw.clips[i] for i in numbers] for numbers in np.array_split(np.arange(len(raw.clips)), shards)]
    listed = json.dumps([[dataclasses.astuple(clip) for clip in raw.clips], raw.refused])
    identity = {
        "version": raw.version,
        "classes": list(raw.classes),
        "modalities": {name: dataclasses.asdict(modality) for name, modality in raw.modalities.items()},
        "options": dict(raw.options),
        "clips": hashlib.sha256(listed.encode()).hexdigest(),
    }
    pixels = {name: np.prod(modality.shape[:2]) for name, modality in raw.modalities.items()}
    a_frame = sum(_BYTES_PER_PIXEL.get(m.kind, 4.0) * pixels[name] for name, m in raw.modalities.items())

    def finish(directory: pathlib.Path, target: pathlib.Path, results: list[list[dict]]) -> None:
        outcomes = [outcome for shard in results for outcome in shard]
        summary = _summary(raw, outcomes)
        try:
            _check(raw, out, summary, strict)
        except DataError:
            # Those clips may be mended before the next start, with nothing in the tree's listing to show it.
            bad = [i for i, shard in enumerate(results) if any(o["status"] == "refused" for o in shard)]
            engine.forget(out, job, bad)
            raise
        engine.clean(directory)
        (directory / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
        info = {"version": raw.version, "identity": identity, "classes": list(raw.classes), **raw.info}
        index = _index(raw, {outcome["clip"]: outcome["lengths"] for outcome in outcomes})
        writer.finish(directory, target, raw.name, raw.modalities, shards, index, info, raw.description)

    job = engine.Job(
        name=raw.name,
        title=raw.name,
        identity=identity,
        modalities=raw.modalities,
        tasks=[
            functools.partial(
                _write_shard, name=raw.name, modalities=raw.modalities, shards=shards, clips=share, read=raw.read
            )
            for share in shares
        ],
        clips=[len(share) for share in shares],
        estimated_bytes=int(raw.frames * a_frame),
        finish=finish,
    )
    return job


def _summary(raw: Raw, outcomes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    read = [{key: outcome[key] for key in ("clip", "status", "reason")} for outcome in outcomes]
    unread = [{"clip": clip, "status": "refused", "reason": reason} for clip, reason in raw.refused]
    return sorted(read + unread, key=lambda outcome: outcome["clip"])


def _write_shard(
    directory: pathlib.Path,
    shard: int,
    *,
    name: str,
    modalities: Mapping[str, writer.Modality],
    shards: int,
    clips: Sequence[Clip],
    read: Callable[[Clip], Reading],
) -> list[dict[str, Any]]:
    """Reads and writes one shard; returns what became of each clip."""
    outcomes = []

    def readable():
        for clip in clips:
            try:
                reading = read(clip)
            except DataError as error:
                outcomes.append({"clip": clip.id, "status": "refused", "reason": str(error), "lengths": {}})
                continue
            reasons = [reason for reason in (reading.repaired, reading.remark) if reason]
            outcomes.append(
                {
                    "clip": clip.id,
                    "status": "repaired" if reading.repaired else "kept",
                    "reason": "; ".join(reasons),
                    "lengths": {modality: len(frames) for modality, frames in reading.frames.items()},
                }
            )
            yield clip.id, reading.frames

    writer.write_shard(directory, name, modalities, shard, shards, readable())
    return outcomes


def _index(raw: Raw, lengths: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    kept = [clip for clip in raw.clips if lengths[clip.id]]
    index = writer.clip_index(raw.modalities, len(kept), max(len(clip.id.encode()) for clip in kept))
    with_splits = any(clip.split for clip in kept)
    if with_splits:
        index = np.zeros(len(kept), [*index.dtype.descr, ("split", f"S{max(map(len, SPLITS))}")])
    for row, clip in zip(index, kept, strict=True):
        row["clip"] = clip.id.encode()
        for field in ("label", "subject", "camera", "setup", "repetition"):
            row[field] = getattr(clip, field)
        if with_splits:
            row["split"] = clip.split.encode()
        for name in raw.modalities:
            row[f"{name}_length"] = lengths[clip.id].get(name, 0)
    for name in raw.modalities:
        index[f"{name}_first"] = np.cumsum(index[f"{name}_length"]) - index[f"{name}_length"]
    return index


def _check(raw: Raw, out: pathlib.Path, summary: Sequence[Mapping[str, str]], strict: bool) -> None:
    refused = [outcome for outcome in summary if outcome["status"] == "refused"]
    if len(refused) < len(summary) and not (strict and refused):
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / SUMMARY).write_text(json.dumps(list(summary), indent=1) + "\n")
    first = f", {refused[0]['clip']} first: {refused[0]['reason']}" if refused else ""
    wish = "--strict: " if strict and len(refused) < len(summary) else ""
    raise DataError(f"{wish}{len(refused)} of {len(summary)} clips of {raw.name} are refused{first}")


def _counts(summary: Sequence[Mapping[str, str]]) -> str:
    counts = Counter(outcome["status"] for outcome in summary)
    return f"{len(summary)} clips: " + ", ".join(f"{counts[s]} {s}" for s in ("kept", "repaired", "refused"))


def _say(raw: Raw, summary: Sequence[Mapping[str, str]], path: pathlib.Path) -> None:
    """The counts, the remarks by how often they were made, and the first refusals, a line each."""
    print(f"{raw.name}: {_counts(summary)} ({path})")
    for note in raw.notes:
        print(f"  {note}")
    remarks = Counter(o["reason"] for o in summary if o["reason"] and o["status"] == "kept")
    for remark, count in remarks.most_common(_REFUSALS_SHOWN):
        print(f"  {count} kept: {remark}")
    bad = [outcome for outcome in summary if outcome["status"] in ("refused", "repaired")]
    for outcome in bad[:_REFUSALS_SHOWN]:
        print(f"  {outcome['status']} {outcome['clip']}: {outcome['reason']}")
    if len(bad) > _REFUSALS_SHOWN:
        print(f"  and {len(bad) - _REFUSALS_SHOWN} more")
