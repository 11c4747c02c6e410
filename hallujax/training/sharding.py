"""One mesh, two ways to lie on it: replicated state, batches split over `data`."""

from collections.abc import Sequence

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


def to_devices(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, jax.Array]:
    """This process's part of a global batch, on its devices."""
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}
