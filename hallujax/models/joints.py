"""The stream of joints: a stacked LSTM over the frames."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from hallujax.models.layers import BatchNorm, ghost_groups
from hallujax.models.resnet import StreamOutput, VideoResNet


class JointsStream(nn.Module):
    """A stacked LSTM over skeletons, the "Deep LSTM" of the tables: two layers (Shahroudy et al., CVPR 2016).

    It answers as a `VideoResNet` does, without maps, and has the same layers above its features: a student of either
    kind can learn from the other.

    Attributes:
      num_classes: K.
      bottleneck: size D of the layer between the LSTM and the classifier; None for none, then D is `width`.
      width: of each LSTM layer.
      layers: of LSTM.
      batch_norm_momentum: of the bottleneck's running statistics.
      ghost_batch: clips that batch norm normalises together in training, 0 for the whole batch.
    """

    num_classes: int
    bottleneck: int | None = None
    width: int = 128
    layers: int = 2
    batch_norm_momentum: float = 0.9
    ghost_batch: int = 0

    @nn.compact
    def __call__(self, joints: Array, train: bool = False) -> StreamOutput:
        """Runs the stream on `joints` `[B, T, bodies, J, 3]`, as `data.joints.normalize` gives them."""
        x = joints.reshape(*joints.shape[:2], -1).astype(jnp.float32)
        for i in range(1, self.layers + 1):
            x = nn.RNN(nn.OptimizedLSTMCell(self.width, name=f"lstm{i}"))(x)
        if self.bottleneck is not None:
            x = nn.Dense(self.bottleneck, use_bias=False, name="bottleneck_conv")(x)
            groups = ghost_groups(x.shape[0], self.ghost_batch) if train else 1
            norm = BatchNorm(train, momentum=self.batch_norm_momentum, groups=groups, name="bottleneck_bn")
            x = nn.relu(norm(x))
        return StreamOutput(logits=nn.Dense(self.num_classes, name="logits")(x), features=x, maps={})


def joints_stream_of(stream: VideoResNet) -> JointsStream:
    """The stream of joints that goes with `stream`: as many classes, features alike behind a bottleneck."""
    return JointsStream(
        stream.num_classes,
        stream.bottleneck,
        batch_norm_momentum=stream.batch_norm_momentum,
        ghost_batch=stream.ghost_batch,
    )
