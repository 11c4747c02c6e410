"""ONNX files: a program and its weights for ONNX Runtime and its like, which need neither jax nor hallujax."""

import importlib.metadata
import json
import logging
import pathlib
import types
from collections.abc import Callable

import jax
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from hallujax.deploy.onnx_graph import INPUT, OPSET, to_onnx
from hallujax.deploy.onnx_primitives import PRIMITIVES
from hallujax.deploy.system import FUSED, RgbSystem, TrainedSystem
from hallujax.errors import CheckpointError
from hallujax.models.layers import portable
from hallujax.trees import by_name

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # those that are there, in this order
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def write_onnx(trained: TrainedSystem, path: pathlib.Path, precision: str = "fp32") -> None:
    """A model from `frames` uint8 `[clips, T, H, W, 3]` to `probabilities` float32 `[clips, K]`, for any `clips`.

    Its metadata name the classes and what a clip is.

    Args:
      precision: `fp32`; `fp16` for weights and arithmetic; `int8` for weights, and for activations by ranges that are
        taken from each batch as it comes (dynamic quantization).
    """
    model = build_onnx(trained)
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    elif precision == "int8":
        model = _quantized(model, path)
    system = trained.system
    facts = {
        "system": system.name,
        "classes": json.dumps(system.classes),
        "frames": str(system.frames),
        "height": str(system.frame_size[0]),
        "width": str(system.frame_size[1]),
        "precision": precision,
        "opset": str(OPSET),
        "hallujax": importlib.metadata.version("hallujax"),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)


def _quantized(model: onnx.ModelProto, path: pathlib.Path) -> onnx.ModelProto:
    """Written to `path` on the way."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises everybody to infer shapes and fold constants first, which is done
    try:
        # ONNX Runtime has convolutions of unsigned weights alone.
        quantize_dynamic(onnx.shape_inference.infer_shapes(model), path, weight_type=QuantType.QUInt8)
    finally:
        root.setLevel(level)
    return onnx.load(path)


def build_onnx(trained: TrainedSystem) -> onnx.ModelProto:
    """The model of `write_onnx` in float32, without metadata; weights are named as in safetensors exports."""
    system, weights = trained.system, by_name(trained.variables)
    structure, names = jax.tree.structure(trained.variables), list(weights)

    def probabilities(arrays: dict[str, jax.Array], frames: jax.Array) -> jax.Array:
        variables = jax.tree.unflatten(structure, [arrays[name] for name in names])
        with portable():
            return jax.nn.softmax(system.logits(variables, frames)[FUSED])

    return to_onnx(probabilities, weights, system.clip_shape, PRIMITIVES)


def read_onnx(path: pathlib.Path, system: RgbSystem) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file's log-probabilities `{"fused": [B, K]}` of clips uint8 `[B, T, H, W, 3]`, under ONNX Runtime.

    Raises:
      CheckpointError: if ONNX Runtime cannot read it, or it takes other clips or knows other classes than `system`.
    """
    providers = [provider for provider in PROVIDERS if provider in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(path, providers=providers)
    except Exception as error:  # ONNX Runtime's are of no public kind
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: ONNX Runtime {onnxruntime.__version__} cannot read it ({reason})") from error
    takes, gives = (
        types.SimpleNamespace(dtype=DTYPES.get(end.type, end.type), shape=end.shape)
        for (end,) in (session.get_inputs(), session.get_outputs())
    )
    system.check_program(takes, gives, str(path))
    smallest = np.finfo(np.float32).tiny

    def logits(clips: np.ndarray) -> dict[str, np.ndarray]:
        (probabilities,) = session.run(None, {INPUT: clips})
        return {FUSED: np.log(np.maximum(probabilities, smallest))}

    return logits
