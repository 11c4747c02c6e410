"""One stage's training step on one device of many, without the devices: traced as it is trained, and analysed."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from hallujax.data.transforms import encode
from hallujax.experiment import Experiment, Stage
from hallujax.methods import Method
from hallujax.models.layers import traced_for
from hallujax.models.streams import initialize
from hallujax.plan.program import Program, analyse
from hallujax.training.sharding import DATA, MODEL, state_sharding
from hallujax.training.start import bind_step, build_method
from hallujax.training.state import TrainState
from hallujax.training.step import initial_state

Shapes = Mapping[str, jax.ShapeDtypeStruct]
STEPS = 1000  # of the schedules, whose length changes neither memory nor time


@dataclasses.dataclass(frozen=True)
class Clip:
    """What a batch has for every clip.

    Attributes:
      shapes: `{modality: shape and type}` as the pipeline yields it, without the axis of clips.
      classes: K.
      mirror: see `data.joints.mirrored_joints`.
    """

    shapes: Shapes
    classes: int
    mirror: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class DeviceStep:
    """A step as one device sees it: its share of the batch, the whole of the networks.

    Attributes:
      method: what is trained.
      state: shapes of the whole training state.
      batch: shapes of this device's part of the batch.
      program: its kernels and the memory of its temporaries.
    """

    method: Method
    state: TrainState
    batch: Shapes
    program: Program


def device_step(experiment: Experiment, stage: Stage, clip: Clip, clips: int, backend: str) -> DeviceStep:
    """Traces the stage's step for `clips` on one device.

    Args:
      clips: this device's; where they do not divide by `stage.accumulate`, as many more.
      backend: whose compiler will see it, "tpu", "cuda" or "cpu".

    Raises:
      UsageError: as `build_method`, and for frames that the transforms do not fit.
    """
    clips = math.ceil(clips / stage.accumulate) * stage.accumulate
    ghost = math.gcd(stage.ghost_batch, clips // stage.accumulate) if stage.ghost_batch else 0
    part = dataclasses.replace(stage, batch_size=clips, ghost_batch=ghost)
    if backend == "cpu":  # where XLA computes micro-batches side by side, and again too early: docs/plan.md
        part = dataclasses.replace(part, remat=False, accumulate=1)
    traced = _traced(experiment, part, clip, backend)
    if not part.remat:
        return traced
    # More is computed; whether less is held is the compiler's schedule, and the two that were asked hold no less.
    keeping = _traced(experiment, dataclasses.replace(part, remat=False), clip, backend)
    return dataclasses.replace(traced, program=dataclasses.replace(traced.program, peak=keeping.program.peak))


def _traced(experiment: Experiment, stage: Stage, clip: Clip, backend: str) -> DeviceStep:
    """The step of a stage whose whole batch is on one device."""
    method = build_method(stage, clip.classes)
    step, optimizers = bind_step(experiment, stage, method, STEPS, mirror=clip.mirror)
    batch = {
        name: jax.ShapeDtypeStruct((stage.batch_size, *shape.shape), shape.dtype)
        for name, shape in clip.shapes.items()
        if name in method.modalities.values()
    }
    batch |= {
        name: jax.ShapeDtypeStruct((stage.batch_size,), dtype)
        for name, dtype in (("label", jnp.int32), ("mask", jnp.float32), ("sample", jnp.uint32))
    }

    def start(key):
        encoded = jax.eval_shape(functools.partial(encode, options=experiment.transforms), batch)
        return initial_state(*initialize(method.networks, method.forward, encoded, key), method.players, optimizers)

    with traced_for(backend):
        key = jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(start, key)
        jaxpr = jax.make_jaxpr(step)(state, batch, jax.ShapeDtypeStruct((), jnp.float32), key)
    return DeviceStep(method, state, batch, analyse(jaxpr))


def bytes_of(tree: Any) -> int:
    """Of all arrays of a tree, or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def bytes_on_a_device(tree: Any, model: int) -> int:
    """Of a training state's arrays, or of their shapes, cut over so many devices as `sharding.state_sharding` does."""
    mesh = AbstractMesh((1, model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)
    placed = zip(jax.tree.leaves(tree), jax.tree.leaves(state_sharding(mesh, tree)), strict=True)
    return sum(math.prod(where.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, where in placed)
