"""Warm starts: whole named networks, parameters and statistics, copied strictly both ways."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hallujax.errors import CheckpointError
from hallujax.trees import by_name

Tree = dict[str, Any]
NOT_IN_IMAGENET = (
    "temporal",
    "bottleneck",
    "logits",
)  # what no ImageNet checkpoint has, or has for other classes


def warm_start(network: str, fresh: Tree, source: Tree, origin: str) -> tuple[Tree, str]:
    """One network started from another's variables of the same architecture.

    Args:
      network: its name, for messages.
      fresh: `{"params", "batch_stats"}` as initialised.
      source: the same of the network copied from.
      origin: where that is, for messages.

    Returns:
      The copied variables (new arrays: the source may be donated later) and a line saying what was copied.

    Raises:
      CheckpointError: naming the first leaf that only one of the two has, or whose shapes differ.
    """
    expected, found = by_name(fresh), by_name(source)
    for name in sorted(expected.keys() ^ found.keys()):
        where = f"only in {origin}" if name in found else f"missing from {origin}"
        raise CheckpointError(f"{network} cannot start from {origin}: {name} is {where}")
    for name, leaf in expected.items():
        if leaf.shape != found[name].shape:
            raise CheckpointError(
                f"{network} cannot start from {origin}: {name} is {found[name].shape} there, {leaf.shape} here"
                + ("; teacher and student must know the same classes" if "logits" in name else "")
            )
    copied = jax.tree.map(lambda here, there: np.array(there, here.dtype), fresh, source)
    return copied, f"{network} <- {origin}: {len(expected)} arrays, {_count(expected):,} numbers"


def warm_start_from_imagenet(network: str, fresh: Tree, pretrained: Tree, path: str) -> tuple[Tree, str]:
    """The backbone from ImageNet; temporal layers, bottleneck and classifier stay fresh and are named.

    Raises:
      CheckpointError: for any other leaf that the two do not share, or shapes that differ.
    """
    expected, found = by_name(fresh), by_name(pretrained)
    kept = {name for name in expected if any(part in name for part in NOT_IN_IMAGENET)}
    usable = {name: leaf for name, leaf in found.items() if not any(part in name for part in NOT_IN_IMAGENET)}
    for name in sorted((expected.keys() - kept) ^ usable.keys()):
        where = "only in the file" if name in usable else "missing from the file"
        raise CheckpointError(f"{network} cannot start from {path}: {name} is {where}")
    for name, leaf in usable.items():
        if expected[name].shape != leaf.shape:
            raise CheckpointError(
                f"{network} cannot start from {path}: {name} is {leaf.shape} there, {expected[name].shape} here"
            )
    leaves = [np.array(usable[name], leaf.dtype) if name in usable else leaf for name, leaf in expected.items()]
    copied = jax.tree.unflatten(jax.tree.structure(fresh), leaves)
    return copied, (
        f"{network} <- {path}: {len(usable)} arrays, {_count(usable):,} numbers; fresh: {', '.join(sorted(kept))}"
    )


def _count(leaves: Mapping[str, Any]) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in leaves.values())
