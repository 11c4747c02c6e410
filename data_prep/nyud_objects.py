"""Converts the object crops of NYU Depth V2 that the released NYUD code trains on:

    RAW/NYUD_multimodal/train/images/CLASS/*.png     RAW/NYUD_multimodal/train/depth/CLASS/*.png
    RAW/NYUD_multimodal/test/images/CLASS/*.png      RAW/NYUD_multimodal/test/depth/CLASS/*.png

`train` and `test` may lie in RAW itself, or up to two folders deeper. Classes are the names of the folders, sorted.
`depth` is three channels of HHA, 8 bits, or depth of 16 bits in millimetres; all of it is of one kind. A picture and
its depth have the same name but for the ending; where no name of a class has a partner and the numbers agree, they pair
in the order of their names. Every crop is a clip of one frame, squashed to a square.
"""

import functools
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence

from data_prep import media, pictures, trees, writer
from data_prep.convert import Clip, Raw, Reading
from hallujax.errors import DataError, UsageError

NAME = "nyud_objects"
VERSION = "1.0.0"
SAMPLES = {"train": 2186, "test": 2401}
CLASSES = 19
_FOLDERS = {"rgb": "images", "depth": "depth"}
_DESCRIPTION = "Object crops of NYU Depth V2, single images, squashed to a square."


def scan(root: pathlib.Path, *, size: int = 256, modalities: Sequence[str] = ()) -> Raw:
    """Finds the crops of `root`.

    Args:
      size: of the frames in the dataset, pixels a side.
      modalities: of `rgb` and `depth`; what the tree has of them if none are named.

    Raises:
      UsageError: an archive, or a modality that the tree has not.
      DataError: there are no crops.
    """
    root = trees.root(root)
    parts = {part: folder for part in SAMPLES for folder in _parts(root, part)}
    here = [name for name, folder in _FOLDERS.items() if any((path / folder).is_dir() for path in parts.values())]
    if not here:
        raise DataError(f"no crops in {root}: it needs train/images, train/depth, test/images and test/depth in it")
    if unknown := set(modalities) - set(here):
        raise UsageError(f"{root} has no {', '.join(sorted(unknown))}; it has {', '.join(here)}")
    chosen = [name for name in here if name in (modalities or here)]
    found: dict[str, tuple[str, str, dict[str, str]]] = {}
    problems, by_order = {}, 0
    for part, folder in parts.items():
        classes = {path.name for name in chosen for path in _folders(folder / _FOLDERS[name])}
        for label in sorted(classes):
            crops, ordered = _paired({name: _pictures(folder / _FOLDERS[name] / label) for name in chosen})
            by_order += ordered
            for stem, files in crops:
                clip = f"{part}/{label}/{stem}"
                sources = {name: path.relative_to(root).as_posix() for name, path in files.items()}
                if clip in found:
                    problems[clip] = "another crop before it has the same name"
                elif missing := [name for name in chosen if name not in files]:
                    problems[clip] = f"no {' and no '.join(missing)}"
                elif reason := next(filter(None, (trees.leaves(root, path) for path in sources.values())), ""):
                    problems[clip] = reason
                found[clip] = part, label, sources
    classes = sorted({label for _, label, _ in found.values()})
    clips = [
        Clip(
            id=clip,
            label=classes.index(label),
            split=part,
            sources=sources,
            stamp=[(root / path).stat().st_size for path in sources.values()],
        )
        for clip, (part, label, sources) in sorted(found.items())
        if clip not in problems
    ]
    stored = {"rgb": writer.Modality("jpeg", (size, size, 3))} if "rgb" in chosen else {}
    info = {"frame_size": [size, size], "samples_of_the_set": sum(SAMPLES.values())}
    notes = [_counted(clips, classes)]
    if "depth" in chosen:
        stored["depth"] = pictures.depth_modality((root / clip.sources["depth"] for clip in clips), size)
        info["depth_values"] = pictures.depth_kind(stored["depth"])
        notes.append(f"depth is {info['depth_values']}")
    if by_order:
        notes.append(f"{by_order} crops and their depth have different names: they pair in the order of these")
    return Raw(
        name=NAME,
        description=_DESCRIPTION,
        version=VERSION,
        classes=classes,
        modalities=stored,
        clips=clips,
        refused=sorted(problems.items()),
        read=functools.partial(read, root=root, modalities=stored, size=size),
        frames=len(clips),
        options={"size": size},
        info=info,
        notes=notes,
    )


def read(clip: Clip, *, root: pathlib.Path, modalities: Mapping[str, writer.Modality], size: int) -> Reading:
    """Reads a crop.

    Raises:
      DataError: a file is damaged, or depth has other bits than that of the first crop.
    """
    frames, remark = {}, ""
    shapes = set()
    for name, path in clip.sources.items():
        frames[name], shape = pictures.encode([root / path], modalities[name], size)
        shapes.add(shape)
    if len(shapes) > 1:
        remark = "picture and depth are of different size"
    return Reading(frames=frames, remark=remark)


def _parts(root: pathlib.Path, part: str) -> list[pathlib.Path]:
    return [path for where in ("", "*/", "*/*/") for path in sorted(root.glob(where + part)) if path.is_dir()][:1]


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    """In the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in media.PICTURES and not path.name.startswith(".")
    )


def _paired(files: Mapping[str, Sequence[pathlib.Path]]) -> tuple[list[tuple[str, dict[str, pathlib.Path]]], int]:
    """(name, path by modality) of a class's crops, and how many pair by their order alone."""
    stems = {name: [path.stem for path in found] for name, found in files.items()}
    alike = {len(found) for found in files.values()}
    if len(files) > 1 and not set.intersection(*map(set, stems.values())) and len(alike) == 1:
        rows = [dict(zip(files, row, strict=True)) for row in zip(*files.values(), strict=True)]
        return [(next(iter(row.values())).stem, row) for row in rows], len(rows)
    crops: dict[str, list[dict[str, pathlib.Path]]] = {}
    for name, found in files.items():
        for path in found:
            same = crops.setdefault(path.stem, [{}])
            free = next((row for row in same if name not in row), None)
            if free is None:
                same.append({name: path})
            else:
                free[name] = path
    return [(stem, row) for stem, rows in sorted(crops.items()) for row in rows], 0


def _counted(clips: Sequence[Clip], classes: Sequence[str]) -> str:
    """Whether this is the whole set, by its numbers."""
    counts = Counter(clip.split for clip in clips)
    said = ", ".join(f"{counts[part]} of {number} to {part}" for part, number in SAMPLES.items())
    whole = dict(counts) == SAMPLES and len(classes) == CLASSES
    return f"{said}, {len(classes)} of {CLASSES} classes" + ("" if whole else ": not the whole set")
