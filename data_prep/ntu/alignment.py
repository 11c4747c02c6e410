"""Where a pixel of the RGB frame lies in the depth map, for each setup and camera.

There is no calibration of the set. Every joint has both coordinates, though, and an affine map fitted to them is as
good as one gets without knowing the depth of each pixel. Where there are too few joints, a published fit (to setup 1,
https://github.com/shahroudy/NTURGB-D/issues/39) takes its place.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.ntu.skeleton import Body

RGB_SIZE = (1080, 1920)  # height, width: what joints' RGB coordinates count in, whatever the size of the video
DEPTH_SIZE = (424, 512)
JOINTS_NEEDED = 500
_REFITS = 4
LARGEST_RESIDUAL = 8.0  # pixels of the depth map, root mean square: a fit that is worse has gone wrong

PUBLISHED: Mapping[int, np.ndarray] = {
    1: np.array([[0.345638311, 0.00279844266, -82.2281898], [-0.00137185375, 0.346949734, 13.0882644]]),
    2: np.array([[0.342938209, 0.000872629655, -72.8786114], [0.00034328783, 0.343578203, 17.5767495]]),
    3: np.array([[0.345121348, 0.000853232038, -73.3328852], [0.00151167845, 0.345115132, 22.2178592]]),
}


@dataclasses.dataclass(frozen=True)
class Alignment:
    """`matrix` `[2, 3]` maps (x, y, 1) in the RGB frame to (x, y) in the depth map.

    `joints` that it was fitted to, 0 for the published one; `residual`, pixels of the depth map, root mean square.
    """

    matrix: np.ndarray
    joints: int = 0
    residual: float = 0.0


def fit(bodies: Sequence[Body], camera: int) -> Alignment:
    """Least squares over the tracked joints of `bodies`, repeated without those that are off by three medians."""
    rgb = [body.joints[body.tracked][:, 5:7] for body in bodies]
    depth = [body.joints[body.tracked][:, 3:5] for body in bodies]
    rgb, depth = np.concatenate([*rgb, np.zeros((0, 2))]), np.concatenate([*depth, np.zeros((0, 2))])
    inside = ((rgb > 0) & (rgb < RGB_SIZE[::-1]) & (depth > 0) & (depth < DEPTH_SIZE[::-1])).all(axis=1)
    rgb, depth = rgb[inside], depth[inside]
    if len(rgb) < JOINTS_NEEDED:
        return Alignment(PUBLISHED[camera])
    matrix, away = _least_squares(rgb, depth)
    for _ in range(_REFITS):
        near = away <= 3 * max(np.median(away), 1e-3)
        rgb, depth = rgb[near], depth[near]
        matrix, away = _least_squares(rgb, depth)
    residual = float(np.sqrt(np.mean(away**2)))
    if len(away) < JOINTS_NEEDED or residual > LARGEST_RESIDUAL or np.linalg.matrix_rank(matrix[:, :2], 1e-2) < 2:
        return Alignment(PUBLISHED[camera])
    return Alignment(matrix, len(away), residual)


def _least_squares(rgb: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map `[2, 3]`, and how far from its depth coordinate it puts each joint."""
    known = np.column_stack([rgb, np.ones(len(rgb))])
    matrix = np.linalg.lstsq(known, depth, rcond=None)[0].T
    return matrix, np.linalg.norm(known @ matrix.T - depth, axis=1)
