"""Three ADMD steps on eight simulated devices and on one; run by test_step.py in a process of its own."""

import functools
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from hallujax import methods
from hallujax.data.transforms import TransformOptions, encode, prepare_training
from hallujax.models import VideoResNet
from hallujax.models.streams import initialize
from hallujax.training.optimizer import OptimizerOptions, build_optimizers
from hallujax.training.sharding import make_mesh, replicated, split_over_data, to_devices
from hallujax.training.step import initial_state, train_step

OPTIONS = TransformOptions(
    flip=0.5,
    shift=1,
    downsample=1,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=500.0,
    depth_far=6000.0,
)


def batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "rgb": rng.integers(0, 256, (8, 3, 16, 16, 3), dtype=np.uint8),
        "depth": rng.integers(0, 6000, (8, 3, 16, 16), dtype=np.uint16),
        "label": rng.integers(0, 4, 8).astype(np.int32),
        "mask": np.array([1, 1, 1, 1, 1, 1, 0, 1], np.float32),
        "sample": np.arange(8, dtype=np.uint32),
    }


def run(devices):
    mesh = make_mesh(devices=devices)
    method = methods.build("admd", VideoResNet(num_classes=4, stage_sizes=(1, 1), width=4, bottleneck=8), {})
    shapes = jax.eval_shape(lambda b: encode(b, OPTIONS), batch(0))
    params, batch_stats = initialize(method.networks, method.forward, shapes, jax.random.key(1))
    # Plain descent: Adam's first steps are +-1 and would turn a rounding error of a tiny gradient into a whole step.
    options = OptimizerOptions(name="sgd", learning_rate=0.1)
    optimizers = build_optimizers(options, method.players, 10)
    state = jax.device_put(initial_state(params, batch_stats, method.players, optimizers), replicated(mesh))
    step = jax.jit(
        functools.partial(
            train_step,
            method=method,
            optimizers=optimizers,
            rounds=(("student", "discriminator"),),
            prepare=functools.partial(prepare_training, options=OPTIONS),
        ),
        donate_argnames="state",
        out_shardings=replicated(mesh),
    )
    for seed in range(3):
        state, metrics = step(
            state, to_devices(batch(seed), split_over_data(mesh)), jnp.float32(1.0), jax.random.key(0)
        )
    assert step._cache_size() == 1, "recompiled"
    return jax.device_get((state, metrics))


if __name__ == "__main__":
    assert len(jax.devices()) == 8
    one, eight = run(jax.devices()[:1]), run(jax.devices())
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    print("equal")
