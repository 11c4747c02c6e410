"""The layers of the streams: convolution, temporal convolution, max-pooling.

One readable layer each, with the same parameters whatever the backend. Spatial convolutions see `[N, H, W,
C]`, frames folded into the batch, so that nothing has more than two spatial dimensions.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # torchvision's ResNet


class Conv(nn.Module):
    """Convolution of `[N, H, W, Cin]` with a kernel `[k, k, Cin, features]`, no bias, `k // 2` zeros on
    every side.

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
        if size == 1:
            return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        pad = size // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            ((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


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
        out = lax.conv_general_dilated(
            clips,
            kernel[:, None].astype(self.dtype),
            (1, 1),
            ((size // 2, size // 2), (0, 0)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return nn.relu(out + bias.astype(self.dtype)).reshape(x.shape)


def max_pool(x: Array, padding: str) -> Array:
    """3x3 max-pooling of `[N, H, W, C]` with stride 2; padding is "torchvision" (1 on every side) or "slim"
    (SAME)."""
    pads = ((1, 1), (1, 1)) if padding == "torchvision" else "SAME"
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=pads)
