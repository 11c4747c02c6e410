"""Time of one training step: hallujax beside plain flax and PyTorch, same network, weights, batch and optimiser.

    python benchmarks/train_step.py                       # ResNet-50, 224 pixels, 2 clips of 5 frames
    python benchmarks/train_step.py --stages 2 2 2 2 --width 16 --size 64 --batch 16 --classes 15     # the demo's
    python benchmarks/train_step.py --dtype bfloat16 --batch 64 --arms hallujax flax torch torch_compile   # on a GPU

The arms take turns, forwards and backwards (ABBA), and the median over blocks is reported with its extremes; setting up
and compiling is timed apart. Before timing, the losses of the first step must agree. Rows are appended to
benchmarks/results/train_step.csv with machine, load, versions and command.
"""

import argparse
import datetime
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from peers import FlaxArm, TorchArm
from recording import machine, measure, versions, write

from hallujax.methods import single_stream
from hallujax.models import VideoResNet
from hallujax.training.step import initial_state, train_step

RESULTS = Path(__file__).parent / "results" / "train_step.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch")


class HallujaxArm:
    """The library's own step on its own single-stream method."""

    def __init__(self, variables, clips, labels, *, num_classes, stage_sizes, width, taps, dtype, learning_rate):
        stream = VideoResNet(num_classes, stage_sizes, width, temporal_kernel=taps, dtype=jnp.dtype(dtype))
        method = single_stream(stream)
        optimizers = {"rgb": optax.sgd(learning_rate, momentum=0.9)}
        copy = jax.tree.map(jnp.array, variables)
        self._state = initial_state({"rgb": copy["params"]}, {"rgb": copy["batch_stats"]}, method.players, optimizers)
        batch = {"rgb": clips, "label": labels, "mask": np.ones(len(labels), np.float32)}
        self._rest = (jax.tree.map(jnp.asarray, batch), jnp.ones(()), jax.random.key(0))
        step = partial(
            train_step,
            method=method,
            optimizers=optimizers,
            rounds=(("rgb",),),
            prepare=lambda batch, key: batch,
        )
        self._step = jax.jit(step, donate_argnums=0).lower(self._state, *self._rest).compile()

    def run(self, steps: int) -> float:
        for _ in range(steps):
            self._state, metrics = self._step(self._state, *self._rest)
        jax.block_until_ready(self._state)
        return float(metrics["loss/rgb"])


ARMS = {
    "hallujax": HallujaxArm,
    "flax": FlaxArm,
    "torch": TorchArm,
    "torch_compile": partial(TorchArm, compiled=True),
}


def main() -> None:
    args = parse_arguments()
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(args.batch, args.frames, args.size, args.size, 3)).astype(np.float32)
    labels = (np.arange(args.batch) % args.classes).astype(np.int32)
    shape = {
        "num_classes": args.classes,
        "stage_sizes": tuple(args.stages),
        "width": args.width,
        "taps": args.taps,
        "dtype": args.dtype,
        "learning_rate": 0.01,
    }
    model = VideoResNet(args.classes, tuple(args.stages), args.width, temporal_kernel=args.taps)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(0), clips[:1, :1, :32, :32]))

    arms, setup, first_loss = {}, {}, {}
    for name in args.arms:
        start = time.perf_counter()
        arms[name] = ARMS[name](variables, clips, labels, **shape)
        first_loss[name] = arms[name].run(1)
        setup[name] = time.perf_counter() - start
        print(f"{name}: ready in {setup[name]:.1f} s, first loss {first_loss[name]:.6f}", flush=True)
    spread = max(first_loss.values()) - min(first_loss.values())
    if spread > (1e-4 if args.dtype == "float32" else 3e-2) * max(first_loss.values()):
        sys.exit(f"the arms disagree on the first loss: {first_loss}; nothing was timed")

    load_before = os.getloadavg()[0]
    times = measure(arms, args.blocks, args.steps)
    rows = [
        {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "load_before": f"{load_before:.1f}",
            "load_after": f"{os.getloadavg()[0]:.1f}",
            "versions": versions(PACKAGES),
            "command": "python benchmarks/train_step.py " + " ".join(sys.argv[1:]),
            "arm": name,
            "median_ms": f"{statistics.median(ms):.1f}",
            "min_ms": f"{min(ms):.1f}",
            "max_ms": f"{max(ms):.1f}",
            "clips_per_s": f"{1e3 * args.batch / statistics.median(ms):.2f}",
            "setup_and_compile_s": f"{setup[name]:.1f}",
            "first_loss": f"{first_loss[name]:.6f}",
        }
        for name, ms in times.items()
    ]
    for row in rows:
        print(
            f"{row['arm']:14s} {row['median_ms']:>8s} ms ({row['min_ms']} to {row['max_ms']}),"
            f" {row['clips_per_s']} clips/s, set up and compiled in {row['setup_and_compile_s']} s"
        )
    write(rows, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["hallujax", "flax", "torch"])
    parser.add_argument("--stages", nargs="+", type=int, default=[3, 4, 6, 3], help="units a block")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--taps", type=int, default=5, help="of the temporal convolutions")
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--size", type=int, default=224, help="height and width of a frame, pixels")
    parser.add_argument("--batch", type=int, default=2, help="clips")
    parser.add_argument("--frames", type=int, default=5, help="a clip")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="a block and arm")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.stages, args.width, args.size, args.batch, args.classes, args.blocks = [1, 2], 8, 32, 2, 4, 2
    return args


if __name__ == "__main__":
    main()
