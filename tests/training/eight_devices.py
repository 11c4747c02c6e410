"""The step's compiled programs on eight simulated devices, and their numbers against one device's.

    python tests/training/eight_devices.py METHOD

Run by test_scale.py in a process of its own. Groups of ghost batch norm are the same on every mesh.
"""

import functools
import os
import pathlib
import re
import sys
import tempfile

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from hallujax import methods
from hallujax.data.transforms import TransformOptions, encode, prepare_training
from hallujax.models import VideoResNet
from hallujax.models.streams import initialize
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.optimizer import OptimizerOptions, build_optimizers
from hallujax.training.sharding import (
    SMALLEST_SHARDED,
    MeshOptions,
    gather,
    make_mesh,
    replicated,
    split_over_data,
    state_sharding,
    to_devices,
)
from hallujax.training.step import initial_state, train_step

CLIPS, FRAMES, SIZE, GHOST_BATCH = 16, 2, 16, 2
TRANSFORMS = TransformOptions(
    flip=0.5,
    shift=1,
    downsample=1,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=500.0,
    depth_far=6000.0,
)
COLLECTIVES = r"all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
HOST = r"infeed|outfeed|send|recv|custom-call"


def batch():
    rng = np.random.default_rng(0)
    return {
        "rgb": rng.integers(0, 256, (CLIPS, FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        "depth": rng.integers(0, 6000, (CLIPS, FRAMES, SIZE, SIZE), dtype=np.uint16),
        "label": rng.integers(0, 4, CLIPS).astype(np.int32),
        "mask": (np.arange(CLIPS) % 5 > 0).astype(np.float32),
        "sample": np.arange(CLIPS, dtype=np.uint32),
    }


@functools.cache
def start(name):
    """Method, optimisers and first state, on the host."""
    stream = VideoResNet(num_classes=4, stage_sizes=(1,), width=32, bottleneck=8, ghost_batch=GHOST_BATCH)
    method = methods.build(name, stream, {"layer": "block1"} if name == "hallucination" else {})
    shapes = jax.eval_shape(lambda b: encode(b, TRANSFORMS), batch())
    params, batch_stats = initialize(method.networks, method.forward, shapes, jax.random.key(1))
    # Plain descent: Adam's first steps are +-1 and would turn a rounding error of a tiny gradient into a whole step.
    optimizers = build_optimizers(OptimizerOptions(name="sgd", learning_rate=0.1), method.players, 10)
    return method, optimizers, jax.device_get(initial_state(params, batch_stats, method.players, optimizers))


class Step:
    """The step on a mesh, compiled as the loop does."""

    def __init__(self, name, devices, model):
        method, optimizers, state = start(name)
        mesh = make_mesh(MeshOptions(model=model), devices)
        self.placement, whole, split = state_sharding(mesh, state), replicated(mesh), split_over_data(mesh)
        step = jax.jit(
            functools.partial(
                train_step,
                method=method,
                optimizers=optimizers,
                rounds=(tuple(dict.fromkeys(method.players.values())),),
                prepare=functools.partial(prepare_training, options=TRANSFORMS),
                ghost_batch=GHOST_BATCH,
                gather=functools.partial(gather, mesh=mesh),
            ),
            donate_argnames="state",
            in_shardings=(self.placement, split, whole, whole),
            out_shardings=(self.placement, whole),
        )
        self.state = jax.device_put(state, self.placement)
        self.rest = (to_devices(batch(), split), *jax.device_put((jnp.float32(1.0), jax.random.key(0)), whole))
        self.compiled = step.lower(self.state, *self.rest).compile()

    def run(self):
        for _ in range(2):
            self.state, metrics = self.compiled(self.state, *self.rest)
        return jax.device_get((self.state, metrics))

    def count(self, opcodes):
        """How often each of the instructions stands in the optimised program."""
        found = re.findall(rf"^.* = .*?[\])}}] ({opcodes})(?:-start)?\(", self.compiled.as_text(), re.MULTILINE)
        return {opcode: found.count(opcode) for opcode in sorted(set(found))}


def bytes_a_device(state):
    """Of a state, on the device that has most."""
    held = {}
    for leaf in jax.tree.leaves(state):
        for shard in leaf.addressable_shards:
            held[shard.device] = held.get(shard.device, 0) + shard.data.nbytes
    return max(held.values())


def large(state):
    return [leaf for leaf in jax.tree.leaves(state) if leaf.size >= SMALLEST_SHARDED]


def assert_same(one, other):
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path))


def check(name):
    one = Step(name, jax.devices()[:1], 1).run()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(start(name)[2]))
    cut = sum(leaf.nbytes for leaf in large(start(name)[2]))
    for model in (1, 2, 4, 8):
        step = Step(name, jax.devices(), model)
        collectives = step.count(COLLECTIVES)
        gathers = {"all-gather": len(large(start(name)[2].params))} if model > 1 else {}
        # The examples, then everything; with cut arrays their norms too, which the compiler joins or does not.
        reductions = collectives.pop("all-reduce")
        assert reductions <= (3 if model == 1 else 8), f"model={model}: {reductions} all-reduces"
        assert collectives == gathers, f"model={model}: {collectives}, expected {gathers}"
        assert not step.count(HOST), f"model={model}: {step.count(HOST)}"
        held = bytes_a_device(step.state)
        assert held == whole - cut + cut / model, f"model={model}: {held} bytes a device"
        assert step.compiled.memory_analysis().alias_size_in_bytes == held, "a part of the state is not donated"
        donated = jax.tree.leaves(step.state)
        assert_same(one, step.run())
        assert all(leaf.is_deleted() for leaf in donated)
        print(f"{name}, model={model}: {held} bytes a device, {gathers}")
    if name == "admd":
        check_checkpoint(name)


def check_checkpoint(name):
    """Written in copies, read in parts; and back."""
    placements = {
        model: jax.device_put(start(name)[2], state_sharding(make_mesh(MeshOptions(model=model)), start(name)[2]))
        for model in (1, 2)
    }
    for there, here in ((1, 2), (2, 1)):
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(pathlib.Path(folder))
            checkpoints.save(1, placements[there], {"position": 16})
            checkpoints.wait()
            blank = jax.tree.map(jnp.zeros_like, placements[here])
            restored, _ = checkpoints.restore(blank)
            networks = {"params": placements[there].params, "batch_stats": placements[there].batch_stats}
            checkpoints.save_best(1, networks)
            best = checkpoints.restore_best(1)
            checkpoints.close()
        assert_same(jax.device_get(placements[there]), jax.device_get(restored))
        assert_same(jax.device_get(networks), best)
        for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(placements[here]), strict=True):
            assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    print("restored")


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    check(sys.argv[1])
