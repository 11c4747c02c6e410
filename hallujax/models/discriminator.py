"""The discriminator of adversarial discriminative modality distillation (TPAMI 2019)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from hallujax.errors import UsageError
from hallujax.models.layers import BatchNorm, ghost_groups

xavier = nn.initializers.xavier_uniform()
ACTION_LAYERS = (256, 128)
he = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")  # slim's


class Discriminator(nn.Module):
    """Tells the class of a real (depth) feature, or that it is hallucinated: K + 1 logits, class K last.

    Attributes:
      num_classes: K; 0 without the auxiliary task: the one logit left is positive for real features.
      task: "action": fully connected `hidden` and K + 1, leaky ReLU between. "object": fully connected
        1024, two residual layers of 1024, 2048, 3076 and K + 1, ReLU (the released NYUD code; the slides
        say five layers).
      hidden: widths of the action network's layers before the last; none make it linear.
      batch_norm: the released action code's network. It is built inside the ResNet's argument scope, so every
        layer has batch norm and a leaky ReLU after it, the logits too, and the hidden ones the layer's own
        leaky ReLU on top; He initialisation, no bias. Off by default: batch statistics make "hallucinated"
        depend on the neighbours. The code never stops using batch statistics; here evaluation uses the running ones.
      negative_slope: of the leaky ReLU.
      classify_set: one decision a clip, from the frames' features side by side, instead of one a frame.
      spectral_norm: divide every layer's weights by their largest singular value, which bounds how fast the logits
        change with a feature (Miyato et al., ICLR 2018); one power iteration each time that it judges in training, so
        two a step of ADMD, real features first. Not in either source.
      ghost_batch: clips that batch norm normalises together in training, 0 for the whole batch.

    Raises UsageError for an unknown task, or batch norm or other layers with the object task, whose shape is fixed.
    """

    num_classes: int
    task: str = "action"
    hidden: tuple[int, ...] = ACTION_LAYERS
    batch_norm: bool = False
    negative_slope: float = 0.2
    classify_set: bool = False
    spectral_norm: bool = False
    ghost_batch: int = 0

    def __post_init__(self) -> None:
        if self.task not in ("action", "object"):
            raise UsageError(f"Discriminator: task={self.task!r} is unknown; use action or object")
        if self.task == "object" and self.batch_norm:
            raise UsageError("Discriminator: batch_norm belongs to task='action'; the object network has none")
        if self.task == "object" and tuple(self.hidden) != ACTION_LAYERS:
            raise UsageError("Discriminator: hidden belongs to task='action'; the object network's layers are fixed")
        super().__post_init__()

    @nn.compact
    def __call__(self, features: Array, position: Array | None = None, train: bool = False) -> Array:
        """Logits [B, T, K + 1] of `features` [B, T, D]; [B, 1, K + 1] when the set of frames is classified.

        `position` [B, T, T], the one-hot index of each frame in its clip, is put before the features when
        given. `train` is read by batch norm and the spectral norm alone.
        """
        x = features.astype(jnp.float32)
        if position is not None:
            x = jnp.concatenate([position.astype(jnp.float32), x], axis=-1)
        if self.classify_set:
            x = x.reshape(x.shape[0], 1, -1)
        return self._action(x, train) if self.task == "action" else self._object(x, train)

    def _layer(self, x: Array, layer: nn.Dense, train: bool) -> Array:
        return (
            nn.SpectralNorm(layer, name=f"{layer.name}_norm")(x, update_stats=train) if self.spectral_norm else layer(x)
        )

    def _action(self, x: Array, train: bool) -> Array:
        groups = ghost_groups(x.shape[0], self.ghost_batch) if train else 1

        def dense(x, width, name):
            if not self.batch_norm:
                return self._layer(x, nn.Dense(width, kernel_init=xavier, name=name), train)
            x = self._layer(x, nn.Dense(width, use_bias=False, kernel_init=he, name=name), train)
            x = BatchNorm(train, momentum=0.997, groups=groups, name=f"{name}_bn")(x)
            return nn.leaky_relu(x, self.negative_slope)

        for i, width in enumerate(self.hidden, 1):
            x = nn.leaky_relu(dense(x, width, f"fc{i}"), self.negative_slope)
        return dense(x, self.num_classes + 1, "logits")

    def _object(self, x: Array, train: bool) -> Array:
        def dense(x, width, name):
            return self._layer(x, nn.Dense(width, kernel_init=xavier, name=name), train)

        x = nn.relu(dense(x, 1024, "fc1"))
        x = nn.relu(x + dense(x, 1024, "residual1"))
        x = nn.relu(x + dense(x, 1024, "residual2"))
        x = nn.relu(dense(x, 2048, "fc2"))
        x = nn.relu(dense(x, 3076, "fc3"))
        return dense(x, self.num_classes + 1, "logits")
