"""Depth as a network sees it: metric on disk, encoded on the device.

Every encoding maps uint16 millimetres `[...]`, 0 meaning no return, to float32 `[..., 3]`; `picture` takes depth that
was encoded before it came here.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

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


def picture(depth: Array, *, near: float, far: float) -> Array:
    """Depth that is stored as 8-bit pictures `[..., 3]` (HHA, or grey), in 0..1; `near` and `far` are not used."""
    del near, far
    return depth.astype(jnp.float32) / 255.0


ENCODINGS: Mapping[str, Callable[..., Array]] = {"grey": grey, "jet": jet, "metres": metres, "picture": picture}

# The largest value of each, where noise saturates; the smallest is 0.
LARGEST: Mapping[str, float] = {"grey": 1.0, "jet": 1.0, "metres": 65.535, "picture": 1.0}
