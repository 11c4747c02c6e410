"""The discriminator against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.errors import UsageError
from hallujax.models import Discriminator

B, T, D, K = 3, 5, 8, 4


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)


POSITION = np.broadcast_to(np.eye(T, dtype=np.float32), (B, T, T))


def leaky(x, slope=0.2):
    return np.where(x > 0, x, slope * x)


def dense(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params.get("bias", 0.0))


def test_action_network_is_three_layers_with_leaky_relu(features):
    net = Discriminator(K)
    variables = net.init(jax.random.key(0), features, POSITION)
    p = variables["params"]
    x = np.concatenate([POSITION, features], -1)
    expected = dense(p["logits"], leaky(dense(p["fc2"], leaky(dense(p["fc1"], x)))))
    np.testing.assert_allclose(jax.jit(net.apply)(variables, features, POSITION), expected, atol=1e-5)
    assert [p[n]["kernel"].shape for n in ("fc1", "fc2", "logits")] == [(T + D, 256), (256, 128), (128, K + 1)]


def test_its_depth_can_be_said(features):
    shallow, deep = Discriminator(K, hidden=()), Discriminator(K, hidden=(16, 8, 4))
    p = shallow.init(jax.random.key(0), features)["params"]
    assert list(p) == ["logits"]
    np.testing.assert_allclose(shallow.apply({"params": p}, features), dense(p["logits"], features), atol=1e-5)
    widths = {name: layer["kernel"].shape for name, layer in deep.init(jax.random.key(0), features)["params"].items()}
    assert widths == {"fc1": (D, 16), "fc2": (16, 8), "fc3": (8, 4), "logits": (4, K + 1)}


def test_position_matters_only_when_given(features):
    same = np.broadcast_to(features[:, :1], features.shape)
    with_position, without = Discriminator(K), Discriminator(K)
    seen = with_position.apply(with_position.init(jax.random.key(0), same, POSITION), same, POSITION)
    blind = without.apply(without.init(jax.random.key(0), same), same)
    assert np.ptp(seen, axis=1).max() > 1e-3
    np.testing.assert_allclose(np.ptp(blind, axis=1), 0, atol=1e-6)


def test_a_set_of_frames_gets_one_decision(features):
    net = Discriminator(K, classify_set=True)
    variables = net.init(jax.random.key(0), features, POSITION)
    out = net.apply(variables, features, POSITION)
    assert out.shape == (B, 1, K + 1)
    assert np.abs(net.apply(variables, features[:, ::-1], POSITION) - out).max() > 1e-3


@pytest.mark.parametrize("train", [True, False])
def test_authors_batch_norm_is_on_every_layer_the_logits_too(features, train):
    net = Discriminator(K, batch_norm=True)
    variables = net.init(jax.random.key(0), features, POSITION)
    p, stats = variables["params"], variables["batch_stats"]
    rng = np.random.default_rng(1)
    stats = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.5, 2.0, s.shape), jnp.float32), stats)

    def layer(name, x):
        x = dense(p[name], x)
        mean, var = stats[f"{name}_bn"]["mean"], stats[f"{name}_bn"]["var"]
        if train:
            mean, var = x.mean((0, 1)), x.var((0, 1))
        return leaky((x - mean) / np.sqrt(var + 1e-5))

    x = np.concatenate([POSITION, features], -1)
    expected = layer("logits", leaky(layer("fc2", leaky(layer("fc1", x)))))
    variables = {"params": p, "batch_stats": stats}
    out, moved = net.apply(variables, features, POSITION, train=train, mutable=["batch_stats"])
    np.testing.assert_allclose(out, expected, atol=1e-4)
    still = np.array_equal(moved["batch_stats"]["fc1_bn"]["mean"], stats["fc1_bn"]["mean"])
    assert still != train
    assert "bias" not in p["logits"]


def test_object_network(features):
    net = Discriminator(19, task="object")
    variables = net.init(jax.random.key(0), features)
    p = variables["params"]

    def relu(x):
        return np.maximum(x, 0)

    x = relu(dense(p["fc1"], features))
    x = relu(x + dense(p["residual1"], x))
    x = relu(x + dense(p["residual2"], x))
    x = relu(dense(p["fc3"], relu(dense(p["fc2"], x))))
    np.testing.assert_allclose(net.apply(variables, features), dense(p["logits"], x), atol=1e-4)
    widths = [(D, 1024), (1024, 1024), (1024, 1024), (1024, 2048), (2048, 3076), (3076, 20)]
    assert sum(v.size for v in jax.tree.leaves(p)) == sum((i + 1) * o for i, o in widths)


@pytest.mark.parametrize("task", ["action", pytest.param("object", marks=pytest.mark.slow)])
def test_spectral_norm_leaves_no_layer_stretching_anything(features, task):
    net = Discriminator(K, task=task, spectral_norm=True)
    variables = net.init(jax.random.key(0), features)
    plain = Discriminator(K, task=task)
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(
        jnp.shape, plain.init(jax.random.key(0), features)["params"]
    )
    iterate = jax.jit(lambda v: net.apply(v, features, train=True, mutable=["batch_stats"])[1])
    for _ in range(100):
        variables |= iterate(variables)
    divided = {
        name: {"kernel": layer["kernel"] / np.linalg.norm(layer["kernel"], 2), "bias": layer["bias"]}
        for name, layer in variables["params"].items()
    }
    np.testing.assert_allclose(
        net.apply(variables, features), plain.apply({"params": divided}, features), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    "arguments", [{"task": "scene"}, {"task": "object", "batch_norm": True}, {"task": "object", "hidden": (64,)}]
)
def test_impossible_discriminators_are_refused(arguments, features):
    with pytest.raises(UsageError, match="Discriminator"):
        Discriminator(K, **arguments).init(jax.random.key(0), features)
