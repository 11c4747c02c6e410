"""The CPU's ways of computing a layer against XLA's own convolution and pooling, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.models import layers


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
