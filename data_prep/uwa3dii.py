"""Converts UWA3D Multiview Activity II from any of the layouts that are known of it:

    RAW/UWA3DII_RGB/UWA3D-RGB/a01_s01_v01_e01/001,.jpg           with the comma
    RAW/UWA3D-Depth/WholeFrames/a01_s01_v01_e00/001.png          or
    RAW/UWA3DII_Depth_ROI/UWA3D-Depth/a01_s01_v01_e01/001.png    or
    RAW/UWA3DII_Depth/Actions_images/a01_s01_e01_v01/001.png     repetition before view
    RAW/ActionsSkeleton/a01_s01_e01_v01.mat                      only if joints are asked for; needs h5py

These folders may also lie one folder deeper; of the depth folders the first in this order is read. Frames pair by
number. A sequence whose depth has another repetition number than its RGB goes with the RGB that ends in 1 instead, as
the authors' script takes it. Whole frames are kept, squashed to a square.
"""

import contextlib
import functools
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_prep import media, pictures, trees, writer
from data_prep.convert import Clip, Raw, Reading, pair
from hallujax.errors import DataError, UsageError

NAME = "uwa3dii"
VERSION = "1.0.0"
CLASSES = (
    "one hand waving, one hand punching, two hand waving, two hand punching, sitting down, standing up, vibrating, "
    "falling down, holding chest, holding head, holding back, walking, irregular walking, lying down, turning around, "
    "drinking, phone answering, bending, jumping jack, running, picking up, putting down, kicking, jumping, dancing, "
    "moping floor, sneezing, sitting down (chair), squatting, coughing"
).split(", ")
SUBJECTS, VIEWS = range(1, 11), range(1, 5)
SAMPLES = 1075
JOINTS = 15
_FOLDERS = {
    "rgb": ("UWA3DII_RGB/UWA3D-RGB", "UWA3D-RGB"),
    "depth": (
        "UWA3D-Depth/WholeFrames",
        "UWA3DII_Depth_ROI/UWA3D-Depth",
        "UWA3DII_Depth/Actions_images",
        "Actions_images",
    ),
    "joints": ("ActionsSkeleton",),
}
_SEQUENCE = re.compile(r"a(\d\d)_s(\d\d)_(?:v(\d\d)_e(\d\d)|e(\d\d)_v(\d\d))", re.ASCII)
_UNPAIRED = 0.5  # of the frames: their numbers leave no doubt which belong together
_DESCRIPTION = "UWA3D Multiview Activity II, whole frames squashed to a square, paired by frame number."

_Key = tuple[int, int, int]  # action, subject, view


def scan(root: pathlib.Path, *, size: int = 256, modalities: Sequence[str] = ()) -> Raw:
    """Finds the sequences of `root`.

    Args:
      size: of the frames in the dataset, pixels a side.
      modalities: of `rgb`, `depth` and `joints`; what the tree has of the first two if none are named.

    Raises:
      UsageError: an archive, a modality that the tree has not, or h5py is needed and missing.
      DataError: there are no sequences.
    """
    root = trees.root(root)
    folders = {name: trees.folders(root, known) for name, known in _FOLDERS.items()}
    chosen = _chosen(root, folders, modalities)
    problems: dict[str, str] = {}
    found = {name: _sequences(root, folders[name], name, problems) for name in chosen}
    clips, lengths = [], []
    for key in sorted(set().union(*found.values())):
        for clip, sources, reason in _partners(key, {name: found[name].get(key, {}) for name in chosen}):
            if reason or clip in problems:
                problems.setdefault(clip, reason)
                continue
            stamp = [_size(root / sources[name]) for name in chosen]
            lengths.append(max(stamp[chosen.index(name)] for name in chosen if name != "joints"))
            action, subject, view, repetition = (int(part[1:]) for part in clip.split("_"))
            clips.append(
                Clip(
                    id=clip,
                    label=action - 1,
                    subject=subject,
                    camera=view,
                    repetition=repetition,
                    sources=sources,
                    stamp=stamp,
                )
            )
    if not clips and not problems:
        raise DataError(f"no sequences in {root}: folders as a01_s01_v01_e01 in {', '.join(_FOLDERS['rgb'])}")
    stored = _stored(root, chosen, clips, size)
    info = {"frame_size": [size, size], "samples_of_the_set": SAMPLES}
    notes = [f"{len(clips)} of {SAMPLES} samples of the whole set"]
    if "depth" in stored:
        info["depth_maps"] = folders["depth"][0].relative_to(root).as_posix()
        info["depth_values"] = pictures.depth_kind(stored["depth"])
        notes.append(f"depth is {info['depth_maps']}, {info['depth_values']}")
    return Raw(
        name=NAME,
        description=_DESCRIPTION,
        version=VERSION,
        classes=CLASSES,
        modalities=stored,
        clips=clips,
        refused=sorted(problems.items()),
        read=functools.partial(read, root=root, modalities=stored, size=size),
        frames=sum(lengths),
        options={"size": size},
        info=info,
        notes=notes,
    )


