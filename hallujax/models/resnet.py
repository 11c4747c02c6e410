"""ResNet 2D+1D: a ResNet v1 over frames with temporal convolutions, as both papers use it.

Sources: Garcia, Morerio and Murino, "Modality distillation with multiple stream networks for action
recognition", ECCV 2018, and "Learning with privileged information via adversarial discriminative modality
distillation", TPAMI 2019, with their released code where the papers are silent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from hallujax.errors import UsageError
from hallujax.models.layers import TEMPORAL_INITS, BatchNorm, Conv, TemporalConv, ghost_groups, max_pool

Layer = Callable[..., nn.Module]

LAYOUTS = ("torchvision", "slim")
POOLINGS = ("average", "convolution")


@flax.struct.dataclass
class StreamOutput:
    """What a stream computes for a batch of clips.

    Attributes:
      logits: `[B, T, K]` float32, one row a frame; a clip's score is their mean over T.
      features: `[B, T, D]` float32, what the classifier sees: the bottleneck's output, else the pooled last
        map.
      maps: `block1` ... `block4`, each block's output after its ReLU, and `block{i}/unit1/preactivation`,
        the sum that ends unit 1 before its ReLU (blocks of two units and more); all `[B, T, h, w, C]` in
        the compute type.
    """

    logits: Array
    features: Array
    maps: dict[str, Array]


def connections(output: StreamOutput) -> tuple[Array | None, ...]:
    """What a stream gives to another through the multiplicative connections: ReLU of each block's unit 1.

    Returns one array `[B, T, h, w, C]` a block, None for a block of a single unit: the `modulation` of the
    other stream.
    """
    blocks = sum("/" not in name for name in output.maps)
    sums = [output.maps.get(f"block{i}/unit1/preactivation") for i in range(1, blocks + 1)]
    return tuple(None if x is None else nn.relu(x) for x in sums)


class Unit(nn.Module):
    """A bottleneck unit on `[N, H, W, C]`: 1x1, 3x3, (temporal), 1x1, added to the shortcut; no final
    ReLU."""

    width: int
    stride: int
    project: bool
    conv: Layer
    norm: Layer
    temporal: Layer | None

    @nn.compact
    def __call__(self, x: Array, injected: Array | None = None) -> Array:
        if self.project:
            shortcut = self.conv(4 * self.width, stride=self.stride, name="shortcut_conv")(x)
            shortcut = self.norm(name="shortcut_bn")(shortcut)
        else:
            shortcut = x[:, :: self.stride, :: self.stride]  # slim's 1x1 max-pool
        # Only the residual branch sees the other stream.
        y = x if injected is None else x + injected
        y = nn.relu(self.norm(name="bn1")(self.conv(self.width, name="conv1")(y)))
        y = self.conv(self.width, kernel_size=3, stride=self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        if self.temporal is not None:
            y = self.temporal(name="temporal")(y)
        y = self.norm(name="bn3")(self.conv(4 * self.width, name="conv3")(y))
        return shortcut + y


class Block(nn.Module):
    """The units of one resolution; number `strided` strides, one sees the clip; `unit` is `Unit`, or it under remat."""

    units: int
    width: int
    stride: int
    strided: int
    conv: Layer
    norm: Layer
    temporal: Layer
    unit: Layer = Unit

    @nn.compact
    def __call__(self, x: Array, modulation: Array | None) -> tuple[Array, Array | None]:
        first_sum = None
        for i in range(1, self.units + 1):
            unit = self.unit(
                width=self.width,
                stride=self.stride if i == self.strided else 1,
                project=i == 1,
                conv=self.conv,
                norm=self.norm,
                temporal=self.temporal if i == min(2, self.units) else None,
                name=f"unit{i}",
            )
            total = unit(x, first_sum * modulation if i == 2 and modulation is not None else None)
            if i == 1 and self.units > 1:
                first_sum = total
            x = nn.relu(total)
        return x, first_sum


class Head(nn.Module):
    """The top of a `VideoResNet` as a network of its own, so that it can be trained while what is below it is frozen.

    Its variables are those of the same names in the whole stream; see `head_of` and `part_of`.

    Attributes:
      above: "maps": pooling, bottleneck and classifier, on the last block's map `[B, T, h, w, C]`; "features": the
        classifier alone, on `StreamOutput.features` `[B, T, D]`.
      num_classes, bottleneck, bottleneck_pooling, bottleneck_norm, batch_norm_momentum, ghost_batch: as in
        `VideoResNet`.
    """

    num_classes: int
    above: str
    bottleneck: int | None = None
    bottleneck_pooling: str = "average"
    bottleneck_norm: bool = True
    batch_norm_momentum: float = 0.9
    ghost_batch: int = 0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Logits `[B, T, K]` float32."""
        clips, length = x.shape[:2]
        x = x.reshape(-1, *x.shape[2:]).astype(jnp.float32)
        if self.above == "maps":
            groups = ghost_groups(clips, self.ghost_batch) if train else 1
            norm = partial(BatchNorm, train=train, momentum=self.batch_norm_momentum, groups=groups)
            x = _features(self, x, norm)
        logits = nn.Dense(self.num_classes, name="logits")(x)
        return logits.reshape(clips, length, -1)

    def part_of(self, variables: dict[str, Any]) -> dict[str, Any]:
        """This head's variables, out of a whole stream's `{"params", "batch_stats"}`."""
        names = {"maps": ("bottleneck_conv", "bottleneck_bn", "logits"), "features": ("logits",)}[self.above]
        return {
            kind: {name: tree for name, tree in trees.items() if name in names} for kind, trees in variables.items()
        }


