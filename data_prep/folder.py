"""Your own clips: a folder a class with a folder a clip in it, or a CSV that says where everything is.

    RAW/CLASS/CLIP/rgb.mp4              a modality is a video (.avi .mp4 .mov .mkv .webm) ...
    RAW/CLASS/CLIP/depth/000.png        ... or a folder of pictures; its name is the modality's

    RAW/clips.csv                       clip,label,subject,camera,split,rgb,depth
                                        w1,walk,anna,1,train,videos/w1.mp4,depth/w1

In the CSV only `label` and a path are required: a column a modality, or one `path` to a clip's folder as above.
`split` is train, validation or test. `RAW/classes.txt`, a name a line, fixes the classes and their order.

`depth` is 16-bit grey, millimetres, 0 for no return; any other modality is stored with 16 bits if its first file has
them, else as 8-bit colour. Frames are paired by number between folders, by position where there is a video; each frame
is cut to the square in its middle, so cameras of different shape must be brought into line before.
"""

import csv
import dataclasses
import functools
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from data_prep import crops, media, trees, writer
from data_prep.convert import SPLITS, Clip, Raw, Reading, pair
from hallujax.errors import DataError

NAME = "folder"
VERSION = "1.0.0"
CSV = "clips.csv"
_DESCRIPTION = "Clips of a folder, one record a frame of a modality."
_COLUMNS = ("clip", "label", "subject", "camera", "setup", "repetition", "split", "path")
_RESERVED = (*_COLUMNS, "frame")


@dataclasses.dataclass
class _Found:
    """A clip as the tree or the CSV has it: words, not numbers yet. `problem` says why it cannot be used."""

    id: str
    label: str
    sources: dict[str, str]
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    problem: str = ""


def scan(root: pathlib.Path, *, size: int = 256, modalities: Sequence[str] = ()) -> Raw:
    """Finds the clips of `root`, a folder or a CSV file.

    Args:
      size: of the frames in the dataset, pixels a side.
      modalities: that every clip must have; those that more than half of the clips have if none are named.

    Raises:
      UsageError: PyAV is needed and missing, or `root` is no folder.
      DataError: there are no clips in it, or the CSV cannot be read.
    """
    table = root if root.is_file() and root.suffix.lower() == ".csv" else root / CSV
    root = trees.root(table.parent if root.is_file() and table == root else root)
    found = list(_from_table(root, table) if table.exists() else _from_tree(root))
    if not found:
        raise DataError(f"no clips in {root}: it needs CLASS/CLIP/MODALITY folders, or {CSV}")
    _mark_duplicates(found)
    wanted = tuple(modalities) or _usual(found)
    if not wanted:
        raise DataError(f"{root}: no clip of {len(found)} can be used, {found[0].id} first: {found[0].problem}")
    for clip in found:
        if not clip.problem and (missing := [name for name in wanted if name not in clip.sources]):
            clip.problem = f"no {' and no '.join(missing)}: it has {', '.join(sorted(clip.sources)) or 'nothing'}"
    classes = _classes(root, found)
    good = [clip for clip in found if not clip.problem]
    if any(pathlib.PurePath(clip.sources[name]).suffix.lower() in media.VIDEOS for clip in good for name in wanted):
        media.require_pyav()
    codes = {column: _codes(good, column) for column in ("subject", "camera", "setup", "repetition")}
    clips = [
        Clip(
            id=clip.id,
            label=classes.index(clip.label),
            **{column: codes[column][clip.words.get(column, "")] for column in codes},
            split=clip.words.get("split", ""),
            sources={name: clip.sources[name] for name in wanted},
            stamp=[_stamp(root / clip.sources[name]) for name in wanted],
        )
        for clip in sorted(good, key=lambda clip: clip.id)
    ]
    stored = {name: _modality(name, root, good, size) for name in wanted}
    names = {column: {code: word for word, code in codes[column].items() if word} for column in codes}
    return Raw(
        name=NAME,
        description=_DESCRIPTION,
        version=VERSION,
        classes=classes,
        modalities=stored,
        clips=clips,
        refused=[(clip.id, " ".join(clip.problem.split())) for clip in found if clip.problem],
        read=functools.partial(read, root=root, modalities=stored, size=size),
        frames=_estimate_frames(root, clips),
        options={"size": size},
        info={"frame_size": [size, size], **{f"{column}s": found for column, found in names.items() if found}},
    )


