"""Converts NTU RGB+D from the archives as they unpack:

    RAW/nturgb+d_rgb/S001C001P001R001A001_rgb.avi                 1920x1080, or any size of that shape
    RAW/nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png    512x424, 16 bits, millimetres
    RAW/nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png            the full maps, read where no masked ones are
    RAW/nturgb+d_skeletons/S001C001P001R001A001.skeleton
    RAW/nturgb+d_ir/S001C001P001R001A001_ir.avi                   only if infrared is asked for

These folders may also lie one folder deeper, and any part of the samples may be there. Of every frame of a clip the
same square is cut, around its performers, and depth and infrared are picked where the RGB pixels are.
"""

import functools
import pathlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data_prep import crops, media, trees, writer
from data_prep.convert import Clip, Raw, Reading, pair
from data_prep.ntu import alignment, names, skeleton
from data_prep.ntu.alignment import DEPTH_SIZE, RGB_SIZE
from hallujax.errors import DataError, UsageError

VERSION = "1.0.0"
SETUPS = {"ntu_rgbd60": 17, "ntu_rgbd120": 32}
_FOLDERS = {
    "rgb": ("nturgb+d_rgb",),
    "depth": ("nturgb+d_depth_masked", "nturgb+d_depth"),
    "infrared": ("nturgb+d_ir",),
    "skeleton": ("nturgb+d_skeletons",),
}
_PICTURES = ("rgb", "depth", "infrared")  # without these a sample is refused, where the tree has them
_SKELETONS_A_FIT = 12  # clips of each setup and camera, the first by name that can be read
_MARGIN = 1.25  # of the square, to the larger side of the box around all joints: hands and heads reach beyond them
_SMALLEST = 240  # pixels of the RGB frame
_FRAMES_A_CLIP = 85  # of the sets, on average
_DESCRIPTION = "NTU RGB+D, cut to a square around the performers, depth brought into line with RGB."


def scan(root: pathlib.Path, *, name: str, size: int = 256, modalities: Sequence[str] = ()) -> Raw:
    """Finds the samples of `root` and fits the alignment of RGB and depth.

    Args:
      name: `ntu_rgbd60` or `ntu_rgbd120`.
      size: of the frames in the dataset, pixels a side.
      modalities: of `rgb`, `depth`, `joints` and `infrared`; all that the tree has but infrared if none are named.

    Raises:
      UsageError: PyAV is needed and missing, or `root` lacks the folders of a modality that is named.
      DataError: there are no samples.
    """
    root = trees.root(root)
    folders = {what: trees.folders(root, known) for what, known in _FOLDERS.items()}
    stored = _modalities(root, folders, modalities, size)
    if {"rgb", "infrared"} & set(stored):
        media.require_pyav()
    found, problems = defaultdict(dict), {}
    for what in (*(m for m in _PICTURES if m in stored), "skeleton"):
        for folder in folders[what]:
            for sample, path in _entries(folder, what):
                if sample[:4] > f"S{SETUPS[name]:03}":
                    continue  # the tree of the 120, the set of the 60
                relative = path.relative_to(root).as_posix()
                if what in found[sample]:
                    problems[sample] = f"two of {what}: {found[sample][what]} and {relative}"
                elif not path.resolve().is_relative_to(folder.resolve()):
                    problems[sample] = f"{relative} leaves its folder"
                found[sample][what] = relative
    wanted = [modality for modality in _PICTURES if modality in stored]
    for sample, sources in found.items():
        if reason := names.problem(names.parse(sample)):
            problems[sample] = reason
        elif missing := [what for what in wanted if what not in sources]:
            problems.setdefault(sample, f"no {' and no '.join(missing)}")
    if not found:
        raise DataError(f"no samples in {root}: it needs {', '.join(f[0] for f in _FOLDERS.values())} in it")
    clips = [_clip(root, sample, found[sample]) for sample in sorted(found) if sample not in problems]
    fits = _alignments(root, clips)
    return Raw(
        name=name,
        description=_DESCRIPTION,
        version=VERSION,
        classes=class_names()[: max(names.actions(SETUPS[name]))],
        modalities=stored,
        clips=clips,
        refused=sorted(problems.items()),
        read=functools.partial(read, root=root, modalities=stored, size=size, fits=fits),
        frames=_FRAMES_A_CLIP * len(clips),
        options={"size": size, "margin": _MARGIN},
        info={
            "frame_size": [size, size],
            "joint_names": list(names.JOINTS),
            "samples_of_the_set": sum(1 for _ in names.samples(SETUPS[name])),
            "depth_maps": folders["depth"][0].name if folders["depth"] else None,
            "alignment": {
                f"S{setup:03}C{camera:03}": {
                    "rgb_to_depth": fitted.matrix.tolist(),
                    "joints": fitted.joints,
                    "residual_pixels": round(fitted.residual, 3),
                }
                for (setup, camera), fitted in sorted(fits.items())
            },
        },
    )