class VideoResNet(nn.Module):
    """A ResNet v1 with bottleneck units over the frames of clips, with one temporal convolution a block.

    Frames are independent except in unit 2 of each block, where a convolution over the T frames stands
    between the 3x3 and the last 1x1 convolution (a block of one unit carries it there). At the identity
    initialisation the network is the ResNet applied to each frame.

    Attributes:
      num_classes: K.
      stage_sizes: units a block; (3, 4, 6, 3) is ResNet-50.
      width: channels of the stem and of the first block's 3x3 convolutions; each block doubles it, its
        output has 4x.
      bottleneck: size D of a layer between pooling and classifier, 128 in both papers; None for none.
      bottleneck_pooling: "average" pools, then a 1x1 convolution and ReLU (the action networks);
        "convolution" replaces the pooling by a convolution over the whole last map, 7x7 at 224 pixels (the
        object networks). Read only with a bottleneck.
      bottleneck_norm: batch norm between that convolution and its ReLU (the action networks) instead of a
        bias (the object networks, which start from ImageNet's weights).
      temporal_kernel: taps of the temporal convolutions, odd; 5 in the slides, 3 in the released code.
      temporal_init: "identity", or "authors_code" for what the released code does instead (see
        `layers.authors_kernel`).
      layout: "torchvision" strides the first unit of blocks 2 to 4 and pads symmetrically; "slim" strides
        the last unit of blocks 1 to 3, subsamples that unit's shortcut and pads the max-pool as SAME.
      batch_norm_momentum: decay of the running statistics, 0.9 as in torchvision; slim's is 0.997.
      dtype: compute type of the convolutions; parameters, statistics, features and logits are float32.
      ghost_batch: clips that batch norm normalises together in training, 0 for the whole batch.
      remat: in training, keep only what units get and compute the rest again for the gradients.

    Raises UsageError for an unknown option, an even temporal kernel, a modulation that fits no block, or a training
    batch that does not divide into groups of `ghost_batch`.
    """

    num_classes: int
    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    bottleneck: int | None = None
    temporal_kernel: int = 5
    layout: str = "torchvision"
    dtype: jnp.dtype = jnp.float32
    bottleneck_pooling: str = "average"
    bottleneck_norm: bool = True
    temporal_init: str = "identity"
    batch_norm_momentum: float = 0.9
    ghost_batch: int = 0
    remat: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layout", self.layout, LAYOUTS),
            ("bottleneck_pooling", self.bottleneck_pooling, POOLINGS),
            ("temporal_init", self.temporal_init, tuple(TEMPORAL_INITS)),
        ):
            if value not in known:
                raise UsageError(f"VideoResNet: {name}={value!r} is unknown; use one of {', '.join(known)}")
        if self.temporal_kernel % 2 == 0:
            raise UsageError(f"VideoResNet: temporal_kernel={self.temporal_kernel} must be odd")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, frames: Array, train: bool = False, modulation: Sequence[Array | None] | None = None
    ) -> StreamOutput:
        """Runs the stream on `frames` [B, T, H, W, C].

        `train` uses and updates batch statistics. `modulation` holds another stream's `connections`, one
        array `[B, T, h, w, C]` or None a block: unit 2's residual branch then sees `ReLU(s) + s *
        modulation`, s being the sum that ends this stream's unit 1; its shortcut does not (Feichtenhofer et
        al., CVPR 2017; step 2 of ECCV 2018).
        """
        self._check(frames, modulation)
        clips, length = frames.shape[:2]

        def unfold(x):
            return x.reshape(clips, length, *x.shape[1:])

        conv = partial(Conv, dtype=self.dtype)
        groups = ghost_groups(clips, self.ghost_batch) if train else 1
        norm = partial(BatchNorm, train=train, momentum=self.batch_norm_momentum, dtype=self.dtype, groups=groups)
        temporal = partial(
            TemporalConv,
            frames=length,
            kernel_size=self.temporal_kernel,
            init=self.temporal_init,
            dtype=self.dtype,
        )
        unit = nn.remat(Unit) if self.remat and train else Unit
        x = frames.reshape(-1, *frames.shape[2:]).astype(self.dtype)
        x = nn.relu(norm(name="bn1")(conv(self.width, kernel_size=7, stride=2, name="conv1")(x)))
        x = max_pool(x, self.layout)

        maps = {}
        strided = range(1, 4) if self.layout == "slim" else range(2, 5)
        for i, units in enumerate(self.stage_sizes, start=1):
            block = Block(
                units=units,
                width=self.width * 2 ** (i - 1),
                stride=2 if i in strided else 1,
                strided=units if self.layout == "slim" else 1,
                conv=conv,
                norm=norm,
                temporal=temporal,
                unit=unit,
                name=f"block{i}",
            )
            given = None if modulation is None else modulation[i - 1]
            given = None if given is None else given.reshape(-1, *given.shape[2:]).astype(self.dtype)
            x, first_sum = block(x, given)
            maps[f"block{i}"] = unfold(x)
            if first_sum is not None:
                maps[f"block{i}/unit1/preactivation"] = unfold(first_sum)

        x = _features(self, x.astype(jnp.float32), norm)
        logits = nn.Dense(self.num_classes, name="logits")(x)
        return StreamOutput(logits=unfold(logits), features=unfold(x), maps=maps)

    def _check(self, frames: Array, modulation: Sequence[Array | None] | None) -> None:
        if frames.ndim != 5:
            raise UsageError(f"VideoResNet: frames must be [B, T, H, W, C], got shape {frames.shape}")
        if modulation is None:
            return
        if len(modulation) != len(self.stage_sizes):
            raise UsageError(
                f"VideoResNet: {len(modulation)} modulations for {len(self.stage_sizes)} blocks; "
                "give one a block, None for none"
            )
        for i, (units, given) in enumerate(zip(self.stage_sizes, modulation, strict=True), start=1):
            if units < 2 and given is not None:
                raise UsageError(
                    f"VideoResNet: block{i} has one unit and takes no connection; its modulation must be None"
                )


def head_of(stream: VideoResNet, above: str) -> Head:
    """The head of a stream like `stream`, above its "maps" or its "features"."""
    return Head(
        stream.num_classes,
        above,
        stream.bottleneck,
        stream.bottleneck_pooling,
        stream.bottleneck_norm,
        stream.batch_norm_momentum,
        stream.ghost_batch,
    )


def _features(network: VideoResNet | Head, x: Array, norm: Layer) -> Array:
    """`[N, D]` float32 of the last map `[N, h, w, C]` float32, in the scope of `network`, which calls it."""
    if network.bottleneck is None or network.bottleneck_pooling == "average":
        x = x.mean((1, 2))
    if network.bottleneck is None:
        return x
    normed = network.bottleneck_norm
    x = nn.Dense(network.bottleneck, use_bias=not normed, name="bottleneck_conv")(x.reshape(x.shape[0], -1))
    return nn.relu(norm(dtype=jnp.float32, name="bottleneck_bn")(x) if normed else x)