def read(clip: Clip, *, root: pathlib.Path, modalities: Mapping[str, writer.Modality], size: int) -> Reading:
    """Reads a clip and pairs its modalities.

    Raises:
      DataError: a file is damaged, or the modalities do not pair.
    """
    files = {name: _files(root / source) for name, source in clip.sources.items()}
    by_number = all(isinstance(found, dict) for found in files.values())
    frames, shapes, numbers = {}, {}, {}
    for name, found in files.items():
        frames[name], shapes[name] = _frames(name, found, modalities[name], size)
        numbers[name] = list(found) if by_number else range(len(frames[name]))
    common, repaired = pair(numbers)
    remark = ""
    if len({round(height / width, 2) for height, width in shapes.values()}) > 1:
        pictures = ", ".join(f"{name} {width}x{height}" for name, (height, width) in shapes.items())
        remark = f"frames of different shape may not be in line: {pictures}"
    for name, found in frames.items():
        place = {number: i for i, number in enumerate(numbers[name])}
        frames[name] = [found[place[number]] for number in common]
    return Reading(frames=frames, repaired=repaired, remark=remark)


def _frames(
    name: str, found: pathlib.Path | dict[int, pathlib.Path], modality: writer.Modality, size: int
) -> tuple[list[bytes], tuple[int, int]]:
    """Encoded frames of one modality, and the shape they had."""
    deep = modality.kind == "png16"
    if isinstance(found, dict):
        pictures: Iterator = map(media.deep_picture if deep else media.picture, found.values())
    else:
        pictures = media.video(found, "gray16le" if deep else "rgb24")
    encoded, shape = [], None
    for frame in pictures:
        if shape is None:
            shape = frame.shape[:2]
            square = crops.centre_square(*shape)
            crop_depth = crops.DepthCrop(square, size, shape) if deep else None
        elif frame.shape[:2] != shape:
            raise DataError(
                f"{name}: frame {len(encoded)} is {frame.shape[1]}x{frame.shape[0]}, the first another size"
            )
        encoded.append(modality.encode(crop_depth(frame) if deep else crops.crop_picture(frame, square, size)))
    if shape is None:
        raise DataError(f"{name}: no frames")
    return encoded, shape


def _from_tree(root: pathlib.Path) -> Iterator[_Found]:
    for folder in sorted(_folders(root)):
        for clip in sorted(_folders(folder)):
            yield _located(root, _Found(f"{folder.name}/{clip.name}", folder.name, {}), clip)


