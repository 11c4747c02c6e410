"""What is done to a system's numbers before they leave: batch norm folded, and rounding to half the bits."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from hallujax.deploy.system import TrainedSystem
from hallujax.models.layers import BatchNorm
from hallujax.models.streams import Variables

HALVES: Mapping[str, np.dtype] = {"bf16": np.dtype(jax.numpy.bfloat16), "fp16": np.dtype(np.float16)}


def folded(trained: TrainedSystem) -> TrainedSystem:
    """The same system with `fold_batch_norm` done to each of its networks."""
    variables = {}
    for stage, networks in trained.variables.items():
        pairs = {
            name: fold_batch_norm(params, networks["batch_stats"][name]) for name, params in networks["params"].items()
        }
        variables[stage] = {
            "params": {name: params for name, (params, _) in pairs.items()},
            "batch_stats": {name: statistics for name, (_, statistics) in pairs.items()},
        }
    return dataclasses.replace(trained, variables=variables)


def fold_batch_norm(params: Variables, batch_stats: Variables) -> tuple[Variables, Variables]:
    """One network with the gain of each batch norm in the kernel of the convolution before it.

    With `g = scale / sqrt(var + epsilon)`, `norm(x * w) = x * (g w) + (bias - g mean)`: what is left of the norm is
    an addition. A norm is called as its convolution is (`conv1`, `bn1`); one that follows no convolution stays.
    """
    params, batch_stats = dict(params), dict(batch_stats)
    for name, statistics in batch_stats.items():
        convolution = name.replace("bn", "conv")
        if "mean" not in statistics:
            params[name], batch_stats[name] = fold_batch_norm(params[name], statistics)
        elif convolution != name and convolution in params:
            gain = params[name]["scale"] / np.sqrt(statistics["var"] + BatchNorm.epsilon)
            params[convolution] = jax.tree.map(lambda leaf, gain=gain: leaf * gain, params[convolution])
            shift = params[name]["bias"] - statistics["mean"] * gain
            params[name] = {"scale": np.ones_like(gain), "bias": shift}
            batch_stats[name] = {"mean": np.zeros_like(gain), "var": np.ones_like(gain) - BatchNorm.epsilon}
    return params, batch_stats


def halved(trained: TrainedSystem, dtype: np.dtype) -> TrainedSystem:
    """The same system with its kernels kept, and its convolutions computed, in a type of two bytes.

    Biases, shifts and the classifier's arithmetic stay float32, as in training with that type.
    """
    members = tuple(
        dataclasses.replace(member, model={**member.model, "dtype": dtype.name}) for member in trained.system.members
    )
    variables = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, trained.variables)
    return dataclasses.replace(
        trained, system=dataclasses.replace(trained.system, members=members), variables=variables
    )
