"""Converts Northwestern-UCLA Multiview Action 3D from the archive as it unpacks:

    RAW/multiview_action/view_1/a01_s01_e00/frame_167_tc_90467319_rgb.jpg           640x480
    RAW/multiview_action/view_1/a01_s01_e00/frame_167_tc_90467351_depth.png         320x240
    RAW/multiview_action/view_1/a01_s01_e00/frame_167_tc_90467351_depth_vis.jpg     the same as a grey picture
    RAW/multiview_action/view_1/a01_s01_e00/frame_167_tc_90467351_skeletons.txt     20 joints

`view_1` to `view_3` may lie in RAW itself, or up to two folders deeper. Frames pair by their index, which has no
leading zeros; the time stamps behind it differ between modalities. Depth is `_depth.png` where there are any, else, or
if `depth_vis` is asked for, `_depth_vis.jpg`; either is stored as `depth`. Whole frames are kept, squashed to a square:
RGB and depth have the same shape but are not registered.
"""

import functools
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep import pictures, trees, writer
from data_prep.convert import Clip, Raw, Reading, pair
from hallujax.errors import DataError, UsageError

NAME = "nw_ucla"
VERSION = "1.0.0"
ACTIONS = {  # by the numbers in the folders' names
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
SUBJECTS, VIEWS = range(1, 11), range(1, 4)
SAMPLES = 1484  # in the list of sequences that skeleton papers use; the slides say 1475
JOINTS = (
    "hip centre, spine, shoulder centre, head, left shoulder, left elbow, left wrist, left hand, right shoulder, "
    "right elbow, right wrist, right hand, left hip, left knee, left ankle, left foot, right hip, right knee, "
    "right ankle, right foot"
).split(", ")
_FILES = {"rgb": "rgb.jpg", "depth": "depth.png", "depth_vis": "depth_vis.jpg", "joints": "skeletons.txt"}
_FRAME = re.compile(rf"frame_(\d{{1,9}})_tc_\d+_({'|'.join(map(re.escape, _FILES.values()))})", re.ASCII)
_CLIP = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)", re.ASCII)
_UNPAIRED = 0.5  # of the frames: the index leaves no doubt which belong together
_VIDEOS_ONLY = {"carry", "doffing", "donning"}  # folders of the other packaging
_DESCRIPTION = "Northwestern-UCLA Multiview Action 3D, whole frames squashed to a square, paired by frame index."


def scan(root: pathlib.Path, *, size: int = 256, modalities: Sequence[str] = ()) -> Raw:
    """Finds the clips of `root`.

    Args:
      size: of the frames in the dataset, pixels a side.
      modalities: of `rgb`, `depth` or `depth_vis`, `joints`; all that the tree has if none are named.

    Raises:
      UsageError: an archive, the packaging without depth, or a modality that the tree has not.
      DataError: there are no clips.
    """
    root = trees.root(root)
    views = [path for where in ("", "*/", "*/*/") for path in sorted(root.glob(f"{where}view_[123]")) if path.is_dir()]
    if not views:
        if {path.name for where in ("*", "*/*") for path in root.glob(where)} >= _VIDEOS_ONLY:
            raise UsageError(
                f"{root} is the packaging of videos alone, which has no depth: `multiview_action` is needed"
            )
        raise DataError(f"no clips in {root}: it needs multiview_action/view_1 and so on in it")
    found, problems = {}, {}
    for view in views:
        for folder in sorted(path for path in view.iterdir() if path.is_dir()):
            parsed = _CLIP.fullmatch(folder.name)
            relative = folder.relative_to(root).as_posix()
            if not parsed:
                problems[relative] = "the folder's name is not aXX_sXX_eXX"
                continue
            clip = f"{folder.name}_v{int(view.name[-1]):02}"
            if clip in found:
                problems[clip] = f"two of it: {found[clip][0]} and {relative}"
            elif reason := trees.leaves(root, relative) or _problem(*map(int, parsed.groups())):
                problems[clip] = reason
            else:
                found[clip] = relative, {kind: len(files) for kind, files in _listed(folder).items()}
    chosen = _chosen(root, {kind for _, counts in found.values() for kind, n in counts.items() if n}, modalities)
    needed = [kind for kind in chosen if kind != "joints"]
    for clip, (_, counts) in found.items():
        if missing := [kind for kind in needed if not counts[kind]]:
            problems.setdefault(clip, f"no {' and no '.join(missing)} frames")
    good = {clip: where for clip, where in sorted(found.items()) if clip not in problems}
    stored = _stored(root, chosen, good, size)
    clips = [_clip(name, folder, chosen, counts) for name, (folder, counts) in good.items()]
    info = {
        "frame_size": [size, size],
        "joint_names": JOINTS,
        "samples_of_the_set": SAMPLES,
    }
    if "depth" in stored:
        info["depth_files"] = f"*_{_FILES[_depth_files(chosen)]}"
        info["depth_values"] = pictures.depth_kind(stored["depth"])
    return Raw(
        name=NAME,
        description=_DESCRIPTION,
        version=VERSION,
        classes=list(ACTIONS.values()),
        modalities=stored,
        clips=clips,
        refused=sorted(problems.items()),
        read=functools.partial(read, root=root, modalities=stored, chosen=chosen, size=size),
        frames=sum(max(counts[kind] for kind in needed) for _, counts in good.values()),
        options={"size": size, "files": list(chosen)},
        info=info,
        notes=[f"{len(found)} of about {SAMPLES} samples of the whole set"]
        + ([f"depth is {info['depth_files']}, {info['depth_values']}"] if "depth" in stored else []),
    )


