"""Optimisers, one a player, and the plateau that decides when a learning rate has given what it had."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import optax

from hallujax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """How the players descend.

    Attributes:
      name: `adam` (the released code and ADMD) or `sgd` with momentum (the ECCV 2018 slides).
      learning_rate: of every player that `learning_rates` does not name.
      learning_rates: `{player: learning rate}`.
      schedule: `constant`, or `cosine` to zero over the stage's steps.
      warmup: fraction of the steps over which the learning rate rises linearly from zero.
      momentum: of sgd.
      b1, b2: of adam.
      weight_decay: decoupled from adam, an L2 term in sgd; kernels only (neither biases nor batch norm).
      clip: largest norm of a player's gradient; 0 for none.
    """

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    learning_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    momentum: float = 0.9
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 0.0
    clip: float = 0.0

    def __post_init__(self):
        if self.name not in ("adam", "sgd"):
            raise UsageError(f"optimizer.name is {self.name!r}; known: adam, sgd")
        if self.schedule not in ("constant", "cosine"):
            raise UsageError(f"optimizer.schedule is {self.schedule!r}; known: constant, cosine")
        if not 0 <= self.warmup <= 1:
            raise UsageError(f"optimizer.warmup is {self.warmup}; it must be a share of the steps, from 0 to 1")
        for key in ("learning_rate", "weight_decay", "clip"):
            if getattr(self, key) < 0:
                raise UsageError(f"optimizer.{key} is {getattr(self, key)}; it must not be negative")


def learning_rate_schedule(options: OptimizerOptions, player: str, steps: int) -> optax.Schedule:
    """The player's learning rate as a function of finished updates."""
    peak = options.learning_rates.get(player, options.learning_rate)
    warmup = round(options.warmup * steps)
    if options.schedule == "cosine":
        main = optax.schedules.cosine_decay_schedule(peak, max(steps - warmup, 1))
    else:
        main = optax.schedules.constant_schedule(peak)
    if warmup == 0:
        return main
    return optax.schedules.join_schedules([optax.schedules.linear_schedule(0.0, peak, warmup), main], [warmup])


def build_optimizers(
    options: OptimizerOptions,
    players: Mapping[str, str],
    steps: int,
    idle: Mapping[str, tuple[str, ...]] | None = None,
    rounds: Sequence[Sequence[str]] = (),
) -> dict[str, optax.GradientTransformation]:
    """One optimiser a player, each over `{network: parameters}` of the networks it owns.

    Args:
      options: see `OptimizerOptions`.
      players: `{network: player}`.
      steps: length of the schedule, in updates.
      idle: `{network: top-level modules}` kept from weight decay; see `Method.idle`.
      rounds: which players move in a step; one that moves twice has a schedule of twice the updates.

    Raises:
      UsageError: for a learning rate of a player that does not exist.
    """
    if strangers := set(options.learning_rates) - set(players.values()):
        raise UsageError(
            f"optimizer.learning_rates names {sorted(strangers)}; the players are {sorted(set(players.values()))}"
        )

    def decayed(params):
        def keep(path, leaf):
            network, *rest = (key.key for key in path)
            return leaf.ndim > 1 and rest[0] not in (idle or {}).get(network, ())

        return jax.tree_util.tree_map_with_path(keep, params)

    def build(player):
        moves = sum(player in movers for movers in rounds) or 1
        schedule = learning_rate_schedule(options, player, steps * moves)
        decay = optax.add_decayed_weights(options.weight_decay, decayed) if options.weight_decay else optax.identity()
        clip = optax.clip_by_global_norm(options.clip) if options.clip else optax.identity()
        if options.name == "adam":
            scale = optax.chain(optax.scale_by_adam(b1=options.b1, b2=options.b2), decay)
        else:
            scale = optax.chain(decay, optax.trace(decay=options.momentum))
        return optax.chain(clip, scale, optax.scale_by_learning_rate(schedule))

    return {player: build(player) for player in dict.fromkeys(players.values())}


@dataclasses.dataclass
class Plateau:
    """Lowers the learning rate when the validation score stops rising, and ends the stage when that stops helping.

    ECCV 2018 trains "until validation accuracy reaches a plateau"; how often, how long and how far is not said, so all
    three are arguments. The counters travel in the checkpoint.

    Attributes:
      patience: evaluations without a better score before the learning rate falls; 0 switches the plateau off.
      factor: what it is multiplied by.
      drops: how many times before the next plateau ends the stage.
      best, waited, dropped: the counters.
    """

    patience: int = 0
    factor: float = 0.1
    drops: int = 1
    best: float = -1.0
    waited: int = 0
    dropped: int = 0

    @property
    def learning_rate_scale(self) -> float:
        return self.factor**self.dropped

    @property
    def finished(self) -> bool:
        return self.patience > 0 and self.dropped > self.drops

    def update(self, score: float) -> None:
        """Counts one evaluation's score (higher is better)."""
        if score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.patience and self.waited >= self.patience:
            self.dropped, self.waited = self.dropped + 1, 0

    def counters(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "dropped": self.dropped}
