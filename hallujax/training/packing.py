"""Many arrays as few: what writing a checkpoint costs goes by the array, not by the byte."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.trees import by_name


class Entry(NamedTuple):
    """Where an array of a tree is: in the vector of its dtype, behind those named before it, or apart by itself.

    Attributes:
      name: its keys in the tree, joined by slashes.
      shape, dtype: its own.
      apart: it is cut over devices, where each writes its part.
    """

    name: str
    shape: list[int]
    dtype: str
    apart: bool


def pack(tree: Any) -> tuple[dict[str, dict[str, Any]], list[Entry]]:
    """The arrays of a tree: copies of one dtype one after the other, those that are cut over devices as they are.

    Returns:
      `{"together": {dtype: vector}, "apart": {name: array}}`, without what would be empty, and what is where. Vectors
      are NumPy's, and new: the tree may be donated at once.
    """
    entries: list[Entry] = []
    together: dict[str, list[jax.Array]] = {}
    apart: dict[str, jax.Array] = {}
    for name, leaf in by_name(tree).items():
        entries.append(Entry(name, list(leaf.shape), str(leaf.dtype), not leaf.is_fully_replicated))
        if leaf.is_fully_replicated:
            # Not the array itself, which would remember its NumPy form, and could not be donated then.
            together.setdefault(str(leaf.dtype), []).append(leaf.addressable_data(0))
        else:
            apart[name] = leaf
    # Joined on the host, where they must go in any case: no program to compile, and no second state on the device.
    vectors = {dtype: np.concatenate(list(map(np.ravel, leaves))) for dtype, leaves in jax.device_get(together).items()}
    return {"together": vectors} | ({"apart": apart} if apart else {}), entries


def template(entries: list[Entry], sharding: Callable[[str], jax.sharding.Sharding]) -> dict[str, dict[str, Any]]:
    """What `pack` returned, in shapes: of what is together as NumPy arrays, of the rest as it shall be laid out."""
    lengths, apart = {}, {}
    for name, shape, dtype, alone in entries:
        if alone:
            apart[name] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding(name))
        else:
            lengths[dtype] = lengths.get(dtype, 0) + math.prod(shape)
    together = {dtype: np.empty(length, jnp.dtype(dtype)) for dtype, length in lengths.items()}
    return {"together": together} | ({"apart": apart} if apart else {})


def unpack(packed: dict[str, dict[str, Any]], entries: list[Entry]) -> dict[str, Any]:
    """`{name: array}` of what `pack` returned; views of the vectors."""
    place, arrays = dict.fromkeys(packed["together"], 0), {}
    for name, shape, dtype, apart in entries:
        if apart:
            arrays[name] = packed["apart"][name]
            continue
        end = place[dtype] + math.prod(shape)
        arrays[name] = packed["together"][dtype][place[dtype] : end].reshape(shape)
        place[dtype] = end
    return arrays