def read(
    clip: Clip, *, root: pathlib.Path, modalities: Mapping[str, writer.Modality], chosen: Sequence[str], size: int
) -> Reading:
    """Reads a clip and pairs its modalities by frame index; joints that a frame lacks are zero.

    Raises:
      DataError: a file is damaged, an index is there twice, or the modalities do not pair.
    """
    folder = root / clip.sources[chosen[0]]
    files = _listed(folder)
    for kind in chosen:
        if len(set(number for number, _ in files[kind])) < len(files[kind]):
            numbers = [number for number, _ in files[kind]]
            twice = next(n for n in numbers if numbers.count(n) > 1)
            raise DataError(f"{clip.sources[kind]}: two files of frame {twice}, {kind}")
    by_number = {kind: dict(files[kind]) for kind in chosen}
    common, repaired = pair({kind: list(by_number[kind]) for kind in chosen if kind != "joints"}, _UNPAIRED)
    frames = {}
    for kind in chosen:
        if kind != "joints":
            name = "depth" if kind == "depth_vis" else kind
            paths = [folder / by_number[kind][number] for number in common]
            frames[name], _ = pictures.encode(paths, modalities[name], size)
    remarks = []
    if "joints" in chosen and by_number["joints"]:
        frames["joints"], missing, crowded = _joints(folder, by_number["joints"], common)
        repaired = "; ".join(filter(None, [repaired, f"no joints in {missing} frames" if missing else ""]))
        remarks += [f"several bodies in {crowded} frames, the first is kept"] if crowded else []
    elif "joints" in chosen:
        remarks.append("no joints")
    return Reading(frames=frames, repaired=repaired, remark="; ".join(remarks))


def skeleton(path: pathlib.Path) -> np.ndarray:
    """The joints of all bodies in a `_skeletons.txt`, float32 `[bodies, 20, 4]`: x, y, z in metres, and 2 for tracked.

    The first line is a number that loaders read differently; then `x,y,z,state`, a line a joint. A body that breaks off
    is left out; an empty file has none.

    Raises:
      DataError: the file is no such text.
    """
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: unreadable ({error.__class__.__name__})") from error
    if lines and not re.fullmatch(r"-?[0-9]{1,9}", lines[0]):
        raise DataError(f"{path.name}: its first line is {lines[0][:20]!r}, not a number")
    whole = (len(lines) - 1) // len(JOINTS) * len(JOINTS)
    try:
        values = np.array([line.split(",") for line in lines[1 : 1 + whole]], np.float64)
        values = values.reshape(-1, len(JOINTS), 4)
    except ValueError as error:
        raise DataError(f"{path.name}: a line of it is not x,y,z,state") from error
    if not (np.abs(values) < np.finfo(np.float32).max).all():
        raise DataError(f"{path.name}: a joint is not finite")
    return values.astype(np.float32)


