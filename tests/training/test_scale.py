"""What may not change a step's numbers: micro-batches, rematerialisation, the mesh; and what bfloat16 leaves alone."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from small_config import get_config

from hallujax import methods
from hallujax.errors import UsageError
from hallujax.experiment import from_json, read_config
from hallujax.models import VideoResNet
from hallujax.models.streams import initialize
from hallujax.training import step
from hallujax.training.optimizer import OptimizerOptions, build_optimizers
from hallujax.training.sharding import MODEL, MeshOptions, make_mesh, state_sharding

HERE = pathlib.Path(__file__).parent
CLIPS, FRAMES = 8, 2
SMALL = {"num_classes": 4, "stage_sizes": (1,), "width": 4, "bottleneck": 4, "ghost_batch": 2}


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    return {
        "rgb": rng.normal(size=(CLIPS, FRAMES, 16, 16, 3)).astype(np.float32),
        "depth": rng.normal(size=(CLIPS, FRAMES, 16, 16, 3)).astype(np.float32),
        "label": np.array([0, 1, 2, 3, -1, 0, 1, 2], np.int32),  # one without a label
        "mask": np.array([1, 1, 0, 0, 1, 1, 1, 1], np.float32),
        "sample": np.arange(CLIPS, dtype=np.uint32),
    }


def one_step(method, accumulate=1):
    """A step of plain descent, with its arguments."""
    params, batch_stats = initialize(method.networks, method.forward, batch(), jax.random.key(1))
    optimizers = build_optimizers(OptimizerOptions(name="sgd", learning_rate=0.1), method.players, 10)
    function = functools.partial(
        step.train_step,
        method=method,
        optimizers=optimizers,
        rounds=(tuple(dict.fromkeys(method.players.values())),),
        prepare=lambda batch, key: batch,
        accumulate=accumulate,
        ghost_batch=2,
    )
    state = step.initial_state(params, batch_stats, method.players, optimizers)
    return function, (state, batch(), jnp.float32(1.0), jax.random.key(0))


@functools.cache
def stepped(accumulate=1, remat=False):
    """State and metrics of ADMD after one step, batch norm in groups of two clips."""
    function, arguments = one_step(methods.build("admd", VideoResNet(**SMALL, remat=remat), {}), accumulate)
    return jax.device_get(jax.jit(function)(*arguments))


def assert_same(one, other, tolerance=1e-6):
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def test_micro_batches_add_up_to_the_batch():
    """With masked and unlabelled clips unevenly among them: parameters, statistics and metrics."""
    assert_same(stepped(), stepped(accumulate=2), 2e-6)


def test_micro_batches_keep_groups_and_share_devices():
    """Clips 0 1 | 2 3 | 4 5 | 6 7 in two micro-batches: each half of the batch, as devices have it, gives to both."""
    parts = step.micro_batches({"sample": np.arange(8)}, 2, 2)["sample"]
    np.testing.assert_array_equal(parts, [[0, 1, 4, 5], [2, 3, 6, 7]])
    np.testing.assert_array_equal(step.micro_batches({"sample": np.arange(4)}, 2)["sample"], [[0, 2], [1, 3]])


def test_a_sum_in_a_loop_is_the_sum_unrolled(monkeypatch):
    """Accelerators run micro-batches in a loop, in the memory of one; the CPU one after the other."""
    parts = {"label": jnp.arange(6.0).reshape(3, 2), "x": jnp.ones((3, 2, 4))}

    def function(part):
        return {"weighted": (part["label"][:, None] * part["x"]).sum(0), "largest": part["label"].max()}

    compiled = {}
    for on_cpu in (True, False):
        monkeypatch.setattr(step, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        summed = jax.jit(lambda parts: step.sum_over(parts, function))
        np.testing.assert_allclose(summed(parts)["weighted"], np.full(4, 15.0))
        assert summed(parts)["largest"] == 1 + 3 + 5
        compiled[on_cpu] = summed.lower(parts).as_text()
    assert "while" not in compiled[True] and "while" in compiled[False]


def test_rematerialised_gradients_are_the_same_and_keep_less():
    """What is kept between the passes: with remat the units' inputs, not what is in the units."""
    frames = jnp.asarray(batch()["rgb"])
    kept, gradients = {}, {}
    for remat in (False, True):
        stream = VideoResNet(**SMALL | {"stage_sizes": (3,)}, remat=remat)
        variables = jax.jit(stream.init)(jax.random.key(0), frames)

        def loss(params, stream=stream, variables=variables):
            output, moved = stream.apply(variables | {"params": params}, frames, train=True, mutable=["batch_stats"])
            return jnp.square(output.logits).sum(), moved

        pull_back = jax.eval_shape(
            lambda params, loss=loss: jax.vjp(loss, params, has_aux=True)[1], variables["params"]
        )
        kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull_back))
        gradients[remat] = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert_same(gradients[False], gradients[True], 1e-5)
    assert kept[True] < 0.6 * kept[False], kept


