"""Player gradients against hand-written ones with `stop_gradient`, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax import player_gradients

KEYS = jax.random.split(jax.random.key(0), 4)
TRAINABLE = {
    "student": {"w": jax.random.normal(KEYS[0], (4, 3))},
    "judge": {"w": jax.random.normal(KEYS[1], (3, 2)), "b": jnp.zeros(2)},
}
PLAYERS = {"student": "student", "judge": "judge"}
X, TEACHER = jax.random.normal(KEYS[2], (8, 4)), jax.random.normal(KEYS[3], (8, 3))


def judge(parameters, features):
    return jnp.tanh(features) @ parameters["w"] + parameters["b"]


def game(trainable):
    fake = judge(trainable["judge"], X @ trainable["student"]["w"])
    real = judge(trainable["judge"], TEACHER)
    losses = {
        "student": -jax.nn.log_softmax(fake)[:, 0].mean(),
        "judge": -(jax.nn.log_softmax(fake)[:, 1] + jax.nn.log_softmax(real)[:, 0]).mean(),
    }
    return losses, fake


def by_hand(trainable):
    """The same game as two separate losses, the other side held still in each."""
    stop = jax.lax.stop_gradient

    def student_loss(student):
        return game({"student": student, "judge": stop(trainable["judge"])})[0]["student"]

    def judge_loss(parameters):
        return game({"student": stop(trainable["student"]), "judge": parameters})[0]["judge"]

    return {
        "student": jax.grad(student_loss)(trainable["student"]),
        "judge": jax.grad(judge_loss)(trainable["judge"]),
    }


def test_each_network_descends_its_own_players_loss():
    gradients, fake = jax.jit(lambda t: player_gradients(game, t, PLAYERS))(TRAINABLE)
    expected = jax.jit(by_hand)(TRAINABLE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), gradients, expected)
    np.testing.assert_allclose(fake, game(TRAINABLE)[1], rtol=1e-6)


def test_it_is_not_the_gradient_of_the_sum():
    gradients, _ = player_gradients(game, TRAINABLE, PLAYERS)
    of_sum = jax.grad(lambda t: sum(game(t)[0].values()))(TRAINABLE)
    assert not np.allclose(gradients["judge"]["w"], of_sum["judge"]["w"], rtol=1e-2)


def test_one_player_is_value_and_grad():
    def loss_fn(trainable):
        return {"all": game(trainable)[0]["student"]}, "aux"

    gradients, aux = player_gradients(loss_fn, TRAINABLE, {"student": "all", "judge": "all"})
    expected = jax.grad(lambda t: loss_fn(t)[0]["all"])(TRAINABLE)
    jax.tree.map(np.testing.assert_array_equal, gradients, expected)
    assert aux == "aux"


def test_it_costs_no_more_than_the_hand_written_gradients():
    def flops(f):
        return jax.jit(f).lower(TRAINABLE).compile().cost_analysis()["flops"]

    assert flops(lambda t: player_gradients(game, t, PLAYERS)[0]) <= 1.001 * flops(by_hand)


def test_names_must_agree():
    with pytest.raises(ValueError, match="players are given"):
        player_gradients(game, TRAINABLE, {"student": "student"})
    with pytest.raises(ValueError, match="losses are given"):
        player_gradients(game, TRAINABLE, {"student": "student", "judge": "student"})
