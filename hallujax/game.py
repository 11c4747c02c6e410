"""Players: each trained network belongs to one player, and descends that player's loss and no other."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Trees = dict[str, Any]


def player_gradients(
    loss_fn: Callable[[Trees], tuple[Mapping[str, jax.Array], Any]],
    trainable: Trees,
    players: Mapping[str, str],
) -> tuple[Trees, Any]:
    """Gradient of every network's parameters with respect to its own player's loss.

    One forward pass and one pull-back a player through the same linearisation, so the networks move
    *simultaneously*; a network's part of another player's gradient is dropped, and the compiler removes its
    computation. With one player this is `jax.grad(..., has_aux=True)`.

    Args:
      loss_fn: maps `trainable` to `({player: scalar loss}, aux)`.
      trainable: `{network: parameter tree}`, the owned networks only; frozen ones are closed over by `loss_fn`.
      players: `{network: player}`, naming exactly the networks of `trainable`.

    Returns:
      `(gradients, aux)`, the gradients with the structure of `trainable`.

    Raises:
      ValueError: if `players` and `trainable` name different networks, or a player has no loss or the reverse.
    """
    if set(players) != set(trainable):
        raise ValueError(f"players are given for the networks {sorted(players)}, parameters for {sorted(trainable)}")
    losses, push_forward, aux = jax.linearize(loss_fn, trainable, has_aux=True)
    if set(losses) != set(players.values()):
        raise ValueError(
            f"losses are given for the players {sorted(losses)}, networks belong to {sorted(set(players.values()))}"
        )
    gradients = {}
    for player in losses:
        # Transposing one loss at a time leaves the others out; a zero cotangent in a common pull-back would be
        # multiplied all the way through, since 0 * x is not 0 to a compiler that minds infinities.
        pull_back = jax.linear_transpose(lambda tangent, player=player: push_forward(tangent)[player], trainable)
        (pulled,) = pull_back(jnp.ones_like(losses[player]))
        gradients |= {network: pulled[network] for network, owner in players.items() if owner == player}
    return {network: gradients[network] for network in trainable}, aux
