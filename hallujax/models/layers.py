"""The layers of the streams: convolution, temporal convolution, max-pooling.

One readable layer each, with the same parameters whatever the backend. Spatial convolutions see `[N, H, W,
C]`, frames folded into the batch, so that nothing has more than two spatial dimensions.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from hallujax.errors import UsageError

_portable = contextvars.ContextVar("portable", default=False)
_backend = contextvars.ContextVar[str | None]("backend", default=None)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced in here has every convolution and pooling as such, for compilers other than XLA to read."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


@contextlib.contextmanager
def traced_for(backend: str) -> Iterator[None]:
    """What is traced in here is what another backend's compiler will see: "tpu", "cuda" or "cpu"."""
    token = _backend.set(backend)
    try:
        yield
    finally:
        _backend.reset(token)


conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # torchvision's ResNet


class Conv(nn.Module):
    """Convolution of `[N, H, W, Cin]` with a kernel `[k, k, Cin, features]`, no bias, `k // 2` zeros on every
    side.

    The explicit padding is torchvision's, and slim's `conv2d_same` for strided convolutions; at stride 1 it
    is `SAME`. A 1x1 convolution is written as a dot, which makes its forward pass and both gradients matrix
    products.
    """

    features: int
    kernel_size: int = 1
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = self.kernel_size
        kernel = self.param("kernel", conv_init, (size, size, x.shape[-1], self.features), jnp.float32)
        kernel = kernel.astype(self.dtype)
        if size == 1 and not _portable.get():
            return pointwise(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        if on_cpu() and -(-x.shape[1] // self.stride) < size:
            return conv_by_patches(x, kernel, self.stride)
        if on_cpu() and self.stride == 2 and x.shape[-1] <= 4 and self.features <= 32 and x.dtype == jnp.float32:
            return conv_by_pairs(x, kernel)
        return conv(x, kernel, self.stride)


def on_cpu() -> bool:
    """Whether XLA:CPU compiles this; its slow paths are avoided below, and only there."""
    return (_backend.get() or jax.default_backend()) == "cpu" and not _portable.get()


def conv(x: Array, kernel: Array, stride: int) -> Array:
    """The convolution of `Conv`, as XLA has it."""
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv_by_patches(x: Array, kernel: Array, stride: int) -> Array:
    """The same as one matrix product over patches.

    On maps smaller than the kernel XLA:CPU leaves its fast path: 2x2 with 128 channels takes 8 times longer,
    and a strided 4x4 one 15 times, forward and backward.
    """
    size, features = kernel.shape[0], kernel.shape[-1]
    pad = size // 2
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    taps = [x[:, i : i + h : stride, j : j + w : stride] for i in range(size) for j in range(size)]
    return pointwise(jnp.concatenate(taps, axis=-1), kernel.reshape(-1, features))


@jax.custom_vjp
def conv_by_pairs(x: Array, kernel: Array) -> Array:
    """The same at stride 2, pairs of columns being one of twice the channels: a reshape of `[N, H, W, C]`.

    XLA:CPU is slow where few channels go in. From 3 to 8 or 16 features it takes 1.5 times as long as this, to 20, 24
    or 32 between 3.4 and 9 times; to 40 and more it is the faster, by a tenth to a fifth. A zero more at the end of
    each row of the kernel leaves the order of the sums, and up to 16 features the very bits. The gradients are those
    of `conv`.
    """
    size, _, channels, features = kernel.shape
    n, h, w, _ = x.shape
    pad, pairs = size // 2, size // 2 + 1  # of columns, that a window meets
    columns = 2 * ((w - 1) // 2 + pairs)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), (pad, columns - w - pad, 0), (0, 0, 0)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))
    return lax.conv_general_dilated(
        x.reshape(n, h, columns // 2, 2 * channels),
        kernel.reshape(size, pairs, 2 * channels, features),
        (2, 1),
        ((pad, pad), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _conv_by_pairs_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv_by_pairs(x, kernel), (x, kernel)


def _conv_by_pairs_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    return jax.vjp(functools.partial(conv, stride=2), *saved)[1](g)


conv_by_pairs.defvjp(_conv_by_pairs_forward, _conv_by_pairs_backward)


def pointwise(x: Array, kernel: Array) -> Array:
    """`x [..., Cin] @ kernel [Cin, Cout]` as a product of two matrices, so that its gradients are too."""
    flat = _product(x.reshape(-1, x.shape[-1]), kernel)
    return flat.reshape(*x.shape[:-1], kernel.shape[1])


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    # XLA:CPU copies the transposed operand: let it be the one with fewer channels.
    dkernel = x.T @ g if x.shape[1] <= g.shape[1] else (g.T @ x).T
    return g @ kernel.T, dkernel


_product.defvjp(_product_forward, _product_backward)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last; parameters, statistics and arithmetic in float32.

    In training each of `groups` equal parts of the leading axis, in order, is normalised by its own mean and
    (biased) variance: 1 is batch norm over the whole batch, more is "ghost" batch norm (Hoffer et al., NeurIPS
    2017). The running ones move by `1 - momentum` towards the mean over the groups of their means and of their
    variances, these with Bessel's correction by the group's count, as PyTorch and TensorFlow do. So the running
    mean is the same for any number of groups, and the running variance leaves out what is between groups: it is
    what training has normalised by. Written as `a x + b` so that XLA needs two sweeps forward and two backward,
    and keeps nothing but x.
    """

    train: bool
    momentum: float = 0.9
    dtype: jnp.dtype = jnp.float32
    epsilon: float = 1e-5
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

        shape, x, grouped = x.shape, x.astype(jnp.float32), self.groups > 1
        if self.train:
            if grouped:  # a reshape that changes nothing costs XLA fusions
                x = x.reshape(self.groups, -1, *shape[1:])
            axes, count = tuple(range(grouped, x.ndim - 1)), x.size // (self.groups * x.shape[-1])
            mean = x.mean(axes, keepdims=grouped)
            var = jnp.maximum(jnp.square(x).mean(axes, keepdims=grouped) - jnp.square(mean), 0.0)
            if not self.is_initializing():
                unbiased = var * (count / max(count - 1, 1))
                for running, found in ((running_mean, mean), (running_var, unbiased)):
                    over_groups = found.reshape(-1, *channels).mean(0)
                    running.value += (1 - self.momentum) * (over_groups - running.value)
        else:
            mean, var = running_mean.value, running_var.value
        a = scale * lax.rsqrt(var + self.epsilon)
        return (x * a + (bias - mean * a)).astype(self.dtype).reshape(shape)


def ghost_groups(clips: int, ghost_batch: int) -> int:
    """How many groups of `ghost_batch` clips `BatchNorm` makes of so many; 0 is for all of them in one.

    Raises:
      UsageError: if they do not divide.
    """
    if ghost_batch and clips % ghost_batch:
        raise UsageError(f"a batch of {clips} clips does not divide into groups of ghost_batch={ghost_batch}")
    return clips // ghost_batch if ghost_batch else 1


def identity_kernel(key: Array, shape: tuple[int, int, int], dtype=jnp.float32) -> Array:
    """A temporal kernel `[k, C, C]` that copies its input: the centre tap is the identity matrix."""
    del key
    return jnp.zeros(shape, dtype).at[shape[0] // 2].set(jnp.eye(shape[1], dtype=dtype))


def authors_kernel(key: Array, shape: tuple[int, int, int], dtype=jnp.float32) -> Array:
    """What the released code initialises its temporal kernels with, meaning the identity.

    It hands a list of another shape to a constant initialiser, which fills the rest with the last value,
    zero: every output channel becomes channel 1 of the previous frame.
    """
    del key
    return jnp.zeros(shape, dtype).at[0, 1].set(1.0)


TEMPORAL_INITS = {"identity": identity_kernel, "authors_code": authors_kernel}


class TemporalConv(nn.Module):
    """Convolution over the frames of `[B*T, H, W, C]`: kernel `[k, C, C]`, zeros before and after the clip,
    bias, ReLU.

    Bias and ReLU are those of the released code (`slim.conv3d`'s defaults). The input follows a ReLU, so at
    the identity initialisation the layer changes nothing.
    """

    frames: int
    kernel_size: int
    init: str = "identity"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, h, w, c = x.shape
        size = self.kernel_size
        kernel = self.param("kernel", TEMPORAL_INITS[self.init], (size, c, c), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        clips = x.reshape(n // self.frames, self.frames, h * w, c)
        # Two spatial dimensions, [T, H W]: XLA lays out three badly.
        pad = size // 2
        out = lax.conv_general_dilated(
            clips,
            kernel[:, None].astype(self.dtype),
            (1, 1),
            ((pad, pad), (0, 0)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return nn.relu(out + bias.astype(self.dtype)).reshape(x.shape)


def max_pool(x: Array, padding: str) -> Array:
    """3x3 max-pooling of `[N, H, W, C]` with stride 2.

    `padding` is "torchvision" (1 on every side) or "slim" (SAME: at an even size, 1 at the end).
    """
    pads = ((1, 1), (1, 1)) if padding == "torchvision" else "SAME"
    if on_cpu() and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
        return _max_pool(x, 1 if padding == "torchvision" else 0)
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, before: int) -> Array:
    """Max-pooling of even maps by comparing nine strided slices: XLA:CPU's gradient scatters, 7 times slower."""
    return _max_pool_forward(x, before)[0]


def _max_pool_forward(x: Array, before: int) -> tuple[Array, Array]:
    _, h, w, _ = x.shape
    low = jnp.finfo(x.dtype).min
    padded = jnp.pad(x, ((0, 0), (before, 1 - before), (before, 1 - before), (0, 0)), constant_values=low)

    def first_of_largest(candidates):
        """Values and the taps they come from. The first of equals wins, as in XLA's select-and-scatter."""
        best, winner = candidates[0]
        for value, tap in candidates[1:]:
            winner = jnp.where(value > best, tap, winner)
            best = jnp.maximum(value, best)
        return best, winner

    rows = [
        first_of_largest([(padded[:, i : i + h - 1 : 2, j : j + w - 1 : 2], jnp.uint8(3 * i + j)) for j in range(3)])
        for i in range(3)
    ]
    return first_of_largest(rows)


def _max_pool_backward(before: int, winner: Array, g: Array) -> tuple[Array]:
    """Places of the input by whether their row and column are odd: each kind meets the same one, two or four taps.

    XLA fuses the forward pass's comparisons into this and does them again for each tap it sees. That is what to spare:
    fewer taps a place, and comparisons by rows first, take half of the time of all nine taps at all places.
    """
    zero, (n, h, w, c) = jnp.zeros((), g.dtype), g.shape

    def met(odd):
        """The taps that meet a place 2 i + odd, and how far from i their windows are."""
        return [(tap, (odd + before - tap) // 2) for tap in range(3) if (odd + before - tap) % 2 == 0]

    def back(tap, down, right):
        won = jnp.where(winner == tap, g, zero)
        return lax.pad(won, zero, ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0)))

    def places(odd_row, odd_column):
        taps = sorted((3 * i + j, down, right) for i, down in met(odd_row) for j, right in met(odd_column))
        return functools.reduce(jnp.add, [back(*tap) for tap in taps])

    kinds = jnp.stack([jnp.stack([places(row, column) for column in (0, 1)], axis=3) for row in (0, 1)], axis=2)
    return (kinds.reshape(n, 2 * h, 2 * w, c),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
