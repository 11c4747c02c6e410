"""Brings the frames of a clip to one size: a square cut out of each, the same for every modality, or all of it."""

import dataclasses

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Square:
    """In pixels of the frame; it may reach beyond the frame, where pictures are black and depth has no return."""

    left: int
    top: int
    side: int


def centre_square(height: int, width: int) -> Square:
    """The largest square in the middle of a frame."""
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def enclosing_square(height: int, width: int) -> Square:
    """The smallest square around a whole frame."""
    side = max(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def crop_picture(frame: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square of an 8-bit frame `[H, W, 3]` as `[size, size, 3]`, averaged over pixels where it shrinks."""
    height, width = frame.shape[:2]
    left, top = max(square.left, 0), max(square.top, 0)
    right, bottom = min(square.left + square.side, width), min(square.top + square.side, height)
    if (right - left, bottom - top) == (square.side, square.side):
        cut = frame[top:bottom, left:right]
    else:
        cut = np.zeros((square.side, square.side, 3), np.uint8)
        cut[top - square.top : bottom - square.top, left - square.left : right - square.left] = frame[
            top:bottom, left:right
        ]
    if square.side == size:
        return np.ascontiguousarray(cut)
    return np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR))


def squash_picture(frame: np.ndarray, size: int) -> np.ndarray:
    """A whole 8-bit frame `[H, W, 3]` as `[size, size, 3]`, whatever its shape."""
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR))


def squash_depth(depth: np.ndarray, size: int) -> np.ndarray:
    """A whole depth map `[H, W]` as `[size, size]`: of each new pixel the nearest old one, depths are never mixed."""
    row, column = (np.rint((np.arange(size) + 0.5) * side / size - 0.5).astype(int) for side in depth.shape)
    return depth[row[:, None].clip(0), column.clip(0)]


class DepthCrop:
    """Picks for each pixel of a square the nearest one of a depth map: depths are never mixed."""

    def __init__(self, square: Square, size: int, shape: tuple[int, int], to_depth: np.ndarray | None = None):
        """
        Args:
          square: in pixels of the frame that `to_depth` maps from.
          size: pixels of the result, a side.
          shape: (height, width) of the depth maps.
          to_depth: affine `[2, 3]` from (x, y, 1) in that frame to (x, y) in the depth map; the identity if None.
        """
        steps = (np.arange(size) + 0.5) * square.side / size - 0.5
        x, y = np.meshgrid(square.left + steps, square.top + steps)
        if to_depth is not None:
            x, y = np.einsum("ij,jhw->ihw", to_depth, np.stack([x, y, np.ones_like(x)]))
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        self._outside = (column < 0) | (row < 0) | (column >= shape[1]) | (row >= shape[0])
        self._row, self._column = np.clip(row, 0, shape[0] - 1), np.clip(column, 0, shape[1] - 1)

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        """The square of a depth map `[H, W]`, `[size, size]`."""
        cut = depth[self._row, self._column]
        cut[self._outside] = 0
        return cut
