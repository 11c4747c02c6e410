"""Named networks: separate pure modules, each with variables, a train flag and a name of its own."""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hallujax.models.resnet import VideoResNet

Variables = dict[str, Any]


def build_stream(arguments: Mapping[str, Any], num_classes: int) -> VideoResNet:
    """A `VideoResNet` from plain names and numbers, as configurations and exports hold them: no bottleneck is 0.

    Raises:
      TypeError: for an argument or a dtype that there is not.
      KeyError: if one of those that must be said is missing.
    """
    said = dict(arguments)
    said["stage_sizes"] = tuple(said["stage_sizes"])
    said["bottleneck"] = said["bottleneck"] or None
    said["dtype"] = jnp.dtype(said["dtype"])
    return VideoResNet(num_classes=num_classes, **said)


def build_streams(
    model: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], num_classes: int
) -> tuple[VideoResNet, dict[str, VideoResNet]]:
    """The `VideoResNet` of `model`, and those of the networks that differ from it: `{network: what differs}`.

    Raises:
      TypeError, KeyError: as `build_stream`.
    """
    others = {network: build_stream({**model, **changes}, num_classes) for network, changes in models.items()}
    return build_stream(model, num_classes), others


class Networks:
    """The networks of one forward pass, called by name.

    They are not children of one parent module: a network outside `training` runs its batch norm on stored
    statistics and these are not even mutable, so nothing a method does can move a frozen network.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        params: Variables,
        batch_stats: Variables,
        training: frozenset[str] = frozenset(),
    ):
        self._modules = modules
        self._params = params
        self.batch_stats = dict(batch_stats)  # after the calls: the trained networks' statistics, moved
        self._training = training

    def __call__(self, name: str, *inputs: Any, **arguments: Any) -> Any:
        """Applies the network `name`; in training mode if it is one of `training`."""
        variables = {"params": self._params[name], "batch_stats": self.batch_stats[name]}
        module = self._modules[name]
        if name not in self._training:
            return module.apply(variables, *inputs, train=False, **arguments)
        output, moved = module.apply(variables, *inputs, train=True, mutable=["batch_stats"], **arguments)
        self.batch_stats[name] = moved.get("batch_stats", {})
        return output


class _Shapes:
    """Stands in for `Networks` under `jax.eval_shape` and notes what each network is first called with."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        self._modules = modules
        self.calls: dict[str, tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]] = {}

    def __call__(self, name: str, *inputs: Any, **arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten((inputs, arguments))
        call = structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        self.calls.setdefault(name, call)
        output, _ = _first_call(self._modules[name], *call, jax.random.key(0))
        return output


def initialize(
    modules: Mapping[str, nn.Module],
    forward: Callable[[Any, Any], Any],
    batch: Any,
    key: jax.Array,
) -> tuple[Variables, Variables]:
    """Fresh variables for every network of a method.

    Each network draws from `fold_in(key, its name)`, so adding a network to a method changes no other one.

    Args:
      modules: `{network: module}`.
      forward: the method's wiring, `forward(nets, batch)`; traced for shapes only.
      batch: a batch or its `jax.ShapeDtypeStruct`s, with every modality.
      key: PRNG key.

    Returns:
      `(params, batch_stats)`, both `{network: tree}`; statistics are `{}` for a network without batch norm.

    Raises:
      ValueError: if `forward` leaves one of the networks uncalled.
    """
    shapes = _Shapes(modules)
    jax.eval_shape(lambda batch: forward(shapes, batch), batch)
    if uncalled := set(modules) - set(shapes.calls):
        raise ValueError(f"the method's forward pass never calls its networks {sorted(uncalled)}")
    keys = jax.jit(lambda key: {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in modules})(key)
    params, batch_stats = {}, {}
    for name, module in modules.items():
        variables = _initialize_one(module, *shapes.calls[name], keys[name])
        params[name] = variables["params"]
        batch_stats[name] = variables.get("batch_stats", {})
    return params, batch_stats


# Static arguments, so that networks of one architecture share one compilation, across methods too. The forward pass is
# dead code in it: only the initialisers are compiled.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _initialize_one(module: nn.Module, structure: Any, leaves: tuple, key: jax.Array) -> Variables:
    return _first_call(module, structure, leaves, key)[1]


# Jitted for its trace, which the shapes and the variables share.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _first_call(module: nn.Module, structure: Any, leaves: tuple, key: jax.Array) -> tuple[Any, Variables]:
    zeros = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    inputs, arguments = jax.tree.unflatten(structure, zeros)
    return module.init_with_output(key, *inputs, train=False, **arguments)
