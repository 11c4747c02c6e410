"""One mesh, and how things lie on it: batches over all devices, the state in copies or in parts."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hallujax.errors import UsageError

DATA, MODEL = "data", "model"  # the mesh's axes
SMALLEST_SHARDED = 2**12  # numbers; 16 KiB in float32 cost less to keep than to fetch


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshOptions:
    """How many devices there are along each axis of the mesh.

    Every example is on one device, whatever the axes. Along `data` the state is copied; along `model` large arrays of
    it are cut, which is called fully sharded data parallelism (FSDP) and changes where numbers lie, not what they are.

    Attributes:
      data: copies of the state; 0 for as many as the devices allow.
      model: devices that share a copy; 1 for plain data parallelism.
    """

    data: int = 0
    model: int = 1

    def __post_init__(self):
        if self.data < 0 or self.model < 1:
            raise UsageError(
                f"mesh.data is {self.data}, mesh.model is {self.model}; data must be 0 or more, model 1 or more"
            )


def make_mesh(options: MeshOptions = MeshOptions(), devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices (default: every device of every process), those that share a state side by side.

    The axis types are Auto: linen's modules fail under jax's own default, Explicit.

    Raises:
      UsageError: if the axes do not make up the number of devices.
    """
    devices = list(devices or jax.devices())
    data, model = mesh_shape(options, len(devices))
    return jax.make_mesh((data, model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2, devices=devices)


def mesh_shape(options: MeshOptions, devices: int) -> tuple[int, int]:
    """The lengths of the axes `data` and `model` over so many devices.

    Raises:
      UsageError: if they do not make up the number of devices.
    """
    data = options.data or devices // options.model
    if data * options.model != devices:
        asked = f"mesh.model={options.model}" + (f" times mesh.data={options.data}" if options.data else "")
        raise UsageError(f"{asked} does not make up the {devices} devices; mesh.data=0 takes all that are left")
    return data, options.model


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh) -> NamedSharding:
    """Of a batch: its leading axis over all devices, those that share a state included."""
    return NamedSharding(mesh, PartitionSpec((DATA, MODEL)))


def state_sharding(mesh: Mesh, state: Any) -> Any:
    """How a training state, or any tree of arrays, lies on the mesh: a tree of shardings of its structure.

    An array is cut along `model` in its largest dimension that divides (of equals the last, the outputs of a kernel),
    and is copied whole if none does or it has fewer than `SMALLEST_SHARDED` numbers: batch norm's, biases, counters.
    """
    parts = mesh.shape[MODEL]

    def sharding(leaf: jax.Array) -> NamedSharding:
        dimensions = [(size, axis) for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or leaf.size < SMALLEST_SHARDED or not dimensions:
            return replicated(mesh)
        _, axis = max(dimensions)
        return NamedSharding(mesh, PartitionSpec(*(MODEL if i == axis else None for i in range(leaf.ndim))))

    return jax.tree.map(sharding, state)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(params: Any, mesh: Mesh) -> Any:
    """Parameters cut along `model`, made whole on every device inside a jitted function, to compute with.

    What is computed stays split by example, whatever the compiler would rather do, and gradients come back summed,
    then cut as the parameters are.
    """
    return params if mesh.shape[MODEL] == 1 else jax.lax.with_sharding_constraint(params, replicated(mesh))


def _gather_forward(params: Any, mesh: Mesh) -> tuple[Any, None]:
    return gather(params, mesh), None


def _gather_backward(mesh: Mesh, _: None, gradients: Any) -> tuple[Any]:
    if mesh.shape[MODEL] == 1:
        return (gradients,)
    summed = jax.lax.with_sharding_constraint(gradients, replicated(mesh))
    return (jax.lax.with_sharding_constraint(summed, state_sharding(mesh, gradients)),)


gather.defvjp(_gather_forward, _gather_backward)


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Raises UsageError if a batch cannot be split evenly over the mesh."""
    if batch_size % mesh.size:
        raise UsageError(f"{key}={batch_size} does not divide by the {mesh.size} devices")


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
