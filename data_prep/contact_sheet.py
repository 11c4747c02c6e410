"""A picture of what is in a prepared dataset: strips of a few clips, one a modality."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw

from hallujax.data.records import PreparedDataset

_CAPTION = 14
_COLUMNS = 2


def contact_sheet(dataset_dir, path, clips: int = 12, frames: int = 8, zoom: int = 1) -> pathlib.Path:
    """Writes a PNG of `clips` clips, of different classes and cameras in turn, with every modality that a clip has.

    Depth and other modalities of 16 bits are grey, near (small) is bright; joints are dots at the last two of their
    five values, pixels of the frame, or, where they have metres alone, as seen from the front.

    Raises:
        DataError: there is no readable dataset in `dataset_dir`.
    """
    dataset = PreparedDataset.open(dataset_dir)
    strips = [_strip(dataset, row, frames, zoom) for row in _choose(dataset, clips)]
    width, height = (max(strip.size[axis] for strip in strips) for axis in (0, 1))
    lines = -(-len(strips) // _COLUMNS)
    sheet = Image.new("RGB", (width * min(_COLUMNS, len(strips)), height * lines), "white")
    for i, strip in enumerate(strips):
        sheet.paste(strip, (width * (i % _COLUMNS), height * (i // _COLUMNS)))
    sheet.save(path)
    return pathlib.Path(path)


def _strip(dataset: PreparedDataset, row: int, frames: int, zoom: int) -> Image.Image:
    """A clip with its caption: a line of frames a modality."""
    lines = []
    for name in dataset.modalities:
        length = int(dataset.length(name)[row])
        if length == 0:
            continue
        numbers = np.linspace(0, length - 1, min(frames, length)).round().astype(int)
        seen = dataset.read(name, [row], [numbers])[0]
        if seen.dtype == np.float32:
            seen = _skeletons(seen, dataset.frame_size)
        elif seen.dtype == np.uint16:
            seen = _grey(seen)
        lines.append(np.concatenate(list(seen), axis=1).repeat(zoom, axis=0).repeat(zoom, axis=1))
    width = max(line.shape[1] for line in lines)
    strip = Image.new("RGB", (width, sum(line.shape[0] for line in lines) + _CAPTION), "white")
    top = _CAPTION
    for line in lines:
        strip.paste(Image.fromarray(line), (0, top))
        top += line.shape[0]
    caption = f"{dataset.classes[dataset.index['label'][row]]}   {dataset.clip_id(row)}"
    ImageDraw.Draw(strip).text((2, 1), caption, fill="black")
    return strip


def _grey(metric: np.ndarray) -> np.ndarray:
    near, far = np.percentile(metric[metric > 0], [1, 99]) if metric.any() else (0, 1)
    bright = np.clip(255 - 205 * (metric - near) / max(far - near, 1), 50, 255)
    return np.repeat(np.where(metric > 0, bright, 0).astype(np.uint8)[..., None], 3, axis=-1)


def _skeletons(joints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`[T, H, W, 3]`: a dot for each joint of `[T, ..., 3 to 5]` that is not zero."""
    values = joints.reshape(len(joints), -1, joints.shape[-1])
    known = values.any(axis=-1)
    if joints.shape[-1] == 5:
        places = values[..., 3:]
    else:  # metres alone: seen from the front, the whole clip in the picture
        low, high = (edge(values[known][:, :2], axis=0) if known.any() else np.zeros(2) for edge in (np.min, np.max))
        scale = 0.8 * min(size) / max((high - low).max(), 1e-6)
        places = (values[..., :2] - (low + high) / 2) * [scale, -scale] + np.array(size[::-1]) / 2
    pictures = np.zeros((len(joints), *size, 3), np.uint8)
    column, row = np.moveaxis(np.rint(places).astype(int), -1, 0)
    inside = known & (row >= 0) & (column >= 0) & (row < size[0]) & (column < size[1])
    frame = np.broadcast_to(np.arange(len(joints))[:, None], inside.shape)
    pictures[frame[inside], row[inside], column[inside]] = 255
    return pictures


def _choose(dataset: PreparedDataset, clips: int) -> np.ndarray:
    """Rows of changing class, camera and performer."""
    labels, cameras = dataset.index["label"], dataset.index["camera"]
    classes, present = np.unique(labels), np.unique(cameras)
    rows = []
    for i in range(clips):
        candidates = np.flatnonzero((labels == classes[i % len(classes)]) & (cameras == present[i % len(present)]))
        if candidates.size:
            rows.append(candidates[(7 * i) % candidates.size])
    return np.unique(rows) if len(dataset) < clips else np.array(rows)
