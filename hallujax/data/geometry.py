"""Encodings of depth by the shape of the scene, for which the camera must be known: surface normals and HHA.

A camera is `(fx / width, fy / height, cx / width, cy / height)`: focal lengths and principal point of a pinhole as
fractions of the frame, so that resizing changes none of them; pixel `(i, j)` is centred at `(j + 1/2, i + 1/2)`. Camera
coordinates are x to the right, y down, z forward, in metres.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
Camera = tuple[float, float, float, float]

_ANOTHER_SURFACE = 0.1  # a step of this share of inverse depth, between a pixel and a neighbour of its window
_COLLINEAR = 0.1  # the determinant of three neighbouring pixels' moments is 1/3, of pixels in a line 0
_ROUNDS = (45.0,) * 5 + (15.0,) * 5  # degrees; Gupta et al.'s
_INERTIA = 0.01
_TALLEST = 2.55  # metres; the authors' 8-bit centimetres end there


def rays(height: int, width: int, camera: Camera) -> tuple[Array, Array]:
    """`x / z` `[1, W]` and `y / z` `[H, 1]` of the pixels' centres."""
    fx, fy, cx, cy = camera
    x = ((jnp.arange(width) + 0.5) / width - cx) / fx
    y = ((jnp.arange(height) + 0.5) / height - cy) / fy
    return x[None, :], y[:, None]


def surface_normals(depth: Array, camera: Camera, *, radius: int = 2) -> Array:
    """Unit normals that point to the camera, by fitting a plane around every pixel.

    On a plane `a X + b Y + c Z = 1` inverse depth is linear in the image, `1/Z = a x + b y + c` with `x = X/Z` and
    `y = Y/Z`: (a, b, c) is its least-squares fit over the pixels of a window that have a return, less those whose
    inverse depth differs by more than a tenth from the middle one's, which are taken for another surface. A window over
    a crease still sees both of its sides.

    Args:
      depth: millimetres `[..., H, W]`, 0 for no return.
      camera: as above.
      radius: of the window; it has `(2 radius + 1)^2` pixels.

    Returns:
      float32 `[..., H, W, 3]`; zero where there is no return, or fewer than three that are not in a line.
    """
    height, width = depth.shape[-2:]
    inverse = jnp.where(depth == 0, 0.0, 1000.0 / jnp.maximum(depth.astype(jnp.float32), 1.0))
    margin = [(0, 0)] * (depth.ndim - 2) + [(radius, radius)] * 2
    padded = jnp.pad(inverse, margin)
    count = sx = sy = sxx = sxy = syy = sw = sxw = syw = jnp.zeros_like(inverse)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            tap = padded[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]
            same = (tap > 0) & (jnp.abs(tap - inverse) < _ANOTHER_SURFACE * inverse)
            weight = same.astype(jnp.float32)
            change = weight * (tap - inverse)  # against the middle pixel: float32 keeps the slope's digits
            count, sw = count + weight, sw + change
            sx, sy, sxw, syw = sx + dx * weight, sy + dy * weight, sxw + dx * change, syw + dy * change
            sxx, sxy, syy = sxx + dx * dx * weight, sxy + dx * dy * weight, syy + dy * dy * weight
    count = jnp.maximum(count, 1.0)
    sxx, sxy, syy = sxx - sx * sx / count, sxy - sx * sy / count, syy - sy * sy / count
    sxw, syw = sxw - sx * sw / count, syw - sy * sw / count
    determinant = sxx * syy - sxy * sxy
    known = (inverse > 0) & (determinant > _COLLINEAR)
    determinant = jnp.where(known, determinant, 1.0)
    right = (syy * sxw - sxy * syw) / determinant  # of inverse depth, a pixel
    down = (sxx * syw - sxy * sxw) / determinant
    middle = inverse + (sw - right * sx - down * sy) / count
    fx, fy, _, _ = camera
    a, b = right * (fx * width), down * (fy * height)
    x, y = rays(height, width, camera)
    outward = jnp.stack([a, b, middle - a * x - b * y], axis=-1)
    length = jnp.maximum(jnp.linalg.norm(outward, axis=-1, keepdims=True), 1e-12)
    return jnp.where(known[..., None], -outward / length, 0.0)


