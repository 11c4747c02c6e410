"""Quaternions in pybullet's order (x, y, z, w), as arrays [..., 4]."""

import numpy as np


def multiply(a, b):
    """Hamilton product: the rotation b followed by the rotation a."""
    ax, ay, az, aw = (a[..., i] for i in range(4))
    bx, by, bz, bw = (b[..., i] for i in range(4))
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )


def from_vector(rotation):
    """Rotation vectors [..., 3] (axis times angle, radians) to quaternions."""
    angle = np.linalg.norm(rotation, axis=-1, keepdims=True)
    return np.concatenate([rotation * (0.5 * np.sinc(angle / (2 * np.pi))), np.cos(angle / 2)], axis=-1)


def matrix(q):
    """Rotation matrices [..., 3, 3] of unit quaternions; columns are the rotated axes."""
    x, y, z, w = (q[..., i] for i in range(4))
    m = np.empty((*q.shape[:-1], 3, 3))
    m[..., 0, 0], m[..., 0, 1], m[..., 0, 2] = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - z * w),
        2 * (x * z + y * w),
    )
    m[..., 1, 0], m[..., 1, 1], m[..., 1, 2] = (
        2 * (x * y + z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z - x * w),
    )
    m[..., 2, 0], m[..., 2, 1], m[..., 2, 2] = (
        2 * (x * z - y * w),
        2 * (y * z + x * w),
        1 - 2 * (x * x + y * y),
    )
    return m


def interpolate(a, b, fraction):
    """Normalised linear interpolation along the shorter arc; neighbouring frames are close, so this is
    enough."""
    b = np.where(np.sum(a * b, axis=-1, keepdims=True) < 0, -b, b)
    q = a + fraction * (b - a)
    return q / np.linalg.norm(q, axis=-1, keepdims=True)
