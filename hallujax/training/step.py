"""The training step, the only one: every method, any number of players, on one device or many."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hallujax.game import player_gradients
from hallujax.methods import Method
from hallujax.models.layers import on_cpu
from hallujax.models.streams import Networks
from hallujax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Prepare = Callable[[Batch, jax.Array], Batch]  # (uint8 and uint16 batch, key) -> float batch; see data.transforms


def train_step(
    state: TrainState,
    batch: Batch,
    learning_rate_scale: jax.Array,
    key: jax.Array,
    *,
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    rounds: Sequence[Sequence[str]],
    prepare: Prepare,
    accumulate: int = 1,
    ghost_batch: int = 0,
    gather: Callable[[Any], Any] = lambda params: params,
) -> tuple[TrainState, Metrics]:
    """One update of every player.

    Args:
      state: donated.
      batch: as the pipeline yields it.
      learning_rate_scale: float scalar from the plateau.
      key: the stage's key; what a step draws is keyed by `state.step`, an example's augmentation by its global
        sample number.
      method: what is trained.
      optimizers: `{player: optimiser}`.
      rounds: which players move together, in order: `(("student", "discriminator"),)` is simultaneous descent (the
        released action code), `(("discriminator",), ("student",))` alternates on the same batch (the released
        NYUD code); a player may move in several rounds.
      prepare: augmentation and encoding on the device.
      accumulate: micro-batches that gradients, statistics and metrics are computed from one after the other, in the
        memory of one. Gradients are those of the loss over the whole batch, where that is a mean over clips (the
        pace of `balanced_two_stream` is each micro-batch's own); the running statistics move by the mean of what each
        micro-batch says. With the same groups of ghost batch norm it is the same step.
      ghost_batch: clips that batch norm takes together, which no micro-batch parts.
      gather: makes sharded parameters whole for the forward and backward pass; see `sharding.gather`.

    Returns:
      The next state, and metrics: `PLAYER/TERM` unweighted means over the batch, `loss/PLAYER`,
      `gradient_norm/NETWORK`, `accuracy/SCORE`, `train/accuracy`, `skipped` and `bad_clips`. A step in which a loss,
      a gradient's norm, an updated statistic or an updated parameter is not finite changes nothing but `state.step`,
      and its `skipped` is 1; `bad_clips` counts the clips that the mask takes out.
    """
    augment_key, corrupt_key = jax.random.split(key)
    batch = prepare(batch, augment_key)
    if method.corrupt is not None:
        batch = method.corrupt(jax.random.fold_in(corrupt_key, state.step), batch)
    params, batch_stats, opt_state = dict(state.params), dict(state.batch_stats), dict(state.opt_state)
    parts = micro_batches(batch, accumulate, ghost_batch)
    examples, labelled = jnp.sum(batch["mask"]), jnp.sum(known(batch))
    metrics: Metrics = {}

    for movers in rounds:
        players = {network: player for network, player in method.players.items() if player in movers}

        def gradients_of(part, movers=movers, players=players, params=params, batch_stats=batch_stats):
            def loss_fn(trainable):
                whole = gather(params | trainable)
                nets = Networks(method.networks, whole, batch_stats, training=frozenset(method.players))
                outputs = method.forward(nets, part)
                losses, terms = player_losses(method, outputs, part, examples)
                if method.scores is not None:
                    found = method.scores(outputs, part)
                    terms |= {f"accuracy/{name}": masked_mean(v, part["mask"], examples) for name, v in found.items()}
                moved = {network: nets.batch_stats[network] for network in players}
                correct = (method.predict(outputs).argmax(-1) == part["label"]).astype(jnp.float32)
                accuracy = masked_mean(correct, known(part), labelled)
                return {p: losses[p] for p in movers}, (moved, losses, terms, accuracy)

            return player_gradients(loss_fn, {network: params[network] for network in players}, players)

        gradients, (moved, losses, terms, accuracy) = sum_over(parts, gradients_of)
        moved = jax.tree.map(lambda total: total / accumulate, moved)
        for player in movers:
            owned = [network for network, owner in players.items() if owner == player]
            mine = {network: params[network] for network in owned}
            updates, opt_state[player] = optimizers[player].update(
                {network: gradients[network] for network in owned}, opt_state[player], mine
            )
            updates = jax.tree.map(lambda update: learning_rate_scale * update, updates)
            params |= optax.apply_updates(mine, updates)
        batch_stats |= moved
        metrics |= terms
        metrics |= {f"loss/{player}": losses[player] for player in movers}
        metrics |= {f"gradient_norm/{n}": optax.tree.norm(gradients[n]) for n in players}
        metrics |= {"train/accuracy": accuracy}

    # Moments are means of gradients whose norm is finite, so they need no look of their own.
    decisive = {name: value for name, value in metrics.items() if name.startswith(("loss/", "gradient_norm/"))}
    moved = {name: (params[name], batch_stats[name]) for name in method.players}
    finite = all_finite((decisive, moved))
    metrics |= {"skipped": 1 - finite.astype(jnp.int32), "bad_clips": batch["mask"].size - examples}
    new = TrainState(state.step, params, batch_stats, opt_state)
    kept = jax.tree.map(lambda now, before: jnp.where(finite, now, before), new, state)
    return kept.replace(step=state.step + 1), metrics


def all_finite(tree: Any) -> jax.Array:
    """Whether no number of a tree is infinite or not a number; bool scalar.

    Their norm tells: numbers so large that it overflows are no better than infinite. It ends in a root, which XLA takes
    once; a plain sum or `all` it would work out again in each of the hundreds of places that ask.
    """
    return jnp.isfinite(optax.tree.norm(tree))


def micro_batches(batch: Batch, parts: int, ghost_batch: int = 0) -> Batch:
    """A batch as `[parts, B / parts, ...]`: micro-batch i has clips i, i + parts, ..., or such groups of `ghost_batch`.

    So every device has its share of every micro-batch, where B divides by parts, groups and devices together.
    """

    def cut(x):
        groups = x.reshape(-1, parts, ghost_batch or 1, *x.shape[1:])
        return jnp.moveaxis(groups, 1, 0).reshape(parts, -1, *x.shape[1:])

    return jax.tree.map(cut, batch)


def sum_over(parts: Batch, function: Callable[[Batch], Any]) -> Any:
    """The sum of `function(part)`, a tree, over the leading axis of `parts`."""
    first = jax.tree.map(lambda x: x[0], parts)
    if len(parts["label"]) == 1:
        return function(first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))
    # Unrolled on the CPU: XLA has slow convolutions for the body of a loop there.
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, function(part)), None), zeros, parts, unroll=on_cpu()
    )
    return total


def player_losses(
    method: Method, outputs: Any, batch: Batch, examples: jax.Array | None = None
) -> tuple[dict[str, jax.Array], Metrics]:
    """Reduces, masks and weights a method's terms: the one place where this happens.

    Args:
      examples: those that count in all of which `batch` is a part; the parts' losses add up to those of the whole.

    Returns:
      `{player: scalar loss}` and the unweighted means `{"PLAYER/TERM": scalar}`.

    Raises:
      ValueError: if the method's weights do not name exactly its terms.
    """
    found = method.losses(outputs, batch)
    names = [term for terms in found.values() for term in terms]
    if sorted(names) != sorted(method.weights):
        raise ValueError(f"the terms are {sorted(names)}, the weights are for {sorted(method.weights)}")
    means = {
        player: {term: masked_mean(value, batch["mask"], examples) for term, value in terms.items()}
        for player, terms in found.items()
    }
    losses = {p: sum(method.weights[t] * mean for t, mean in terms.items()) for p, terms in means.items()}
    return losses, {f"{p}/{t}": mean for p, terms in means.items() for t, mean in terms.items()}


def masked_mean(values: jax.Array, mask: jax.Array, examples: jax.Array | None = None) -> jax.Array:
    """Mean of `[B]` values over the examples whose mask is not zero; zero when there is none.

    Of values that are a part of a batch with so many `examples`, their part of the batch's mean.
    """
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask) if examples is None else examples, 1.0)


def known(batch: Batch) -> jax.Array:
    """The mask `[B]` of the examples that count and whose label is known."""
    return batch["mask"] * (batch["label"] >= 0)


def initial_state(
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    players: Mapping[str, str],
    optimizers: Mapping[str, optax.GradientTransformation],
) -> TrainState:
    """The state before the first step: what is warm-started is in `params` already."""
    opt_state = {
        player: jax.jit(optimizer.init)({n: params[n] for n, owner in players.items() if owner == player})
        for player, optimizer in optimizers.items()
    }
    return TrainState(np.zeros((), np.int32), dict(params), dict(batch_stats), opt_state)
