"""Frames that are single picture files: read whole, brought to a square of one size, encoded.

Depth of 16 bits is taken for millimetres and stored so. Depth of 8 bits is a picture that somebody made of it (HHA, or
grey): it is stored as it is, without loss, and training takes it with `transforms.depth_encoding=picture`.
"""

import contextlib
import pathlib
from collections.abc import Iterable

from data_prep import crops, media, writer
from hallujax.errors import DataError


def depth_modality(files: Iterable[pathlib.Path], size: int) -> writer.Modality:
    """How depth is stored: by the first of its files that can be read."""
    for path in files:
        if media.is_deep(path):
            break
        with contextlib.suppress(DataError):
            media.picture(path)
            return writer.Modality("png", (size, size, 3))
    return writer.Modality("png16", (size, size))


def depth_kind(modality: writer.Modality) -> str:
    """For dataset.json and people."""
    return "millimetres" if modality.kind == "png16" else "pictures of depth, 8 bits"


def encode(
    files: Iterable[pathlib.Path], modality: writer.Modality, size: int
) -> tuple[list[bytes], tuple[int, int] | None]:
    """The frames as they are stored, and the shape that all of them had.

    Raises:
      DataError: a file is damaged, has not the bits that `modality` needs, or another size than the first.
    """
    encoded, shape = [], None
    for path in files:
        deep = modality.kind == "png16"
        frame = media.deep_picture(path) if deep else media.picture(path)
        shape = shape or frame.shape[:2]
        if frame.shape[:2] != shape:
            raise DataError(
                f"{path.name}: {frame.shape[1]}x{frame.shape[0]} pixels, the first frame has {shape[1]}x{shape[0]}"
            )
        squash = crops.squash_depth if deep else crops.squash_picture
        encoded.append(modality.encode(squash(frame, size)))
    return encoded, shape