def gravity(normals: Array) -> Array:
    """The direction down, as Gupta et al. (2013, section 4.1) estimate it, from that of an upright camera, +y.

    Ten rounds: normals within an angle d of the estimate (floor, ceiling) should be parallel to it, those within d of
    its horizon (walls) at right angles; the next estimate minimizes the sum of squared cosines of the latter and of
    squared sines of the former: the eigenvector of the smallest eigenvalue of `N_w N_w' - N_f N_f'`. d is 45 degrees,
    then 15. So a camera tilted by more than 45 degrees is taken for another. Where a frame leaves a direction open (one
    wall alone), a small weight on the estimate before keeps it; theirs takes any.

    Args:
      normals: `[..., H, W, 3]`, zero where unknown.

    Returns:
      unit vectors `[..., 3]`, one a frame.
    """
    lead = normals.shape[:-3]
    n = normals.reshape(*lead, -1, 3)
    count = jnp.maximum((jnp.abs(n).sum(-1) > 0).sum(-1), 1.0)[..., None, None]

    def one_round(down: Array, angle: Array) -> tuple[Array, None]:
        cosine = jnp.abs(jnp.einsum("...ni,...i->...n", n, down))
        walls, floors = cosine < jnp.sin(angle), cosine > jnp.cos(angle)
        signed = (walls.astype(n.dtype) - floors.astype(n.dtype))[..., None]
        moments = jnp.einsum("...ni,...nj->...ij", n * signed, n) / count
        moments = moments - _INERTIA * down[..., :, None] * down[..., None, :]
        _, vectors = jnp.linalg.eigh(moments)
        found = vectors[..., 0]
        return jnp.where((found * down).sum(-1, keepdims=True) < 0, -found, found), None

    upright = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0], n.dtype), (*lead, 3))
    down, _ = jax.lax.scan(one_round, upright, jnp.deg2rad(jnp.array(_ROUNDS, n.dtype)))
    return down


def normals(depth: Array, *, near: float, far: float, camera: Camera) -> Array:
    """Surface normals as colours `(n + 1) / 2`: red to the right, green up, blue to the camera; black where unknown.

    `near` and `far` are not used.
    """
    del near, far
    found = surface_normals(depth, camera)
    colour = (found * jnp.array([1.0, -1.0, -1.0]) + 1.0) / 2.0
    return jnp.where((found == 0).all(-1, keepdims=True), 0.0, colour)


def hha(depth: Array, *, near: float, far: float, camera: Camera) -> Array:
    """Horizontal disparity, height above ground and angle with gravity (Gupta et al., ECCV 2014), each in 0..1.

    - disparity: `1/z`, 0 at `far` and 1 at `near`, clipped;
    - height: metres above the lowest point that the frame sees, over 2.55 (their 8-bit centimetres end there), clipped;
    - angle: of the normal, which points to the camera, with `gravity`, over 180 degrees: a ceiling is 0, a wall 1/2, a
      floor 1; 0 where there is no normal.

    All are 0 where there is no return: holes are not filled. Gravity and ground are the frame's own, so they may waver
    over a clip. The authors' 8-bit files scale two of them otherwise: 31000 over centimetres, degrees + 38.
    """
    height, width = depth.shape[-2:]
    seen = depth > 0
    z = jnp.maximum(depth.astype(jnp.float32), 1.0) / 1000.0
    disparity = (1.0 / z - 1000.0 / far) / (1000.0 / near - 1000.0 / far)
    found = surface_normals(depth, camera)
    down = gravity(found[..., ::2, ::2, :])  # neighbours' windows overlap: a quarter of them says as much
    x, y = rays(height, width, camera)
    points = jnp.stack([x * z, y * z, z], axis=-1)
    above = -jnp.einsum("...hwi,...i->...hw", points, down)
    ground = jnp.where(seen, above, jnp.inf).min((-2, -1), keepdims=True)
    rise = jnp.where(seen, above - jnp.where(jnp.isfinite(ground), ground, 0.0), 0.0)
    cosine = jnp.clip(jnp.einsum("...hwi,...i->...hw", found, down), -1.0, 1.0)
    angle = jnp.where((found == 0).all(-1), 0.0, jnp.arccos(cosine) / jnp.pi)
    channels = jnp.stack([jnp.clip(disparity, 0.0, 1.0), jnp.clip(rise / _TALLEST, 0.0, 1.0), angle], axis=-1)
    return jnp.where(seen[..., None], channels, 0.0)