def read(clip: Clip, *, root: pathlib.Path, modalities: Mapping[str, writer.Modality], size: int) -> Reading:
    """Reads a clip and pairs its modalities by frame number.

    Raises:
      DataError: a file is damaged, or the modalities do not pair.
    """
    frames, shapes, numbers = {}, {}, {}
    for name, source in clip.sources.items():
        if name == "joints":
            frames[name] = skeleton(root / source)
            numbers[name] = range(1, len(frames[name]) + 1)
            continue
        files = _files(root / source)
        frames[name], shapes[name] = pictures.encode(files.values(), modalities[name], size)
        numbers[name] = list(files)
    common, repaired = pair(numbers, _UNPAIRED)
    for name, found in frames.items():
        place = {number: i for i, number in enumerate(numbers[name])}
        frames[name] = [found[place[number]] for number in common]
    remark = ""
    if len({round(height / width, 2) for height, width in shapes.values()}) > 1:
        remark = "frames of different shape may not be in line"
    return Reading(frames=frames, repaired=repaired, remark=remark)


def skeleton(path: pathlib.Path) -> np.ndarray:
    """The joints of a `.mat` of MATLAB 7.3 (HDF5), its variable `A`, frames x 15 x 3: float32 `[frames, 15, 3]`.

    Raises:
      DataError: the file is no such thing.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            values = np.array(file["A"], np.float64)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path.name}: no MATLAB 7.3 file with an array A ({error.__class__.__name__})") from error
    if values.ndim != 3 or values.shape[:2] != (3, JOINTS):  # MATLAB writes the last axis first
        raise DataError(f"{path.name}: A is {'x'.join(map(str, values.shape[::-1]))}, not frames x {JOINTS} x 3")
    if not (np.abs(values) < np.finfo(np.float32).max).all():
        raise DataError(f"{path.name}: a joint is not finite")
    return values.transpose(2, 1, 0).astype(np.float32)


def _chosen(root: pathlib.Path, folders: Mapping[str, Sequence], asked: Sequence[str]) -> list[str]:
    if unknown := set(asked) - set(_FOLDERS):
        raise UsageError(f"{NAME} has no {', '.join(sorted(unknown))}; it has {', '.join(_FOLDERS)}")
    here = [name for name in _FOLDERS if folders[name]]
    if missing := [name for name in asked if name not in here]:
        raise UsageError(f"{root} has no folder of {', '.join(missing)}; it has {', '.join(here) or 'none'}")
    chosen = [name for name in here if name in (asked or ("rgb", "depth"))]
    if not set(chosen) - {"joints"}:
        raise DataError(f"no sequences in {root}: it needs {' or '.join((_FOLDERS['rgb'][0], *_FOLDERS['depth']))}")
    if "joints" in chosen:
        try:
            import h5py  # noqa: F401
        except ImportError as error:
            raise UsageError("the joints of uwa3dii need h5py: pip install 'hallujax[mat]'") from error
    return chosen


def _sequences(
    root: pathlib.Path, folders: Sequence[pathlib.Path], name: str, problems: dict[str, str]
) -> dict[_Key, dict[int, str]]:
    """Paths by action, subject and view, then by repetition; notes what cannot be used."""
    found: dict[_Key, dict[int, str]] = defaultdict(dict)
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        parsed = _SEQUENCE.fullmatch(path.stem if name == "joints" else path.name)
        if not parsed or path.is_dir() == (name == "joints"):
            continue
        action, subject = int(parsed[1]), int(parsed[2])
        view, repetition = (int(parsed[3]), int(parsed[4])) if parsed[3] else (int(parsed[6]), int(parsed[5]))
        clip, relative = _id((action, subject, view), repetition), path.relative_to(root).as_posix()
        if not 1 <= action <= len(CLASSES):
            problems[clip] = f"action {action} is outside 1 to {len(CLASSES)}"
        elif subject not in SUBJECTS or view not in VIEWS:
            problems[clip] = (
                f"subject {subject}, view {view}: there are {len(SUBJECTS)} subjects and {len(VIEWS)} views"
            )
        elif repetition in found[action, subject, view]:
            problems[clip] = f"two of {name}: {found[action, subject, view][repetition]} and {relative}"
        elif reason := trees.leaves(root, relative):
            problems[clip] = reason
        else:
            found[action, subject, view][repetition] = relative
    return found


def _partners(key: _Key, found: Mapping[str, Mapping[int, str]]) -> list[tuple[str, dict[str, str], str]]:
    """(id, source by modality, why it cannot be used or nothing) of the sequences of an action, subject and view."""
    order = sorted(found, key=lambda name: (name != "rgb", name))  # RGB's numbers count
    first, others = order[0], order[1:]
    partner: dict[int, dict[str, str]] = {number: {first: path} for number, path in found[first].items()}
    alone = []
    for name in others:
        for number, path in sorted(found[name].items()):
            instead = number // 10 * 10 + 1
            for place in (number, instead):
                # What has its own number elsewhere is not taken for a stand-in.
                if place in partner and name not in partner[place] and (place == number or place not in found[name]):
                    partner[place][name] = path
                    break
            else:
                alone.append((_id(key, number), {name: path}))
    everything = [(_id(key, number), sources) for number, sources in sorted(partner.items())] + alone
    missing = [[name for name in order if name not in sources] for _, sources in everything]
    return [
        (
            clip,
            {name: sources[name] for name in found if name in sources},
            f"no {' and no '.join(lacks)}" if lacks else "",
        )
        for (clip, sources), lacks in zip(everything, missing, strict=True)
    ]


def _id(key: _Key, repetition: int) -> str:
    return "a{:02}_s{:02}_v{:02}_e{:02}".format(*key, repetition)


def _files(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The pictures of a folder by number, which need have no leading zeros, in order."""
    names = [path.name for path in folder.iterdir() if path.suffix.lower() in media.PICTURES]
    if not names:
        raise DataError(f"{folder.parent.name}/{folder.name}: no pictures in it")
    return {number: folder / name for number, name in media.numbered(names).items()}


def _size(path: pathlib.Path) -> int:
    return sum(1 for _ in path.iterdir()) if path.is_dir() else path.stat().st_size


def _stored(root: pathlib.Path, chosen: Sequence[str], clips: Sequence[Clip], size: int) -> dict[str, writer.Modality]:
    stored = {"rgb": writer.Modality("jpeg", (size, size, 3)), "joints": writer.Modality("floats", (JOINTS, 3))}
    if "depth" in chosen:
        stored["depth"] = pictures.depth_modality(_examples(root, clips), size)
    return {name: stored[name] for name in chosen}


def _examples(root: pathlib.Path, clips: Sequence[Clip]) -> Iterator[pathlib.Path]:
    """The first depth map of each clip."""
    for clip in clips:
        with contextlib.suppress(DataError):  # an empty folder, which its reader will name
            yield next(iter(_files(root / clip.sources["depth"]).values()))
