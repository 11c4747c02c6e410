"""The CPU's ways of computing a layer against XLA's own convolution and pooling, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.errors import UsageError
from hallujax.models import (
    DeconvolutionDecoder,
    Discriminator,
    JointsStream,
    UpProjectionDecoder,
    VideoResNet,
    head_of,
    layers,
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_same(ours, reference, *inputs):
    """Equal values and pull-backs to 1e-5, under jit."""
    values, results = [], []
    for f in (ours, reference):
        y, pull_back = jax.vjp(jax.jit(f), *inputs)
        values.append(y)
        results.append(pull_back(draw(*y.shape, seed=9)))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-5)
    for own, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (4, 4), (3, 5)])
def test_convolution_by_patches(height, width, stride):
    x, kernel = draw(3, height, width, 4), draw(3, 3, 4, 6, seed=1)
    assert_same(lambda x, k: layers.conv_by_patches(x, k, stride), lambda x, k: layers.conv(x, k, stride), x, kernel)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(8, 16), (9, 15), (8, 7)])
def test_convolution_by_pairs(height, width, size):
    x, kernel = draw(3, height, width, 3), draw(size, size, 3, 5, seed=1)
    assert_same(layers.conv_by_pairs, lambda x, k: layers.conv(x, k, 2), x, kernel)


@pytest.mark.parametrize(
    ("channels", "features", "stride", "by_pairs"),
    [(3, 16, 2, True), (3, 32, 2, True), (3, 64, 2, False), (3, 16, 1, False), (16, 16, 2, False)],
)
def test_a_small_stem_goes_by_pairs_on_cpus_alone(channels, features, stride, by_pairs):
    """What other compilers see, and what is exported as such, is the convolution itself; parameters are the same."""
    layer, x = layers.Conv(features, kernel_size=7, stride=stride), draw(2, 32, 32, channels)
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (7, 7, channels, features)

    def reads_pairs():
        text = str(jax.make_jaxpr(lambda x: layer.apply(variables, x))(x))
        return f"f32[2,32,19,{2 * channels}]" in text  # 32 columns and 6 of padding, in pairs

    assert reads_pairs() == by_pairs
    with layers.traced_for("cuda"):
        assert not reads_pairs()
    with layers.portable():
        assert not reads_pairs()


@pytest.mark.parametrize("features", [3, 9])
def test_pointwise_is_a_1x1_convolution(features):
    x, kernel = draw(2, 4, 5, 6), draw(6, features, seed=1)
    assert_same(layers.pointwise, lambda x, k: layers.conv(x, k[None, None], 1), x, kernel)


@pytest.mark.parametrize("layout", ["torchvision", "slim"])
@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (2, 7, 9, 3), (1, 2, 2, 1)])
def test_max_pool(layout, shape):
    """Values rounded to halves, so that windows hold equal maxima: the first takes the gradient."""
    x = jnp.round(2 * draw(*shape)) / 2
    pads = ((1, 1), (1, 1)) if layout == "torchvision" else "SAME"
    assert_same(
        lambda x: layers.max_pool(x, layout),
        lambda x: nn.max_pool(x, (3, 3), strides=(2, 2), padding=pads),
        x,
    )


@pytest.mark.parametrize("groups", [1, 3])
def test_batch_norm_by_groups(groups):
    """Each group by its own mean and variance; running statistics move towards the means over groups. In NumPy."""
    x = np.random.default_rng(0).normal(2.0, 3.0, (6, 2, 5, 4)).astype(np.float32)
    layer = layers.BatchNorm(train=True, momentum=0.9, groups=groups)
    parameters = {"scale": jnp.array([1.0, 2.0, 0.5, 1.0]), "bias": jnp.array([0.0, 1.0, 0.0, -1.0])}
    variables = {"params": parameters, "batch_stats": {"mean": jnp.full(4, 0.5), "var": jnp.full(4, 2.0)}}
    y, moved = jax.jit(lambda x: layer.apply(variables, x, mutable=["batch_stats"]))(x)

    parts = x.astype(np.float64).reshape(groups, -1, 4)
    mean, var, count = parts.mean(1), parts.var(1), parts.shape[1]
    expected = (parts - mean[:, None]) / np.sqrt(var[:, None] + 1e-5) * parameters["scale"] + parameters["bias"]
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-4, atol=1e-5)
    running = moved["batch_stats"]
    np.testing.assert_allclose(running["mean"], 0.9 * 0.5 + 0.1 * mean.mean(0), rtol=1e-5)
    np.testing.assert_allclose(running["mean"], 0.9 * 0.5 + 0.1 * parts.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(running["var"], 0.9 * 2.0 + 0.1 * (var * count / (count - 1)).mean(0), rtol=1e-5)
    in_evaluation = layers.BatchNorm(train=False, groups=4).apply(variables, x)  # 6 rows do not divide by it
    expected = (x - 0.5) / np.sqrt(2.0 + 1e-5) * parameters["scale"] + parameters["bias"]
    np.testing.assert_allclose(in_evaluation, expected, rtol=1e-4, atol=1e-5)


def test_groups_are_of_clips_whatever_the_network():
    """In groups of two clips, what a clip becomes depends on the other of its group, and on no clip elsewhere."""
    small = {"num_classes": 3, "bottleneck": 4, "ghost_batch": 2}
    for network, x in (
        (VideoResNet(**small, stage_sizes=(1,), width=4), draw(4, 3, 8, 8, 3)),
        (JointsStream(**small, width=4), draw(4, 3, 1, 5, 3)),
        (Discriminator(3, batch_norm=True, ghost_batch=2), draw(4, 3, 6)),
        (Discriminator(3, batch_norm=True, ghost_batch=2, classify_set=True), draw(4, 3, 6)),
        (DeconvolutionDecoder(2, ghost_batch=2), draw(4, 3, 2, 2, 8)),
        (UpProjectionDecoder(1, ghost_batch=2), draw(4, 3, 2, 2, 8)),
        (head_of(VideoResNet(**small), "maps"), draw(4, 3, 2, 2, 8)),
    ):
        variables = jax.jit(network.init)(jax.random.key(0), x)

        @jax.jit
        def output(x, network=network, variables=variables):
            found = network.apply(variables, x, train=True, mutable=["batch_stats"])[0]
            return getattr(found, "logits", found)

        change = np.abs(output(x) - output(x.at[1].add(draw(*x.shape[1:], seed=1))))
        name = type(network).__name__
        assert change[0].max() > 1e-3, f"{name}: clip 0 does not see clip 1"
        np.testing.assert_allclose(change[2:], 0.0, atol=1e-6, err_msg=name)
        with pytest.raises(UsageError, match="3 clips does not divide into groups of ghost_batch=2"):
            output(x[:3])
