"""The training state: what a step changes and a checkpoint holds."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class TrainState:
    """Everything a training step changes.

    Attributes:
      step: finished updates, int32 scalar.
      params: `{network: parameter tree}`, frozen networks included.
      batch_stats: `{network: batch-norm statistics}`, `{}` for a network without.
      opt_state: `{player: optimiser state over the networks it owns}`.
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: dict[str, Any]