def _joints(folder: pathlib.Path, files: Mapping[int, str], numbers: Sequence[int]) -> tuple[np.ndarray, int, int]:
    """`[frames, 20, 4]`, how many frames have none, and how many have several bodies."""
    joints, missing, crowded = np.zeros((len(numbers), len(JOINTS), 4), np.float32), 0, 0
    for row, number in zip(joints, numbers, strict=True):
        bodies = skeleton(folder / files[number]) if number in files else ()
        missing += len(bodies) == 0
        crowded += len(bodies) > 1
        if len(bodies):
            row[:] = bodies[0]
    return joints, missing, crowded


def _listed(folder: pathlib.Path) -> dict[str, list[tuple[int, str]]]:
    """(frame index, file name) of each kind, in the order of the indices; what is no frame is passed over."""
    kinds = {ending: kind for kind, ending in _FILES.items()}
    found = {kind: [] for kind in _FILES}
    for entry in folder.iterdir():
        if parsed := _FRAME.fullmatch(entry.name):
            found[kinds[parsed[2]]].append((int(parsed[1]), entry.name))
    return {kind: sorted(files) for kind, files in found.items()}


def _problem(action: int, subject: int, repetition: int) -> str:
    del repetition  # 0 to 10, but nothing hangs on it
    if action not in ACTIONS:
        return f"action {action} is none of {', '.join(map(str, ACTIONS))}"
    return "" if subject in SUBJECTS else f"subject {subject} is outside 1 to {len(SUBJECTS)}"


def _chosen(root: pathlib.Path, here: set[str], asked: Sequence[str]) -> tuple[str, ...]:
    """The kinds of files to read."""
    if unknown := set(asked) - set(_FILES):
        raise UsageError(f"{NAME} has no {', '.join(sorted(unknown))}; it has {', '.join(_FILES)}")
    if {"depth", "depth_vis"} <= set(asked):
        raise UsageError(f"{NAME}: depth and depth_vis are two forms of one modality; name one of them")
    if missing := [kind for kind in asked if kind not in here]:
        raise UsageError(f"{root} has no {', '.join(missing)} files; it has {', '.join(sorted(here)) or 'none'}")
    chosen = tuple(kind for kind in _FILES if kind in (asked or here))
    if not asked and "depth" in chosen:
        chosen = tuple(kind for kind in chosen if kind != "depth_vis")
    if not set(chosen) - {"joints"}:
        raise DataError(f"no clips in {root}: their folders hold no frames, as frame_1_tc_90467319_rgb.jpg")
    return chosen


def _depth_files(chosen: Sequence[str]) -> str:
    return "depth_vis" if "depth_vis" in chosen else "depth"


def _stored(root: pathlib.Path, chosen: Sequence[str], clips: Mapping, size: int) -> dict[str, writer.Modality]:
    stored = {"rgb": writer.Modality("jpeg", (size, size, 3)), "joints": writer.Modality("floats", (len(JOINTS), 4))}
    kind = _depth_files(chosen)
    if kind in chosen:
        folders = (root / folder for folder, _ in clips.values())
        stored["depth"] = pictures.depth_modality((f / _listed(f)[kind][0][1] for f in folders), size)
    return {name: stored[name] for name in ("rgb", "depth", "joints") if name in chosen or name + "_vis" in chosen}


def _clip(name: str, folder: str, chosen: Sequence[str], counts: Mapping[str, int]) -> Clip:
    action, subject, repetition, view = (int(part[1:]) for part in name.split("_"))
    return Clip(
        id=name,
        label=list(ACTIONS).index(action),
        subject=subject,
        camera=view,
        repetition=repetition,
        sources=dict.fromkeys(chosen, folder),
        stamp=[counts[kind] for kind in chosen],
    )
