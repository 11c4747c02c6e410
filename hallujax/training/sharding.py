"""One mesh, two ways to lie on it: replicated state, batches split over `data`."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hallujax.errors import UsageError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axis `data` over all devices (default: every device of every process).

    The axis type is Auto: linen's modules fail under jax's own default, Explicit.
    """
    devices = list(devices or jax.devices())
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Raises UsageError if a batch cannot be split evenly over the mesh."""
    if batch_size % mesh.shape["data"]:
        raise UsageError(f"{key}={batch_size} does not divide by the {mesh.shape['data']} devices")


def own_part(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """Which examples of a global batch this process reads, by their place in it, ascending.

    Those that lie on its devices: so the batch is the same, example by example, whatever the number of processes.
    """
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


def lay_out(tree: Any, sharding: Any) -> Any:
    """Arrays that every process has, or that lie on the mesh already, laid out; `sharding` is one or a tree of them."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def lay(leaf: Any, how: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, how)
        value = np.asarray(leaf)  # device_put would send every value around, to compare them
        return jax.make_array_from_callback(value.shape, how, lambda index: value[index])

    if isinstance(sharding, NamedSharding):
        return jax.tree.map(lambda leaf: lay(leaf, sharding), tree)
    return jax.tree.map(lay, tree, sharding)


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's part of a global batch, on its devices."""
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
