"""ONNX files say under ONNX Runtime what jax says, whatever the system, the batch and the pictures."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from hallujax.data.transforms import TransformOptions
from hallujax.deploy.onnx_graph import OPSET, to_onnx
from hallujax.deploy.onnx_model import build_onnx, write_onnx
from hallujax.deploy.onnx_primitives import PRIMITIVES
from hallujax.deploy.system import FUSED, Member, RgbSystem, TrainedSystem
from hallujax.deploy.weights import folded
from hallujax.errors import UsageError

MODEL = {
    "stage_sizes": (2, 1),
    "width": 4,
    "bottleneck": 8,
    "bottleneck_pooling": "average",
    "bottleneck_norm": True,
    "temporal_kernel": 5,
    "temporal_init": "identity",
    "layout": "torchvision",
    "batch_norm_momentum": 0.9,
    "dtype": "float32",
}
TWO = {"hallucination": "rgb", "rgb": "rgb"}
SYSTEMS = {
    "a single stream": [("single_stream", {}, {})],
    "no bottleneck, nothing shrunk": [("single_stream", {}, {"bottleneck": 0})],
    "slim": [("single_stream", {}, {"layout": "slim", "bottleneck_pooling": "convolution", "bottleneck_norm": False})],
    "two streams": [("two_stream", {"modalities": TWO}, {})],
    "two connected streams": [("two_stream", {"modalities": TWO, "connect": True}, {"stage_sizes": (2, 2)})],
    "a student of hallucination": [("hallucination", {"layer": "block2"}, {})],
    "ADMD and a stream beside it": [("admd", {}, {}), ("single_stream", {}, {})],
    "ADMD by its discriminator": [("admd", {"predict_from": "discriminator"}, {})],
    "ADMD by the teacher's classifier": [("admd", {"predict_from": "teacher"}, {})],
}


def random_system(members, size=(32, 48), downsample=1):
    """A system with weights that no initialiser draws: every mean, variance and gain is its own."""
    transforms = TransformOptions(
        flip=0.5,
        shift=2,
        downsample=downsample,
        rgb_normalization="imagenet",
        depth_encoding="grey",
        depth_near=500.0,
        depth_far=4000.0,
    )
    system = RgbSystem(
        name="random",
        classes=("jump", "kick", "walk"),
        frames=3,
        frame_size=size,
        transforms=transforms,
        members=tuple(
            Member(stage=f"stage{i}", method=method, options=options, model=MODEL | changed)
            for i, (method, options, changed) in enumerate(members)
        ),
    )
    rng = np.random.default_rng(0)

    def draw(leaf):
        gain = 2 / np.sqrt(np.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.3
        return (gain * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    variables = jax.tree.map(draw, system.shapes)
    for stage in variables.values():
        stage["batch_stats"] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, stage["batch_stats"])
    # Logits as those of a trained network, or a softmax would hide what goes wrong before it.
    spread = np.std(jax.jit(system.logits)(variables, some_clips(system, 6))[FUSED], axis=0).max()
    for path, leaf in jax.tree.leaves_with_path(variables):
        if path[-2].key == "logits":
            leaf /= spread
    return TrainedSystem(system, variables, {}, pathlib.Path(), "")


def some_clips(system, count):
    """Black, white, then noise that gets darker."""
    clips = np.random.default_rng(count).integers(0, 256, (count, *system.clip_shape), np.uint8)
    clips //= np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None, None]
    clips[:1], clips[1:2] = 0, 255
    return clips


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_onnx_runtime_says_what_jax_says(name):
    trained = random_system(SYSTEMS[name], downsample=1 if "nothing shrunk" in name else 2)
    system = trained.system
    session = session_of(build_onnx(folded(trained)))
    probabilities = jax.jit(lambda clips: jax.nn.softmax(system.logits(trained.variables, clips)[FUSED]))
    for batch in (1, 3, 8):
        clips = some_clips(system, batch)
        (found,) = session.run(None, {"frames": clips})
        assert found.dtype == np.float32 and found.shape == (batch, 3)
        expected = np.asarray(probabilities(clips))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        if batch == 8:  # an error is small beside what tells clips apart
            np.testing.assert_allclose(found, expected, atol=2e-3 * expected.std(axis=0).max())


def test_the_graph_holds_convolutions_alone_and_only_its_streams():
    trained = random_system(SYSTEMS["two streams"], downsample=2)
    graph = build_onnx(folded(trained)).graph
    operations = [node.op_type for node in graph.node]
    assert "BatchNormalization" not in operations and "Mul" not in operations, "batch norm is folded"
    assert operations.count("MaxPool") == 2 and "Pad" not in operations
    # Stem, 3 and 3 convolutions with their shortcuts and a temporal one a block: 1 + (2 * 3 + 2) + (3 + 2), twice.
    assert operations.count("Conv") == 2 * 14
    weights = [tensor for tensor in graph.initializer if "/" in tensor.name]
    assert {tensor.name.split("/")[2] for tensor in weights} == {"hallucination", "rgb"}
    kernels = {tensor.name: np.prod(tensor.dims) for tensor in weights if tensor.name.endswith("kernel")}
    expected = [leaf.size for leaf in jax.tree.leaves(trained.variables) if leaf.ndim > 1]
    assert sorted(kernels.values()) == sorted(expected)
    rest = [tensor for tensor in graph.initializer if tensor.name not in kernels]
    assert all(np.prod(tensor.dims) <= 64 for tensor in rest), "vectors of a layer, and the program's own numbers"


def test_the_file_says_what_it_is(tmp_path):
    write_onnx(random_system(SYSTEMS["a single stream"], downsample=2), tmp_path / "model.onnx", "int8")
    model = onnx.load(tmp_path / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["classes"]) == ["jump", "kick", "walk"]
    assert [facts[key] for key in ("frames", "height", "width")] == ["3", "32", "48"]
    assert facts["system"] == "random" and facts["precision"] == "int8"
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET == int(facts["opset"])
    (clips,) = model.graph.input
    assert clips.name == "frames" and clips.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sizes = [dimension.dim_param or dimension.dim_value for dimension in clips.type.tensor_type.shape.dim]
    assert sizes == ["clips", 3, 32, 48, 3]


def test_it_runs_without_jax(tmp_path):
    trained = random_system(SYSTEMS["a single stream"], downsample=2)
    write_onnx(trained, tmp_path / "model.onnx")
    clips = np.random.default_rng(2).integers(0, 256, (2, *trained.system.clip_shape), np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    program = """