def test_a_rematerialised_game_is_the_same_step():
    """The barriers keep a compiler from computing again too early; XLA:CPU ignores them."""
    assert_same(stepped(), stepped(remat=True), 2e-6)
    for remat in (False, True):
        function, arguments = one_step(methods.build("admd", VideoResNet(**SMALL, remat=remat), {}))
        assert ("optimization_barrier" in jax.jit(function).lower(*arguments).as_text()) == remat


def test_micro_batches_in_a_loop_need_less_memory(monkeypatch):
    monkeypatch.setattr(step, "on_cpu", lambda: False)
    method, needed = methods.build("single_stream", VideoResNet(**SMALL), {}), {}
    for accumulate in (1, 4):
        function, arguments = one_step(method, accumulate)
        compiled = jax.jit(function, donate_argnums=0).lower(*arguments).compile()
        needed[accumulate] = compiled.memory_analysis().temp_size_in_bytes
    assert needed[4] < 0.6 * needed[1], needed


def test_bfloat16_computes_convolutions_and_nothing_else():
    method = methods.build("admd", VideoResNet(**SMALL, dtype=jnp.bfloat16), {})
    function, arguments = one_step(method)
    floats = [x.dtype for x in jax.tree.leaves(jax.eval_shape(function, *arguments))]
    assert set(floats) == {np.dtype(np.float32), np.dtype(np.int32)}, "parameters, statistics, losses"
    jaxpr = jax.make_jaxpr(function)(*arguments)
    convolutions = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    assert {variable.aval.dtype for e in convolutions for variable in e.invars} == {jnp.dtype(jnp.bfloat16)}


def _equations(jaxpr):
    """All equations, those of inner functions included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def test_where_large_arrays_are_cut():
    """Along the largest dimension that divides, outputs first; small and indivisible ones are whole."""
    mesh = jax.sharding.AbstractMesh((2, 4), ("data", "model"))
    shapes = {
        "kernel": (3, 3, 64, 64),
        "wide": (128, 64),
        "odd": (7, 7, 3, 65),
        "inputs": (1, 1, 64, 66),
        "small": (63, 64),
    }
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    specs = {name: tuple(sharding.spec) for name, sharding in state_sharding(mesh, tree).items()}
    assert specs == {
        "kernel": (None, None, None, MODEL),
        "wide": (MODEL, None),
        "odd": (),
        "inputs": (None, None, MODEL, None),
        "small": (),
    }
    whole = jax.sharding.AbstractMesh((8, 1), ("data", "model"))
    assert {tuple(sharding.spec) for sharding in state_sharding(whole, tree).values()} == {()}


def test_a_mesh_takes_all_devices_or_says_why_not():
    device = jax.devices()[0]
    assert dict(make_mesh(MeshOptions(model=2), [device] * 2).shape) == {"data": 1, "model": 2}
    for options, message in (
        ({"model": 3}, "mesh.model=3 does not make up the 2 devices"),
        ({"data": 4, "model": 1}, "mesh.model=1 times mesh.data=4 does not make up the 2 devices"),
        ({"model": 0}, "model 1 or more"),
    ):
        with pytest.raises(UsageError, match=message):
            make_mesh(MeshOptions(**options), [device] * 2)


def test_what_a_configuration_may_not_ask_for():
    for key, value, message in (
        ("accumulate", 3, r"stages.depth.batch_size is 4; it must divide by 3 \(accumulate=3, ghost_batch=0\)"),
        ("ghost_batch", 8, "must divide by 8"),
        ("ghost_batch", -1, "0 is for the whole batch"),
        ("accumulate", 0, "accumulate is 0; it must be positive"),
    ):
        config = get_config("nowhere")
        config.stages.depth[key] = value
        with pytest.raises(UsageError, match=message):
            read_config(config)


@pytest.mark.parametrize("name", ["admd", pytest.param("hallucination", marks=pytest.mark.slow)])
def test_compiled_programs_on_eight_devices(name):
    """All-reduces, gathers, donation, bytes a device; and the numbers of one device, however the state is cut."""
    command = [sys.executable, HERE / "eight_devices.py", name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("bytes a device") == 4


def test_where_it_is_computed_is_not_part_of_what_is():
    """And runs from before there was a mesh are read."""
    experiment = read_config(get_config("nowhere"))
    config = get_config("nowhere")
    config.mesh.model = 2
    config.training.remat = True
    elsewhere = read_config(config)
    assert elsewhere.mesh.model == 2 and elsewhere.stages["depth"].remat
    assert elsewhere.identity("depth") == experiment.identity("depth")
    assert not {"ghost_batch", "accumulate"} & set(experiment.identity("depth")["stages"]["depth"])
    config.training.ghost_batch = 2
    assert read_config(config).identity("depth")["stages"]["depth"]["ghost_batch"] == 2
    raw = json.loads(json.dumps(dataclasses.asdict(experiment)))
    assert from_json(raw) == experiment
    del raw["mesh"]
    for stage in raw["stages"].values():
        for key in ("ghost_batch", "accumulate", "remat"):
            del stage[key]
    assert from_json(raw) == experiment
