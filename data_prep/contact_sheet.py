"""A picture of what is in a prepared dataset: RGB and depth strips of a few clips."""

import pathlib

import numpy as np
from PIL import Image, ImageDraw

from hallujax.data.records import PreparedDataset

_CAPTION = 14
_COLUMNS = 2


def contact_sheet(dataset_dir, path, clips: int = 12, frames: int = 8, zoom: int = 1) -> pathlib.Path:
    """Writes a PNG of `clips` clips, of different classes and cameras in turn: RGB above, depth below (near
    is bright).

    Raises:
        DataError: there is no readable dataset in `dataset_dir`.
    """
    dataset = PreparedDataset.open(dataset_dir)
    rows = _choose(dataset, clips)
    lengths = np.minimum(dataset.length("rgb"), dataset.length("depth"))[rows]
    numbers = np.stack([np.linspace(0, n - 1, min(frames, lengths.min())).round().astype(int) for n in lengths])
    rgb, depth = dataset.read("rgb", rows, numbers), dataset.read("depth", rows, numbers)
    strips = []
    for row, colour, metric in zip(rows, rgb, depth, strict=True):
        near, far = np.percentile(metric[metric > 0], [1, 99])
        grey = np.where(metric > 0, np.clip(255 - 205 * (metric - near) / (far - near), 50, 255), 0).astype(np.uint8)
        pictures = np.concatenate(
            [
                np.concatenate(list(colour), axis=1),
                np.repeat(np.concatenate(list(grey), axis=1)[..., None], 3, axis=2),
            ]
        )
        pictures = pictures.repeat(zoom, axis=0).repeat(zoom, axis=1)
        strip = Image.new("RGB", (pictures.shape[1], pictures.shape[0] + _CAPTION), "white")
        strip.paste(Image.fromarray(pictures), (0, _CAPTION))
        caption = f"{dataset.classes[dataset.index['label'][row]]}   {dataset.clip_id(row)}"
        ImageDraw.Draw(strip).text((2, 1), caption, fill="black")
        strips.append(strip)
    width, height = strips[0].size
    lines = -(-len(strips) // _COLUMNS)
    sheet = Image.new("RGB", (width * min(_COLUMNS, len(strips)), height * lines), "white")
    for i, strip in enumerate(strips):
        sheet.paste(strip, (width * (i % _COLUMNS), height * (i // _COLUMNS)))
    sheet.save(path)
    return pathlib.Path(path)


def _choose(dataset: PreparedDataset, clips: int) -> np.ndarray:
    """Rows of changing class, camera and performer."""
    labels, cameras = dataset.index["label"], dataset.index["camera"]
    present = np.unique(cameras)
    rows = []
    for i in range(clips):
        label, camera = i % len(dataset.classes), present[i % len(present)]
        candidates = np.flatnonzero((labels == label) & (cameras == camera))
        if candidates.size:
            rows.append(candidates[(7 * i) % candidates.size])
    return np.array(rows)
