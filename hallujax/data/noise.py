"""Depth that fails: corruptions on the device, for what a two-stream model does when its depth camera does not work.

Each is a pure function `corrupt(key, frames, level)` of one clip that grows with its level and is the identity at 0.
What is drawn depends on the key alone, not on the level: the pixels lost at one level are lost at every higher one, so
a curve over levels is of one draw made worse.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from hallujax.data.encodings import LARGEST
from hallujax.data.transforms import Batch, TransformOptions, encode
from hallujax.errors import UsageError

Array = jax.Array

HOLES = 14  # cells of a drop-out in the height of a frame: 8 pixels of 112


def multiply(key: Array, frames: Array, deviation: Array) -> Array:
    """Encoded frames `[T, H, W, C]` times N(1, deviation), drawn for every value (the released code's `--noise`)."""
    return frames * (1.0 + deviation * jax.random.normal(key, frames.shape))


def drop_out(key: Array, depth: Array, share: Array) -> Array:
    """Returns lost as a Kinect loses them, in holes and in single pixels, anew in every frame.

    A pixel of `depth` `[T, H, W]` is lost with probability `share`, and by both causes alike: a cell of a grid of
    `HOLES` a height, which lies elsewhere in every frame, is lost with probability `1 - sqrt(1 - share)`, a pixel of
    the others too.
    """
    length, height, width = depth.shape
    cell = max(1, height // HOLES)
    pixel_key, cell_key, place_key = jax.random.split(key, 3)
    each = 1.0 - jnp.sqrt(1.0 - share)
    cells = jax.random.uniform(cell_key, (length, -(-height // cell) + 1, -(-width // cell) + 1)) < each
    grid = jnp.repeat(jnp.repeat(cells, cell, axis=1), cell, axis=2)
    corners = jax.random.randint(place_key, (length, 2), 0, cell)
    holes = jax.vmap(lambda frame, corner: jax.lax.dynamic_slice(frame, corner, (height, width)))(grid, corners)
    pixels = jax.random.uniform(pixel_key, depth.shape) < each
    return jnp.where(holes | pixels, 0, depth).astype(depth.dtype)


def blur(key: Array, depth: Array, deviation: Array) -> Array:
    """Gaussian means of the returns around each pixel of `depth` `[T, H, W]`; a pixel without return stays without.

    `deviation` is a share of the frame's height.
    """
    del key
    height, width = depth.shape[1:]
    down, across = _gaussian(height, deviation * height), _gaussian(width, deviation * height)
    seen = depth > 0

    def smooth(frames):
        return jnp.einsum("ij,tjk,lk->til", down, frames.astype(jnp.float32), across, precision="highest")

    means = smooth(depth) / jnp.where(seen, smooth(seen), 1.0)
    return jnp.where(seen, jnp.round(means), 0).astype(depth.dtype)


def lose_frames(key: Array, depth: Array, share: Array) -> Array:
    """Whole frames of `depth` `[T, H, W]` without any return: `round(share * T)` of them, drawn at random."""
    rank = jax.random.permutation(key, len(depth))
    lost = rank < jnp.round(share * len(depth))
    return jnp.where(lost[:, None, None], 0, depth).astype(depth.dtype)


@dataclasses.dataclass(frozen=True)
class Noise:
    """One kind of corruption.

    Attributes:
      corrupt: `corrupt(key, frames, level) -> frames`, of one clip.
      severity: what a level counts.
      levels: those of the standard curves, growing.
      encoded: whether `corrupt` takes what the network sees, `[T, H, W, 3]`, and not millimetres `[T, H, W]`.
    """

    corrupt: Callable[[Array, Array, Array], Array]
    severity: str
    levels: tuple[float, ...]
    encoded: bool = False


# The levels of the papers' plots are not known; these end where little of the depth is left.
NOISES: Mapping[str, Noise] = {
    "multiplicative": Noise(multiply, "standard deviation of the factor", (0.25, 0.5, 1.0, 2.0), encoded=True),
    "dropout": Noise(drop_out, "share of pixels lost", (0.1, 0.25, 0.5, 0.75)),
    "blur": Noise(blur, "standard deviation, share of the height", (0.01, 0.02, 0.04, 0.08)),
    "missing": Noise(lose_frames, "share of frames lost", (0.2, 0.4, 0.6, 0.8)),
    "blank": Noise(lose_frames, "share of frames lost", (1.0,)),
}


def encode_noisy(batch: Batch, key: Array, level: Array, *, noise: Noise, options: TransformOptions) -> Batch:
    """A batch as `transforms.encode` gives it, its depth corrupted by a draw from `fold_in(key, sample)` a clip.

    Noise in millimetres comes before the encoding. What the released code multiplies is the 8-bit image that goes into
    the network, saturated: that noise comes after encoding and downsampling, saturated likewise, but not rounded to
    8 bits.

    Raises:
      UsageError: noise in millimetres, for depth that is stored in 8-bit pictures.
    """
    if not noise.encoded and batch["depth"].dtype == jnp.uint8:
        raise UsageError(f"noise of the {noise.severity} needs millimetres; this dataset has 8-bit pictures of depth")

    @jax.vmap
    def noisy(sample, frames):
        return noise.corrupt(jax.random.fold_in(key, sample), frames, level)

    if not noise.encoded:
        return encode(batch | {"depth": noisy(batch["sample"], batch["depth"])}, options)
    encoded = encode(batch, options)
    depth = noisy(batch["sample"], encoded["depth"])
    return encoded | {"depth": jnp.clip(depth, 0.0, LARGEST[options.depth_encoding])}


def _gaussian(size: int, deviation: Array) -> Array:
    """`[size, size]`: row i weighs the pixels of a line around pixel i; the identity where the deviation is 0."""
    distance = jnp.arange(size)[:, None] - jnp.arange(size)
    return jnp.exp(-0.5 * (distance / jnp.maximum(deviation, 1e-2)) ** 2)
