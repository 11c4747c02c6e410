"""A pybullet world and its software renderer, which needs no display."""

import contextlib
import math
import os

import numpy as np

from data_prep.mocap_rgbd.cameras import FAR, NEAR, Camera


class World:
    """An empty world of its own. Use as a context manager."""

    def __init__(self):
        with _quiet():
            import pybullet
            import pybullet_data
        self.pybullet = pybullet
        self.data = pybullet_data.getDataPath()
        self._client = pybullet.connect(pybullet.DIRECT)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.pybullet.disconnect(self._client)

    def silhouette(self, camera: Camera) -> np.ndarray:
        """1 where `camera` sees anything, else 0, float [S,S]."""
        mask = self.image(camera, camera.size, (0, 0, camera.size, camera.size), shadow=0)[2]
        return (mask >= 0).astype(np.float64).reshape(camera.size, camera.size)

    def image(self, camera: Camera, side: int, window: tuple[int, int, int, int], **light):
        """Red in 0..255, depth in metres and segmentation (below 0 for none), each [N], of a window of a picture.

        Args:
          side: of the whole picture, pixels.
          window: left, top, right and bottom of what is drawn of it.
          light: as `pybullet.getCameraImage` takes it.
        """
        left, top, right, bottom = window
        projection = np.array(self.pybullet.computeProjectionMatrixFOV(math.degrees(camera.field), 1.0, NEAR, FAR))
        # The window's part of the picture plane, stretched to all of it.
        stretch = np.eye(4)
        stretch[0, 0], stretch[0, 3] = side / (right - left), (side - left - right) / (right - left)
        stretch[1, 1], stretch[1, 3] = side / (bottom - top), (top + bottom - side) / (bottom - top)
        _, _, colour, buffer, mask = self.pybullet.getCameraImage(
            right - left,
            bottom - top,
            camera.view_matrix(),
            (projection.reshape(4, 4) @ stretch.T).ravel().tolist(),
            renderer=self.pybullet.ER_TINY_RENDERER,
            flags=self.pybullet.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX,
            **light,
        )
        depth = FAR * NEAR / (FAR - (FAR - NEAR) * np.asarray(buffer).ravel().astype(np.float64))
        return np.asarray(colour).reshape(-1, 4)[:, 0], depth, np.asarray(mask).ravel()


@contextlib.contextmanager
def _quiet():
    """Importing pybullet prints its build time on the process's own standard output and error."""
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
