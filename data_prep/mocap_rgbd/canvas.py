"""Puts what pybullet drew in front of a room: colours averaged over finer pixels, depth read at one of them."""

import dataclasses

import numpy as np

from data_prep.mocap_rgbd.cameras import Camera
from data_prep.mocap_rgbd.scene import Background


@dataclasses.dataclass(frozen=True)
class Picture:
    """The N pixels of a square picture that show something: their number `pixel` [N] in row-major order,
    `depth` [N] in metres along the optical axis, `link` [N], the part it belongs to, and `shading` [N] in
    0..1."""

    pixel: np.ndarray
    depth: np.ndarray
    link: np.ndarray
    shading: np.ndarray


class Canvas:
    """One view of one room, for pictures at `step` times its resolution."""

    def __init__(self, camera: Camera, step: int, room: Background):
        size = camera.size
        self._step, self._size, self._room, self._eye = step, size, room, camera.eye
        self._rays = camera.rays(step).reshape(-1, 3)
        # The pixel of the recording that each of the finer pixels lies in.
        coarse = (np.arange(size * step) // step)[:, None] * size + np.arange(size * step) // step
        self._coarse = coarse.ravel()
        # Depth is one reading, not a mean: that of the first finer pixel.
        first = np.zeros((size * step, size * step), bool)
        first[::step, ::step] = True
        self._first = first.ravel()

    def visible(self, seen: Picture) -> tuple[Picture, np.ndarray]:
        """What of `seen` lies in front of the room, and where its points [n,3] are in the world."""
        front = seen.depth < self._room.depth[self._coarse[seen.pixel]]
        picture = Picture(*(getattr(seen, field.name)[front] for field in dataclasses.fields(Picture)))
        return picture, self._eye + self._rays[picture.pixel] * picture.depth[:, None]

    def merge(
        self, picture: Picture, colour: np.ndarray, behind: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The whole picture.

        Args:
          picture: as `visible` gives it.
          colour: [n,3] of its pixels, light included.
          behind: [N,3], the room's.

        Returns:
          Colours [H,W,3], depth [H,W] in metres, and the cosine [H,W] between surface and ray.
        """
        side = (self._size, self._size)
        place = self._coarse[picture.pixel]
        share = np.bincount(place, minlength=self._size**2)[:, None] / self._step**2
        total = [np.bincount(place, colour[:, c], minlength=self._size**2) for c in range(3)]
        image = behind * (1 - share) + np.stack(total, axis=-1) / self._step**2
        distance, cosine = self._room.depth.copy(), self._room.cosine.copy()
        own = self._first[picture.pixel]
        distance[place[own]], cosine[place[own]] = picture.depth[own], 1.0
        return image.reshape(*side, 3), distance.reshape(side), cosine.reshape(side)
