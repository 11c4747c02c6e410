"""The four systems in plain flax and optax, as one writes them by hand: the peer nearest to hallujax.

Parameters have hallujax's names, so that all arms start from one set of weights. Who does not move whom is said by
`stop_gradient`, and there is one loss: the sum of the players'.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from systems import FEATURE_SCALE, LEARNING_RATE, MOMENTUM, Batch, Case, Variables


class Unit(nn.Module):
    width: int
    stride: int
    project: bool
    taps: int
    frames: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, injected=None):
        def conv(features, size, stride, name):
            pad = size // 2
            return nn.Conv(
                features, (size, size), stride, ((pad, pad), (pad, pad)), use_bias=False, dtype=self.dtype, name=name
            )

        def norm(name):
            return nn.BatchNorm(not self.train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=name)

        shortcut = x
        if self.project:
            shortcut = norm("shortcut_bn")(conv(4 * self.width, 1, self.stride, "shortcut_conv")(x))
        y = x if injected is None else x + injected
        y = nn.relu(norm("bn1")(conv(self.width, 1, 1, "conv1")(y)))
        y = nn.relu(norm("bn2")(conv(self.width, 3, self.stride, "conv2")(y)))
        if self.taps:
            n, h, w, c = y.shape
            y = y.reshape(n // self.frames, self.frames, h * w, c)
            y = nn.relu(nn.Conv(c, (self.taps, 1), dtype=self.dtype, name="temporal")(y)).reshape(n, h, w, c)
        return shortcut + norm("bn3")(conv(4 * self.width, 1, 1, "conv3")(y))


class Block(nn.Module):
    units: int
    width: int
    stride: int
    taps: int
    frames: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, modulation=None):
        first = None
        for i in range(1, self.units + 1):
            unit = Unit(
                self.width,
                self.stride if i == 1 else 1,
                i == 1,
                self.taps if i == min(2, self.units) else 0,
                self.frames,
                self.train,
                self.dtype,
                name=f"unit{i}",
            )
            total = unit(x, first * modulation if i == 2 and modulation is not None else None)
            first = total if i == 1 else first
            x = nn.relu(total)
        return x, nn.relu(first) if self.units > 1 else None


class ResNet(nn.Module):
    """Clip logits [B, K], features [B, T, D], last maps and what goes to another stream, of frames [B, T, H, W, 3]."""

    num_classes: int
    stage_sizes: Sequence[int]
    width: int
    taps: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, frames, train=True, modulation=None):
        b, t = frames.shape[:2]
        x = frames.reshape(-1, *frames.shape[2:]).astype(self.dtype)
        x = nn.Conv(self.width, (7, 7), 2, ((3, 3), (3, 3)), use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        given = []
        for i, units in enumerate(self.stage_sizes):
            width, stride = self.width * 2**i, 1 if i == 0 else 2
            block = Block(units, width, stride, self.taps, t, train, self.dtype, name=f"block{i + 1}")
            x, first = block(x, None if modulation is None else modulation[i])
            given.append(first)
        features = x.astype(jnp.float32).mean((1, 2))
        logits = nn.Dense(self.num_classes, name="logits")(features)
        return logits.reshape(b, t, -1).mean(1), features.reshape(b, t, -1), x.reshape(b, t, *x.shape[1:]), given


class Discriminator(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, features):
        b, t = features.shape[:2]
        x = jnp.concatenate([jnp.broadcast_to(jnp.eye(t), (b, t, t)), features], -1)
        x = nn.leaky_relu(nn.Dense(256, name="fc1")(x), 0.2)
        x = nn.leaky_relu(nn.Dense(128, name="fc2")(x), 0.2)
        return nn.Dense(self.num_classes + 1, name="logits")(x)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def single_stream(net, batch):
    return cross_entropy(net("rgb", batch["rgb"])[0], batch["label"])


def two_stream(net, batch):
    depth, _, _, given = net("depth", batch["depth"])
    rgb = net("rgb", batch["rgb"], given)[0]
    return cross_entropy((depth + rgb) / 2, batch["label"])


def hallucination(net, batch):
    taught, _, real, _ = net("depth", batch["depth"])
    logits, _, maps, _ = net("hallucination", batch["rgb"])
    soft = optax.softmax_cross_entropy(logits, jax.nn.softmax(taught / 10.0)).mean()
    apart = jax.nn.sigmoid(maps.astype(jnp.float32)) - jax.nn.sigmoid(real.astype(jnp.float32))
    feature = FEATURE_SCALE * jnp.square(apart).sum((1, 2, 3, 4)).mean()
    return 0.25 * cross_entropy(logits, batch["label"]) + 0.25 * soft + 0.5 * feature


def admd(net, batch):
    stop, labels = jax.lax.stop_gradient, batch["label"][:, None]
    real, fake = net("depth", batch["depth"])[1], net("hallucination", batch["rgb"])[1]
    labels = jnp.broadcast_to(labels, fake.shape[:2])
    fool = cross_entropy(net("discriminator", fake, held=True), labels)
    on_fake = net("discriminator", stop(fake))
    made_up = jnp.full_like(labels, on_fake.shape[-1] - 1)
    return fool + cross_entropy(net("discriminator", real), labels) + cross_entropy(on_fake, made_up)


LOSSES: dict[str, Callable] = {
    "single_stream": single_stream,
    "two_stream": two_stream,
    "hallucination": hallucination,
    "admd": admd,
}
FROZEN = {"single_stream": (), "two_stream": (), "hallucination": ("depth",), "admd": ("depth",)}


class FlaxArm:
    """Jitted value_and_grad over what is trained, SGD with momentum, donated state."""

    def __init__(self, system: str, case: Case, variables: Variables, batch: Batch):
        stream = ResNet(case.classes, case.stages, case.width, case.taps, jnp.dtype(case.dtype))
        judge, frozen = Discriminator(case.classes), FROZEN[system]
        optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)

        def loss_fn(trained, still, statistics, batch):
            moved = dict(statistics)

            def net(name, x, modulation=None, held=False):
                params = (trained | still)[name]
                if name == "discriminator":
                    return judge.apply({"params": jax.lax.stop_gradient(params) if held else params}, x)
                both = {"params": params, "batch_stats": statistics[name]}
                if name in frozen:
                    return stream.apply(both, x, train=False)
                result, changed = stream.apply(both, x, modulation=modulation, mutable=["batch_stats"])
                moved[name] = changed["batch_stats"]
                return result

            return LOSSES[system](net, batch), moved

        def step(trained, statistics, opt_state, still, batch):
            (loss, moved), gradients = jax.value_and_grad(loss_fn, has_aux=True)(trained, still, statistics, batch)
            updates, opt_state = optimizer.update(gradients, opt_state, trained)
            return optax.apply_updates(trained, updates), moved, opt_state, loss

        params = {name: _reshaped(trees["params"]) for name, trees in variables.items()}
        still = {name: tree for name, tree in params.items() if name in frozen}
        trained = {name: tree for name, tree in params.items() if name not in frozen}
        statistics = {name: jax.tree.map(jnp.array, trees["batch_stats"]) for name, trees in variables.items()}
        self._state = (trained, statistics, optimizer.init(trained))
        seen = {"rgb", "label"} if system == "single_stream" else {"rgb", "depth", "label"}
        self._rest = (still, jax.device_put({name: batch[name] for name in seen}))
        jitted = jax.jit(step, donate_argnums=(0, 1, 2))
        self.compiled = jitted.lower(*self._state, *self._rest).compile()

    def run(self, steps: int) -> float:
        for _ in range(steps):
            *self._state, loss = self.compiled(*self._state, *self._rest)
        jax.block_until_ready(self._state)
        return float(loss)


def _reshaped(params: Any) -> Any:
    """hallujax keeps temporal kernels as [k, Cin, Cout], `nn.Conv` as [k, 1, Cin, Cout]."""
    flat = flatten_dict(params)
    return unflatten_dict(
        {
            path: jnp.array(value[:, None] if path[-2:] == ("temporal", "kernel") else value)
            for path, value in flat.items()
        }
    )
