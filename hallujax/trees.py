"""Names of the leaves of trees."""

from typing import Any

import jax


def by_name(tree: Any) -> dict[str, Any]:
    """`{keys, joined by slashes: leaf}`, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }
