"""What a prepared dataset holds, and what in it looks wrong: the command `hallujax inspect`."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from data_prep.contact_sheet import contact_sheet
from data_prep.convert import SUMMARY
from hallujax.console import Console
from hallujax.data.protocols import PROTOCOLS, split
from hallujax.data.records import PreparedDataset
from hallujax.data.verification import damaged_records
from hallujax.errors import DataError

_LOOKED_AT = 64  # clips, evenly over the dataset, three frames of each
_SHORT = 5  # frames, what the papers see of a clip
_UNEVEN = 10  # times as many clips in one class as in another
_PLAUSIBLE_MM = (300, 12_000)  # of the median depth
_NAMED = 3  # protocols, of those that have the same thing wrong
_FLAT = 2.0  # grey levels, standard deviation of a frame with nothing on it


def inspect(directory: pathlib.Path, sheet: pathlib.Path | None = None, *, verify: bool = False) -> bool:
    """Prints counts, depth range and findings of the dataset in `directory`, and writes its contact sheet.

    Args:
      directory: of a dataset, or one that holds datasets.
      sheet: of the contact sheet; `contact_sheet.png` in the dataset if None.
      verify: read every record and every byte first; of a dataset in which some are damaged only these are printed.

    Returns:
      Whether nothing damaged was met.

    Raises:
      DataError: no dataset, or a damaged one.
    """
    found = [directory] if (directory / "dataset.json").exists() else sorted(directory.glob("*/dataset.json"))
    if not found:
        raise DataError(f"no prepared dataset in {directory}: run `hallujax prepare`")
    whole = True
    for path in found:
        folder = path if path.is_dir() else path.parent
        dataset = PreparedDataset.open(folder)
        if verify and (damage := _verify(dataset)):
            whole = False
            print("\n".join([f"{dataset.name}: {len(damage)} things are damaged", *damage]))
            continue
        for line in describe(dataset):
            print(line)
        zoom = max(1, 96 // dataset.frame_size[0])
        print(f"contact sheet: {contact_sheet(folder, sheet or folder / 'contact_sheet.png', frames=6, zoom=zoom)}")
    return whole


def _verify(dataset: PreparedDataset) -> list[str]:
    records = sum(entry["records"] for entry in dataset.info["modalities"].values())
    with Console(records) as console:
        damaged = damaged_records(dataset, advance=lambda more: console.advance(more, f"records of {dataset.name}"))
    return damaged + dataset.verify()


def describe(dataset: PreparedDataset) -> Iterator[str]:
    """The report, line by line."""
    stored = sum(shard["bytes"] for entry in dataset.info["modalities"].values() for shard in entry["shards"])
    height, width = dataset.frame_size
    yield f"{dataset.name}: {len(dataset)} clips, {len(dataset.classes)} classes, {stored / 2**20:.1f} MiB"
    for name, entry in dataset.info["modalities"].items():
        lengths = dataset.length(name)
        here = lengths[lengths > 0]
        frames = f"{here.min()} to {here.max()} frames a clip" if here.size else "no frames"
        size = f", {width}x{height}" if entry["kind"] != "floats" else ""
        yield f"  {name}: {entry['kind']}{size}, {len(here)} clips, {frames}, {entry['records']} in all"
    summary = dataset.directory / SUMMARY
    if summary.exists():
        counts = Counter(outcome["status"] for outcome in json.loads(summary.read_text()))
        yield f"  from raw: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))} ({summary})"
    yield "clips a class: " + _counts(dataset.index["label"], dict(enumerate(dataset.classes)))
    for column in ("subject", "camera", "setup"):
        names = {int(code): word for code, word in dataset.info.get(f"{column}s", {}).items()}
        yield f"clips a {column}: " + _counts(dataset.index[column], names)
    for protocol in PROTOCOLS.get(dataset.name, {}):
        parts = ", ".join(f"{len(rows)} {part}" for part, rows in split(dataset, protocol).items())
        yield f"protocol {protocol}: {parts}"
    if expected := dataset.info.get("samples_of_the_set"):
        yield f"of the whole set: {len(dataset)} of {expected} samples"
    depth = _looked_at(dataset, "depth") if "depth" in dataset.modalities else np.zeros(0, np.uint16)
    if depth.dtype == np.uint8 and depth.size:
        low, high = np.percentile(depth, [1, 99])
        yield f"depth: pictures of 8 bits, {low:.0f} to {high:.0f} (1 % and 99 %); no depth in metres"
    elif (depth > 0).any():
        low, middle, high = np.percentile(depth[depth > 0], [1, 50, 99])
        lost = (depth == 0).mean()
        yield f"depth: {low:.0f} to {high:.0f} mm (1 % and 99 %), median {middle:.0f}; no return {lost:.0%}"
    findings = list(_findings(dataset, depth))
    yield "suspicious:" if findings else "suspicious: nothing found"
    yield from (f"  {finding}" for finding in findings)


def _findings(dataset: PreparedDataset, depth: np.ndarray) -> Iterator[str]:
    index = dataset.index
    counts = np.bincount(index["label"], minlength=len(dataset.classes))
    if (counts == 0).any():
        yield f"{(counts == 0).sum()} classes have no clip, {dataset.classes[int(np.argmin(counts))]!r} first"
    if counts.max() > _UNEVEN * max(counts[counts > 0].min(), 1):
        yield f"the largest class has {counts.max()} clips, the smallest {counts[counts > 0].min()}"
    for name in dataset.modalities:
        lengths = dataset.length(name)
        if (lengths == 0).any():
            yield f"{(lengths == 0).sum()} clips have no {name}, {dataset.clip_id(int(np.argmax(lengths == 0)))} first"
        short = (lengths > 0) & (lengths < _SHORT)
        if short.any() and lengths.max() > 1:  # else a set of single images
            yield f"{short.sum()} clips have fewer than {_SHORT} frames of {name}, {_first(dataset, short)} first"
    lengths = np.stack([dataset.length(name) for name in dataset.modalities])
    unequal = (lengths.max(axis=0) != lengths.min(axis=0)) & (lengths.min(axis=0) > 0)
    if unequal.any():
        yield f"{unequal.sum()} clips have modalities of different length, {_first(dataset, unequal)} first"
    ids, times = np.unique(index["clip"], return_counts=True)
    if (times > 1).any():
        yield f"clip {ids[np.argmax(times > 1)].decode()} is there more than once"
    empty: dict[str, list[str]] = {}
    for protocol in PROTOCOLS.get(dataset.name, {}):
        for part, rows in split(dataset, protocol).items():
            if len(rows) == 0:
                empty.setdefault(part, []).append(protocol)
    for part, protocols in empty.items():
        some = ", ".join(protocols[:_NAMED]) + (f" and {len(protocols) - _NAMED} more" if protocols[_NAMED:] else "")
        yield f"the {part} part is empty in protocol {some}"
    if "rgb" in dataset.modalities:
        flat = [frame for frame in _looked_at(dataset, "rgb") if frame.std() < _FLAT]
        if flat:
            yield f"{len(flat)} of the RGB frames looked at show nothing"
    if depth.size and not depth.any():
        yield "no depth at all in the frames looked at"
    elif depth.size:
        middle, low, high = float(np.median(depth[depth > 0])), *_PLAUSIBLE_MM
        if depth.dtype == np.uint16 and not low <= middle <= high:
            yield f"the median depth is {middle:.0f}: are these millimetres?"
        empty = (depth == 0).mean(axis=tuple(range(1, depth.ndim))) > 0.99
        if empty.any():
            yield f"{empty.sum()} of the depth maps looked at are empty"


def _looked_at(dataset: PreparedDataset, modality: str) -> np.ndarray:
    """First, middle and last frame of some clips, `[N, ...]`."""
    rows = np.flatnonzero(dataset.length(modality))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(_LOOKED_AT, len(rows))).astype(int))]
    frames = [[0, n // 2, n - 1] for n in dataset.length(modality)[rows]]
    seen = dataset.read(modality, rows, np.array(frames).reshape(-1, 3))
    return seen.reshape(-1, *seen.shape[2:])


def _first(dataset: PreparedDataset, mask: np.ndarray) -> str:
    return dataset.clip_id(int(np.argmax(mask)))


def _counts(values: np.ndarray, names: dict[int, str]) -> str:
    found, counts = np.unique(values, return_counts=True)
    return ", ".join(f"{names.get(int(v), v)} {count}" for v, count in zip(found, counts, strict=True))
