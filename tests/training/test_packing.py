"""What packing a state for a checkpoint must not change: a single number of it, or where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.training import packing
from hallujax.trees import by_name


@pytest.fixture
def tree():
    values = jax.random.normal(jax.random.key(0), (3, 4, 5))
    return {
        "step": jnp.int32(7),
        "params": {"rgb": {"kernel": values, "bias": values[0, 0]}, "with/slash": jnp.zeros((0, 2))},
        "opt_state": (values.astype(jnp.bfloat16), jnp.uint32(2**32 - 1)),
    }


def test_every_array_comes_back_under_its_name(tree):
    packed, entries = packing.pack(tree)
    arrays = packing.unpack(packed, entries)
    assert [entry.name for entry in entries] == list(arrays) == list(by_name(tree))
    for name, leaf in by_name(tree).items():
        assert (arrays[name].shape, arrays[name].dtype) == (leaf.shape, leaf.dtype)
        np.testing.assert_array_equal(arrays[name], leaf)


def test_there_are_as_many_arrays_as_dtypes(tree):
    packed, entries = packing.pack(tree)
    lengths = {dtype: vector.size for dtype, vector in packed["together"].items()}
    assert lengths == {"int32": 1, "float32": 65, "bfloat16": 60, "uint32": 1} and packed.keys() == {"together"}
    template = packing.template(entries, lambda name: pytest.fail(f"{name} is not apart"))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), template) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), packed
    )


def test_a_donated_tree_leaves_the_vectors_whole(tree):
    expected = jax.tree.map(np.array, tree)  # copies: what is looked at is not given away
    packed, entries = packing.pack(tree)
    jax.block_until_ready(jax.jit(lambda t: jax.tree.map(lambda leaf: leaf + 1, t), donate_argnums=0)(tree))
    assert tree["params"]["rgb"]["kernel"].is_deleted()
    arrays = packing.unpack(packed, entries)
    for name, leaf in by_name(expected).items():
        np.testing.assert_array_equal(arrays[name], leaf)
