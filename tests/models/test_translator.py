"""The decoders: an up-convolution against its definition, and what comes out of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.models import DeconvolutionDecoder, UpProjectionDecoder
from hallujax.models.layers import conv
from hallujax.models.translator import UpConv

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 4), (3, 5)])
def test_an_up_convolution_is_a_convolution_of_the_map_with_zeros_between(height, width):
    x = RNG.normal(size=(2, height, width, 3)).astype(np.float32)
    layer = UpConv(4)
    params = layer.init(jax.random.key(0), x)

    def spread(params, x):
        zeros = jnp.zeros((2, 2 * height, 2 * width, 3)).at[:, ::2, ::2].set(x)
        return conv(zeros, params["params"]["kernel"], 1)

    g = RNG.normal(size=(2, 2 * height, 2 * width, 4)).astype(np.float32)
    results = []
    for f in (layer.apply, spread):
        y, pull_back = jax.vjp(jax.jit(f), params, x)
        results.append((y, *jax.tree.leaves(pull_back(jnp.asarray(g)))))
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("decoder", "kernels"), [(UpProjectionDecoder, 11), (DeconvolutionDecoder, 3)])
def test_a_decoder_doubles_as_often_as_it_is_told_and_sees_each_frame_for_itself(decoder, kernels):
    maps = RNG.normal(size=(2, 3, 2, 2, 16)).astype(np.float32)
    net = decoder(doublings=3)
    variables = net.init(jax.random.key(0), maps)
    frames = jax.jit(net.apply)(variables, maps)
    assert frames.shape == (2, 3, 16, 16, 3)
    changed = maps.copy()
    changed[0, 1] += 1
    moved = np.asarray(jax.jit(net.apply)(variables, changed) != frames).any((2, 3, 4))
    np.testing.assert_array_equal(moved, np.arange(6).reshape(2, 3) == 1)
    sizes = [leaf.shape for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
    # Up-projections: one 1x1, three of an up-convolution, a 3x3 and a shortcut each, one 3x3 at the end.
    assert len(sizes) == kernels
