"""The three cameras: pinholes with fixed intrinsics that look at the middle of a performance.

Camera coordinates are OpenCV's: x right, y down, z forward, metres; pixel (0, 0) is the centre of the first
pixel.
"""

import dataclasses
import math

import numpy as np

VERTICAL_FIELD = math.radians(42.0)
NEAR, FAR = 0.3, 40.0
# As in NTU RGB+D: camera 1 stands in the middle, 2 and 3 at either side; performers face one of the outer
# two.
ANGLES = {1: 0.0, 2: math.radians(-45.0), 3: math.radians(45.0)}
FILL = 0.86  # share of the half frame that the widest excursion of a body reaches
SMALLEST = 0.75  # metres: half the extent below which the camera comes no nearer, so that lying people look small
SETUPS = ((0.9, 1.0), (1.3, 1.0), (1.7, 1.0), (1.3, 1.1))  # height of the camera in metres, distance factor


@dataclasses.dataclass(frozen=True)
class Camera:
    """`eye` [3] in the world, `rotation` [3,3] world to camera, `size` pixels square, `field` of view in
    radians."""

    eye: np.ndarray
    rotation: np.ndarray
    size: int
    field: float = VERTICAL_FIELD

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.size / 2 / math.tan(self.field / 2)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [..., 3] to camera coordinates [..., 3] (metres) and pixels [..., 2] (u, v)."""
        xyz = (points - self.eye) @ self.rotation.T
        return xyz, self.focal * xyz[..., :2] / xyz[..., 2:] + (self.size - 1) / 2

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """For each point [N,3], the number of the pixel it falls on; outside the picture, of one on its border."""
        u, v = np.clip(np.round(self.project(points)[1]), 0, self.size - 1).astype(int).T
        return v * self.size + u

    def rays(self, supersample: int) -> np.ndarray:
        """World directions [S,S,3] with unit depth along the optical axis, S = size * supersample."""
        side = self.size * supersample
        offset = (np.arange(side) + 0.5) / supersample - self.size / 2
        u, v = np.meshgrid(offset / self.focal, offset / self.focal)
        return np.stack([u, v, np.ones_like(u)], axis=-1) @ self.rotation

    def view_matrix(self) -> list[float]:
        """OpenGL's, column-major: x right, y up, looking along -z."""
        view = np.eye(4)
        view[:3, :3] = self.rotation * [[1], [-1], [-1]]
        view[:3, 3] = -view[:3, :3] @ self.eye
        return view.T.ravel().tolist()


def intrinsics(size: int) -> dict:
    """`fx, fy, cx, cy` in pixels, for the dataset's description."""
    focal = Camera(np.zeros(3), np.eye(3), size).focal
    return {"fx": focal, "fy": focal, "cx": (size - 1) / 2, "cy": (size - 1) / 2}


def look_at(eye: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """World-to-camera rotation [3,3]; the world is y-up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.array([-forward[2], 0.0, forward[0]]) / math.hypot(forward[0], forward[2])
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * right + s * down, c * down - s * right, forward])


def aim(rng: np.random.Generator, number: int, setup: int, joints: np.ndarray, floor: float, size: int) -> Camera:
    """Camera `number` (1..3) for a performance whose joints pass through `joints` [N,3], all of it in the
    picture."""
    height, distance_factor = SETUPS[setup - 1]
    target = (joints.min(axis=0) + joints.max(axis=0)) / 2 + rng.normal(0, 0.04, 3)
    angle = ANGLES[number] + rng.normal(0, math.radians(5.0))
    direction = np.array([math.cos(angle), 0.0, math.sin(angle)])
    rise = floor + height + rng.normal(0, 0.1) - target[1]
    roll = rng.normal(0, math.radians(1.5))
    # Half the field a unit away is tan(21 degrees); nearer points look larger, hence the second round.
    distance = 3.5
    for _ in range(3):
        eye = target + direction * distance + [0, rise, 0]
        rotation = look_at(eye, target, roll)
        xyz = (joints - eye) @ rotation.T
        reach = np.abs(xyz[:, :2]).max(axis=1) + 0.14
        needed = np.maximum(reach, SMALLEST * (xyz[:, 2] > 0)) / (FILL * math.tan(VERTICAL_FIELD / 2))
        distance = max(2.2, distance + (needed - xyz[:, 2]).max())
    distance *= distance_factor * rng.uniform(1.0, 1.08)
    eye = target + direction * distance + [0, rise, 0]
    return Camera(eye, look_at(eye, target, roll), size)