def _from_table(root: pathlib.Path, table: pathlib.Path) -> Iterator[_Found]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = {column.strip().lower(): column for column in reader.fieldnames or () if column}
            rows = [{k: (row[v] or "").strip() for k, v in columns.items()} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: {error}") from error
    modalities = [column for column in columns if column not in _COLUMNS]
    if "label" not in columns or not (modalities or "path" in columns):
        raise DataError(f"{table}: it needs the columns label and path, or label and one for each modality")
    for number, row in enumerate(rows, 2):
        named = {name: row[name] for name in modalities if row[name]}
        first = row.get("path") or next(iter(named.values()), "")
        default = str(pathlib.PurePosixPath(first).with_suffix("")) if first else f"row {number}"
        clip = _Found(row.get("clip") or default, row["label"], {}, row)
        if not clip.label:
            clip.problem = f"row {number} of {table.name}: no label"
        elif "split" in columns and row["split"] not in SPLITS:
            clip.problem = f"row {number} of {table.name}: split is {row['split']!r}; known: {', '.join(SPLITS)}"
        elif row.get("path"):
            if problem := trees.leaves(root, row["path"]):
                clip.problem = problem
            elif not (root / row["path"]).is_dir():
                clip.problem = f"{row['path']} is not a folder"
            else:
                clip = _located(root, clip, root / row["path"])
        for name, path in named.items():
            clip.sources[name] = path
            if not clip.problem:
                clip.problem = _bad_name(name) or trees.leaves(root, path) or _absent(root, path)
        yield clip


def _located(root: pathlib.Path, clip: _Found, folder: pathlib.Path) -> _Found:
    """The clip with the modalities of its folder."""
    for entry in sorted(folder.iterdir()):
        video = entry.suffix.lower() in media.VIDEOS
        if entry.name.startswith(".") or not (entry.is_dir() or video):
            continue
        name = (entry.stem if video else entry.name).lower()
        relative = entry.relative_to(root).as_posix()
        if name in clip.sources:
            clip.problem = f"two sources of {name}: {clip.sources[name]} and {relative}"
        clip.problem = clip.problem or _bad_name(name) or trees.leaves(root, relative)
        clip.sources[name] = relative
    return clip


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _bad_name(name: str) -> str:
    if name in _RESERVED or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return f"{name!r} cannot be the name of a modality: letters, digits and _, none of {', '.join(_RESERVED)}"
    return ""


def _absent(root: pathlib.Path, path: str) -> str:
    return "" if (root / path).exists() else f"{path} does not exist"


def _mark_duplicates(found: Sequence[_Found]) -> None:
    seen = set()
    for clip in found:
        if clip.id in seen:
            clip.problem = clip.problem or "another clip before it has the same id"
        seen.add(clip.id)


def _usual(found: Sequence[_Found]) -> tuple[str, ...]:
    good = [clip for clip in found if not clip.problem]
    counts = Counter(name for clip in good for name in clip.sources)
    return tuple(sorted((n for n, count in counts.items() if 2 * count > len(good)), key=lambda n: (n != "rgb", n)))


def _classes(root: pathlib.Path, found: Sequence[_Found]) -> list[str]:
    """The names of the labels; a clip of another one has a problem."""
    listed = root / "classes.txt"
    if not listed.exists():
        return sorted({clip.label for clip in found if not clip.problem})
    classes = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(set(classes)) < len(classes):
        raise DataError(f"{listed}: a class is listed twice")
    for clip in found:
        if clip.label not in classes:
            clip.problem = clip.problem or f"label {clip.label!r} is not in {listed.name}"
    return classes


def _codes(found: Sequence[_Found], column: str) -> dict[str, int]:
    """Words as numbers: their own where all are numbers, else 1, 2, ... in their order; 0 for none."""
    words = sorted({clip.words.get(column, "") for clip in found} - {""})
    if all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        return {word: int(word) for word in words} | {"": 0}
    return {word: number for number, word in enumerate(words, 1)} | {"": 0}


def _files(source: pathlib.Path) -> pathlib.Path | dict[int, pathlib.Path]:
    """A video, or the pictures of a folder by their numbers."""
    if source.is_file():
        if source.suffix.lower() not in media.VIDEOS:
            raise DataError(f"{source.name}: neither a video ({' '.join(media.VIDEOS)}) nor a folder of pictures")
        return source
    names = [e.name for e in source.iterdir() if e.suffix.lower() in media.PICTURES and not e.name.startswith(".")]
    if not names:
        raise DataError(f"{source.name}: no pictures in it")
    return {number: source / name for number, name in media.numbered(names).items()}


def _modality(name: str, root: pathlib.Path, clips: Sequence[_Found], size: int) -> writer.Modality:
    if name == "depth":
        return writer.Modality("png16", (size, size))
    for clip in clips:
        try:
            files = _files(root / clip.sources[name])
        except (DataError, OSError):
            continue
        if media.is_deep(next(iter(files.values())) if isinstance(files, dict) else files):
            return writer.Modality("png16", (size, size))
        break
    return writer.Modality("jpeg", (size, size, 3))


def _stamp(source: pathlib.Path) -> int:
    return source.stat().st_size if source.is_file() else sum(1 for _ in source.iterdir())


def _estimate_frames(root: pathlib.Path, clips: Sequence[Clip]) -> int:
    """From a few clips, evenly over the list."""
    some = clips[:: max(1, len(clips) // 10)]
    counts = []
    for clip in some:
        for source in clip.sources.values():
            path = root / source
            counts.append(media.video_size(path)[0] if path.is_file() else _stamp(path))
    return len(clips) * max(counts, default=0)