import sys
for name in ("hallujax", "jax", "flax", "onnx"):
    sys.modules[name] = None  # importing it fails from here on
import numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
numpy.save("probabilities.npy", session.run(None, {"frames": numpy.load("clips.npy")})[0])
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=300, env=dict(os.environ))
    expected = jax.nn.softmax(trained.system.logits(trained.variables, clips)[FUSED])
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, atol=1e-5)


W = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
OPERATIONS = {
    "slices": lambda w, x: x[:, 1:, ::2, 1:5:3],
    "pad": lambda w, x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=2.0),
    "transposed product": lambda w, x: x.transpose(0, 2, 1, 3) @ w["w"],
    "reductions": lambda w, x: x.max(axis=(1, 3), keepdims=True) + x.min(2, keepdims=True) + x.sum(-1, keepdims=True),
    "softmax": lambda w, x: jax.nn.log_softmax(x, axis=1),
    "select": lambda w, x: jnp.where((x > 1.0) & (x <= 2.0), jax.nn.sigmoid(x), jnp.tanh(-jnp.abs(x))),
    "compared": lambda w, x: jnp.where(x < 0.5, jax.nn.leaky_relu(x - 1.0, 0.2), jnp.minimum(x, 3.0)),
    "equal": lambda w, x: jnp.where(x == 1.0, 5.0, jnp.square(x)),
    "powers": lambda w, x: jnp.log(1.0 + jnp.sqrt(x)) * jax.lax.rsqrt(x + 1.0) - jnp.exp(-x),
    "joined": lambda w, x: jnp.concatenate([x, jnp.broadcast_to(w["w"].T[:, None], (len(x), 4, 5, 6))], axis=2),
    "stacked": lambda w, x: jnp.stack([x, 2 * x], axis=2).mean(2),
    "constants": lambda w, x: x + jnp.arange(6.0) * w["w"].sum() + jnp.eye(5, 6),
    "convolved": lambda w, x: jax.lax.conv_general_dilated(
        x, w["w"][None, None], (1, 2), ((0, 0), (0, 1)), rhs_dilation=(1, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "rectified": lambda w, x: jnp.maximum(jnp.maximum(x - 1.0, 0.0), 2.0 - x),
    "one": lambda w, x: x * jnp.ones(6),
    "another shape": lambda w, x: x.reshape(-1, 5, 6)[..., None].reshape(x.shape[0], -1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation(name):
    def function(weights, frames):
        return OPERATIONS[name](weights, frames.astype(jnp.float32) / 64.0)

    session = session_of(to_onnx(function, {"w": W}, (4, 5, 6), PRIMITIVES))
    for batch in (1, 5):
        clips = np.random.default_rng(batch).integers(0, 256, (batch, 4, 5, 6), np.uint8)
        (found,) = session.run(None, {"frames": clips})
        np.testing.assert_allclose(found, function({"w": W}, clips), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda w, x: jnp.sort(x, axis=1), r"ONNX: jax's 'sort' has no translation; add one to .*onnx_primitives\.py"),
        (lambda w, x: x - x.mean(0), "'reduce_sum' over the clips of a batch"),
        (lambda w, x: x[1:], "'slice' of the clips of a batch"),
        (lambda w, x: jnp.einsum("btij,bsij->bts", x, x), "'dot_general' along"),
        (lambda w, x: jnp.concatenate([x, x]), "an axis that grows with the batch"),
        (lambda w, x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, -1, 0), (0, 0, 0), (0, 0, 0))), "'pad' that cuts"),
        (
            lambda w, x: jax.lax.conv_transpose(x, w["w"][None, None], (2, 2), "SAME"),
            "'conv_general_dilated' with a dilated input",
        ),
        (
            lambda w, x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 1), (1, 1, 2, 1), "VALID"),
            "'reduce_window_max' over other than",
        ),
    ],
)
def test_what_cannot_be_translated_is_named(function, message):
    with pytest.raises(UsageError, match=message) as error:
        to_onnx(lambda w, frames: function(w, frames.astype(jnp.float32)), {"w": W}, (4, 5, 6), PRIMITIVES)
    assert "\n" not in str(error.value)
