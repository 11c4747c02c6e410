"""SavedModels: a program and its weights for TensorFlow Serving and its like. TensorFlow writes them, and only here."""

import pathlib

import jax
import tensorflow
from jax.experimental import jax2tf

from hallujax.deploy.stablehlo import PLATFORMS
from hallujax.deploy.system import FUSED, TrainedSystem

SIGNATURE = "serving_default"


def write_saved_model(trained: TrainedSystem, path: pathlib.Path) -> None:
    """A folder whose signature takes `frames` uint8 `[B, T, H, W, 3]` and gives `probabilities` `[B, K]`, for any B."""
    system = trained.system

    def probabilities(frames: jax.Array) -> dict[str, jax.Array]:
        return {"probabilities": jax.nn.softmax(system.logits(trained.variables, frames)[FUSED])}

    shapes = [f"(b, {', '.join(map(str, system.clip_shape))})"]
    converted = jax2tf.convert(probabilities, polymorphic_shapes=shapes, native_serialization_platforms=PLATFORMS)
    module = tensorflow.Module()
    module.call = tensorflow.function(
        converted,
        autograph=False,
        input_signature=[tensorflow.TensorSpec([None, *system.clip_shape], tensorflow.uint8, name="frames")],
    )
    tensorflow.saved_model.save(module, str(path), signatures={SIGNATURE: module.call.get_concrete_function()})
