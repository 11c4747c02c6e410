"""Decoders that turn a stream's last map into the frames of another modality."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from hallujax.models.layers import BatchNorm, Conv, conv, conv_by_patches, conv_init, ghost_groups, on_cpu


class UpConv(nn.Module):
    """Twice the size: zeros put after every row and column of `[N, h, w, C]`, then a 5x5 convolution, no bias.

    No product with one of these zeros is computed. An output at an even place meets three of the kernel's five rows,
    at an odd place the two others, and columns alike: so a 3x3 convolution gives the four kinds of outputs side by
    side, 36 products where 25 are needed and the zeros would make it 100 (after the "fast up-convolution" of Laina
    et al., 3DV 2016).
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, h, w, channels = x.shape
        kernel = self.param("kernel", conv_init, (5, 5, channels, self.features), jnp.float32)
        # A row of zeros before the five, and row 2d + 1 - a of the six is that of tap d for outputs at place a.
        six = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
        taps = six.reshape(3, 2, 3, 2, channels, self.features)[:, ::-1, :, ::-1]
        taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(3, 3, channels, 4 * self.features)
        small = on_cpu() and min(h, w) < 3
        y = (conv_by_patches if small else conv)(x, taps, 1)
        return y.reshape(n, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, -1)


class UpProjection(nn.Module):
    """The up-projection of Laina et al. (3DV 2016): a residual unit of twice its input's size."""

    features: int
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = nn.relu(self.norm(name="bn1")(UpConv(self.features, name="conv1")(x)))
        y = self.norm(name="bn2")(Conv(self.features, kernel_size=3, name="conv2")(y))
        shortcut = self.norm(name="shortcut_bn")(UpConv(self.features, name="shortcut_conv")(x))
        return nn.relu(y + shortcut)


class UpProjectionDecoder(nn.Module):
    """FCRN's way up (Laina et al., "Deeper depth prediction with fully convolutional residual networks", 3DV 2016).

    Channels are halved by a 1x1 convolution with batch norm, and again by each up-projection; a 3x3 convolution ends
    it. Theirs has four up-projections on ResNet-50's 2048 channels, which ends at half the frames' size, and dropout
    before the last convolution, which is left out here.

    Attributes:
      doublings: up-projections.
      channels: of the frames.
      batch_norm_momentum: of the running statistics.
      ghost_batch: clips that batch norm normalises together in training, 0 for the whole batch.
    """

    doublings: int
    channels: int = 3
    batch_norm_momentum: float = 0.9
    ghost_batch: int = 0

    @nn.compact
    def __call__(self, maps: Array, train: bool = False) -> Array:
        """Frames `[B, T, h 2^doublings, w 2^doublings, channels]` float32 of `maps` `[B, T, h, w, C]`."""
        clips, length = maps.shape[:2]
        x = maps.reshape(-1, *maps.shape[2:]).astype(jnp.float32)
        groups = ghost_groups(clips, self.ghost_batch) if train else 1
        norm = partial(BatchNorm, train=train, momentum=self.batch_norm_momentum, groups=groups)
        features = x.shape[-1] // 2
        x = norm(name="bn1")(Conv(features, name="conv1")(x))
        for i in range(1, self.doublings + 1):
            features = max(1, features // 2)
            x = UpProjection(features, norm, name=f"up{i}")(x)
        x = nn.Conv(self.channels, (3, 3), name="frames")(x)
        return x.reshape(clips, length, *x.shape[1:])


class DeconvolutionDecoder(nn.Module):
    """The way up of the released NYUD code's autoencoder: deconvolutions of stride 2, batch norm and ReLU between.

    Each halves the channels; there 2048 become 1024, 512, 256, 128 and 3. Its first two kernels are 3x3, here all are
    5x5, and its tanh onto the range of pixels is left out: encodings of depth have other ranges.

    Attributes: as `UpProjectionDecoder`.
    """

    doublings: int
    channels: int = 3
    batch_norm_momentum: float = 0.95
    ghost_batch: int = 0

    @nn.compact
    def __call__(self, maps: Array, train: bool = False) -> Array:
        """As `UpProjectionDecoder`."""
        clips, length = maps.shape[:2]
        x = maps.reshape(-1, *maps.shape[2:]).astype(jnp.float32)
        groups = ghost_groups(clips, self.ghost_batch) if train else 1
        features = x.shape[-1]
        for i in range(1, self.doublings):
            features = max(1, features // 2)
            norm = BatchNorm(train, momentum=self.batch_norm_momentum, groups=groups, name=f"bn{i}")
            x = nn.relu(norm(UpConv(features, name=f"up{i}")(x)))
        x = UpConv(self.channels, name=f"up{self.doublings}")(x)
        x = x + self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
        return x.reshape(clips, length, *x.shape[1:])
