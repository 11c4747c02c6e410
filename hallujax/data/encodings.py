"""Depth as a network sees it: metric on disk, encoded on the device.

Every encoding maps uint16 millimetres `[..., H, W]`, 0 meaning no return, to float32 `[..., H, W, C]`: three channels,
so that a stream of depth and one of RGB are alike and can start from each other, or one. docs/depth.md compares them.
`picture` takes depth that was encoded before it came here, uint8 `[..., H, W, 3]`.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from hallujax.data.geometry import Camera, hha, normals
from hallujax.errors import UsageError

Array = jax.Array


def relative(depth: Array, near: float, far: float) -> Array:
    """Depth as a fraction of the range, 0 at `near` and 1 at `far` (millimetres), clipped."""
    return jnp.clip((depth.astype(jnp.float32) - near) / (far - near), 0.0, 1.0)


def grey(depth: Array, *, near: float, far: float) -> Array:
    """Nearness in three equal channels: 1 at `near`, 0 at `far` and where there is no return."""
    value = jnp.where(depth == 0, 0.0, 1.0 - relative(depth, near, far))
    return jnp.repeat(value[..., None], 3, axis=-1)


def jet(depth: Array, *, near: float, far: float) -> Array:
    """The jet colour map from blue at `near` to red at `far`, black where there is no return (Eitel et al., 2015)."""
    value = relative(depth, near, far)[..., None]
    colour = jnp.clip(1.5 - jnp.abs(4.0 * value - jnp.array([3.0, 2.0, 1.0])), 0.0, 1.0)
    return jnp.where(depth[..., None] == 0, 0.0, colour)


def metres(depth: Array, *, near: float, far: float) -> Array:
    """Metres in three equal channels; `near` and `far` are not used."""
    del near, far
    return jnp.repeat(depth.astype(jnp.float32)[..., None] / 1000.0, 3, axis=-1)


def nearness(depth: Array, *, near: float, far: float) -> Array:
    """One channel of `grey`."""
    return grey(depth, near=near, far=far)[..., :1]


def raw(depth: Array, *, near: float, far: float) -> Array:
    """One channel of `metres`."""
    return metres(depth, near=near, far=far)[..., :1]


def picture(depth: Array, *, near: float, far: float) -> Array:
    """Depth that is stored as 8-bit pictures `[..., 3]` (HHA, or grey), in 0..1; `near` and `far` are not used."""
    del near, far
    return depth.astype(jnp.float32) / 255.0


ENCODINGS: Mapping[str, Callable[..., Array]] = {
    "grey": grey,
    "jet": jet,
    "metres": metres,
    "nearness": nearness,
    "raw": raw,
    "picture": picture,
}
GEOMETRIC: Mapping[str, Callable[..., Array]] = {"normals": normals, "hha": hha}  # these need the camera
ALL = (*ENCODINGS, *GEOMETRIC)

# The largest value of each, where noise saturates; the smallest is 0.
LARGEST: Mapping[str, float] = dict.fromkeys(ALL, 1.0) | {"metres": 65.535, "raw": 65.535}


def encode_depth(depth: Array, encoding: str, *, near: float, far: float, camera: Camera | None) -> Array:
    """`depth` in the encoding of that name.

    Raises:
      UsageError: if it needs the camera and that is not known.
    """
    if encoding not in GEOMETRIC:
        return ENCODINGS[encoding](depth, near=near, far=far)
    if camera is None:
        raise UsageError(
            f"transforms.depth_encoding={encoding} needs the camera: set transforms.depth_camera to (fx / width, "
            "fy / height, cx / width, cy / height)"
        )
    return GEOMETRIC[encoding](depth, near=near, far=far, camera=camera)
