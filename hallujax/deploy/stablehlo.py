"""StableHLO files: a program and its weights, which jax runs without hallujax."""

import importlib.util
import pathlib
from collections.abc import Callable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from hallujax.deploy.system import FUSED, RgbSystem, TrainedSystem
from hallujax.errors import CheckpointError, UsageError

PLATFORMS = ("cpu", "cuda", "tpu")  # of one file


def write_stablehlo(trained: TrainedSystem, path: pathlib.Path) -> None:
    """A program from uint8 `[b, T, H, W, 3]` to probabilities `[b, K]`, for any b, with the weights inside.

    Raises:
      UsageError: if jax lacks what such files need.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise UsageError("jax writes StableHLO files with flatbuffers: pip install 'hallujax[export]'")
    system = trained.system

    def probabilities(rgb: jax.Array) -> jax.Array:
        return jax.nn.softmax(system.logits(trained.variables, rgb)[FUSED])

    (clips,) = jax.export.symbolic_shape("b")
    clip = jax.ShapeDtypeStruct((clips, *system.clip_shape), jnp.uint8)
    path.write_bytes(jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(clip).serialize())


def read_stablehlo(path: pathlib.Path, system: RgbSystem) -> Callable[[np.ndarray], dict[str, jax.Array]]:
    """The file's log-probabilities `{"fused": [B, K]}` of clips uint8 `[B, T, H, W, 3]`.

    Raises:
      CheckpointError: if this jax cannot read it, or it takes other clips or knows other classes than `system`.
    """
    try:
        program = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # jax raises many kinds, of which a later jax's file is the likeliest
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: jax {jax.__version__} cannot read it ({reason})") from error
    (takes,), (gives,) = program.in_avals, program.out_avals
    system.check_program(takes, gives, str(path))
    smallest = jnp.finfo(jnp.float32).tiny
    return jax.jit(lambda clips: {FUSED: jnp.log(jnp.maximum(program.call(clips), smallest))})