def class_names() -> list[str]:
    """The 120 actions."""
    return (pathlib.Path(__file__).parent / "classes.txt").read_text().splitlines()


def read(
    clip: Clip,
    *,
    root: pathlib.Path,
    modalities: Mapping[str, writer.Modality],
    size: int,
    fits: Mapping[tuple[int, int], alignment.Alignment],
) -> Reading:
    """Reads a clip; one without a skeleton keeps its whole frame.

    Raises:
      DataError: a file is damaged or of another size than NTU's, or the modalities do not pair.
    """
    length, bodies, remark = 0, [], "no skeleton file: whole frame"
    if "skeleton" in clip.sources:
        length, bodies = skeleton.read(root / clip.sources["skeleton"])
        bodies = skeleton.performers(bodies, length)
        remark = "" if bodies else "no body in the skeleton file: whole frame"
    square = _square(bodies)
    to_depth = fits[clip.setup, clip.camera].matrix
    frames, numbers = {}, {}
    for name in _PICTURES:
        if name not in modalities:
            continue
        source = root / clip.sources[name]
        if name == "depth":
            numbers[name], frames[name] = _depth(source, modalities[name], square, size, to_depth)
        else:
            frames[name] = _video(source, name, modalities[name], square, size, to_depth)
            numbers[name] = range(len(frames[name]))
    if "joints" in modalities and bodies:
        frames["joints"] = _joints(bodies, length, square, size)
        numbers["joints"] = range(length)
    common, repaired = pair(numbers)
    for name, found in frames.items():
        place = {number: i for i, number in enumerate(numbers[name])}
        frames[name] = [found[place[number]] for number in common]
    return Reading(frames=frames, repaired=repaired, remark=remark)


def _modalities(
    root: pathlib.Path, folders: Mapping[str, Sequence[pathlib.Path]], asked: Sequence[str], size: int
) -> dict[str, writer.Modality]:
    kinds = {
        "rgb": writer.Modality("jpeg", (size, size, 3)),
        "depth": writer.Modality("png16", (size, size)),
        "infrared": writer.Modality("jpeg", (size, size, 3)),
        "joints": writer.Modality("floats", (2, skeleton.JOINTS, 5)),
    }
    if unknown := set(asked) - set(kinds):
        raise UsageError(f"NTU RGB+D has no {', '.join(sorted(unknown))}; it has {', '.join(kinds)}")
    here = [name for name in kinds if folders["skeleton" if name == "joints" else name]]
    if missing := [name for name in asked if name not in here]:
        raise UsageError(f"{root} has no folder of {', '.join(missing)}; it has {', '.join(here) or 'none'}")
    chosen = asked or [name for name in here if name != "infrared"]
    if not set(chosen) & set(_PICTURES):
        raise DataError(
            f"no samples in {root}: it needs {_FOLDERS['rgb'][0]} or {' or '.join(_FOLDERS['depth'])} in it"
        )
    return {name: kinds[name] for name in kinds if name in chosen}


def _entries(folder: pathlib.Path, what: str) -> list[tuple[str, pathlib.Path]]:
    """(sample, path) of a folder's videos, skeletons or folders of maps."""
    found = []
    for path in sorted(folder.iterdir()):
        fits = path.suffix.lower() in media.VIDEOS
        if what == "skeleton":
            fits = path.suffix == ".skeleton"
        elif what == "depth":
            fits = path.suffix == "" and path.is_dir()
        if fits and names.parse(path.name):
            found.append((path.name[:20], path))
    return found


def _clip(root: pathlib.Path, name: str, sources: Mapping[str, str]) -> Clip:
    sample = names.parse(name)
    return Clip(
        id=name,
        label=sample.action - 1,
        subject=sample.performer,
        camera=sample.camera,
        setup=sample.setup,
        repetition=sample.repetition,
        sources=dict(sources),
        # To list 114,480 folders of depth maps would take longer than it is worth.
        stamp=[(root / path).stat().st_size for what, path in sorted(sources.items()) if what != "depth"],
    )


def _alignments(root: pathlib.Path, clips: Sequence[Clip]) -> dict[tuple[int, int], alignment.Alignment]:
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.setup, clip.camera].append(clip)

    def one(group: tuple[int, int]) -> alignment.Alignment:
        bodies, used = [], 0
        for clip in groups[group]:
            if "skeleton" not in clip.sources or used == _SKELETONS_A_FIT:
                continue
            try:
                found = skeleton.read(root / clip.sources["skeleton"])[1]
            except DataError:
                continue  # its reader will say so
            bodies += found
            used += bool(found)
        return alignment.fit(bodies, group[1])

    with ThreadPoolExecutor(4) as pool:  # most of the time goes into waiting for files
        return dict(zip(groups, pool.map(one, groups), strict=True))


def _square(bodies: Sequence[skeleton.Body]) -> crops.Square:
    """Around all joints of all frames, in pixels of a 1920x1080 frame; the whole frame without them."""
    if not bodies:
        return crops.enclosing_square(*RGB_SIZE)
    points = np.concatenate([body.joints[:, :, 5:7].reshape(-1, 2) for body in bodies])
    points = np.clip(points, 0, RGB_SIZE[::-1])
    low, high = points.min(axis=0), points.max(axis=0)
    side = int(np.clip(_MARGIN * (high - low).max(), _SMALLEST, max(RGB_SIZE)))
    left, top = np.rint((low + high - side) / 2).astype(int).tolist()
    return crops.Square(left, top, side)


def _video(
    path: pathlib.Path, name: str, modality: writer.Modality, square: crops.Square, size: int, to_depth: np.ndarray
) -> list[bytes]:
    """RGB of any size with the shape of 1920x1080, or infrared, which lies on the depth map's grid."""
    encoded, crop = [], None
    for frame in media.video(path):
        if crop is None:
            crop = _crop(path, name, frame.shape[:2], square, size, to_depth)
        encoded.append(modality.encode(crop(frame)))
    return encoded


def _crop(path, name, shape, square, size, to_depth):
    """What cuts the square out of frames of this shape."""
    if name == "infrared":
        if shape != DEPTH_SIZE:
            raise DataError(f"{path.name}: {shape[1]}x{shape[0]} pixels, infrared has 512x424")
        return crops.DepthCrop(square, size, DEPTH_SIZE, to_depth)
    scale = shape[1] / RGB_SIZE[1]
    if abs(shape[0] - scale * RGB_SIZE[0]) > 1:
        raise DataError(f"{path.name}: {shape[1]}x{shape[0]} pixels, 1920x1080 or that shape is expected")
    scaled = crops.Square(*(round(scale * value) for value in (square.left, square.top, square.side)))
    return functools.partial(crops.crop_picture, square=scaled, size=size)


def _depth(
    folder: pathlib.Path, modality: writer.Modality, square: crops.Square, size: int, to_depth: np.ndarray
) -> tuple[list[int], list[bytes]]:
    """Frame numbers, from 0, and encoded maps."""
    files = media.numbered([path.name for path in folder.iterdir() if path.suffix.lower() == ".png"])
    if not files:
        raise DataError(f"{folder.name}: no depth maps in it")
    crop = crops.DepthCrop(square, size, DEPTH_SIZE, to_depth)
    encoded = []
    for name in files.values():
        depth = media.deep_picture(folder / name)
        if depth.shape != DEPTH_SIZE:
            raise DataError(f"{name}: {depth.shape[1]}x{depth.shape[0]} pixels, 512x424 is expected")
        encoded.append(modality.encode(crop(depth)))
    return [number - 1 for number in files], encoded


def _joints(bodies: Sequence[skeleton.Body], length: int, square: crops.Square, size: int) -> np.ndarray:
    """`[length, 2, 25, 5]`: x, y, z in metres and x, y in the cut frame; zeros where there is no body."""
    joints = np.zeros((length, 2, skeleton.JOINTS, 5), np.float32)
    for number, body in enumerate(bodies):
        joints[body.frames, number, :, :3] = body.joints[:, :, :3]
        scaled = (body.joints[:, :, 5:7] + 0.5 - [square.left, square.top]) * size / square.side - 0.5
        joints[body.frames, number, :, 3:] = scaled
    return joints
