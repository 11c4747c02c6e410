"""Several seeds of a stage: their steps one after the other, or one program for all of them.

    python benchmarks/seeds.py                                                   # the demo's network, 2 and 4 seeds
    python benchmarks/seeds.py --system admd --seeds 2
    python benchmarks/seeds.py --stages 3 4 6 3 --width 64 --size 224 --batch 64 --dtype bfloat16   # on a GPU

    sequence     the library's step, once a seed: what one process a seed does
    vmapped      one program over a leading axis of seeds
    divided      the steps one after the other, each batch divided over as many devices as there are seeds
    a_device     one program, the axis of seeds over the mesh axis `seed`: a device has one seed to itself

Every seed has a batch and a key of its own. The arms must agree on each seed's loss in the first two steps before
anything is timed, and take turns (ABBA). The last two arms need as many devices as seeds; on a CPU they are simulated
and share its cores. A row's milliseconds are of one step of all seeds; `ratio` is to `sequence`, block by block. Rows
go to benchmarks/results/seeds.csv.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from recording import measure, spread, stamp, write
from systems import (
    DEMO,
    SYSTEMS,
    Case,
    HallujaxArm,
    add_arguments,
    case_of,
    fresh_variables,
    random_batch,
    start,
    step_of,
)

RESULTS = Path(__file__).parent / "results" / "seeds.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax")
SEEDS = (2, 4)


class InSequence:
    """As many times the library's step, each on the same devices."""

    def __init__(self, system: str, case: Case, seeds: int, devices: Sequence[jax.Device]):
        variables = fresh_variables(system, case)
        batches = [random_batch(case, seed) for seed in range(seeds)]
        self._arms = [HallujaxArm(system, case, variables, batch, devices) for batch in batches]

    def run(self, steps: int) -> list[float]:
        for _ in range(steps):
            losses = [arm.run(1) for arm in self._arms]
        return losses


class Together:
    """One program over a leading axis of seeds: vmapped, or that axis over devices."""

    def __init__(self, system: str, case: Case, seeds: int, devices: Sequence[jax.Device]):
        method = SYSTEMS[system](case.stream)
        seen = {*method.modalities.values(), "label", "mask", "sample"}
        batches = [random_batch(case, seed) for seed in range(seeds)]
        batch = {name: np.stack([each[name] for each in batches]) for name in batches[0] if name in seen}
        state = jax.tree.map(lambda x: jnp.stack([x] * seeds), start(method, fresh_variables(system, case)))
        scale, keys = jnp.ones(seeds), jax.random.split(jax.random.key(0), seeds)
        step, place = jax.vmap(step_of(method)), devices[0]
        if len(devices) > 1:
            mesh = jax.make_mesh((seeds,), ("seed",), devices=devices)
            whole = step_of(method)

            def own(*inputs):
                return jax.tree.map(lambda x: x[None], whole(*jax.tree.map(lambda x: x[0], inputs)))

            split = PartitionSpec("seed")
            step = jax.shard_map(own, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
            place = NamedSharding(mesh, split)
        self._state, *self._rest = jax.device_put((state, batch, scale, keys), place)
        self.compiled = jax.jit(step, donate_argnums=0).lower(self._state, *self._rest).compile()

    def run(self, steps: int) -> list[float]:
        for _ in range(steps):
            self._state, metrics = self.compiled(self._state, *self._rest)
            jax.block_until_ready(self._state)  # so does every arm
        losses = [np.asarray(value) for name, value in metrics.items() if name.startswith("loss/")]
        return np.sum(losses, axis=0).tolist()


def main() -> None:
    args = parse_arguments()
    jax.config.update("jax_num_cpu_devices", max(args.seeds))  # before the first array is made
    case, rows = case_of(args), []
    for seeds in args.seeds:
        rows += measure_seeds(seeds, case, args)
        write(rows, args.out)


def measure_seeds(seeds: int, case: Case, args: argparse.Namespace) -> list[dict[str, str]]:
    one, several = jax.devices()[:1], jax.devices()[:seeds]
    kinds = {"sequence": (InSequence, one), "vmapped": (Together, one)}
    if len(several) == seeds and case.batch % seeds == 0:
        kinds |= {"divided": (InSequence, several), "a_device": (Together, several)}
    arms, losses = {}, {}
    for name, (kind, devices) in kinds.items():
        arms[name] = kind(args.system, case, seeds, devices)
        losses[name] = [arms[name].run(1), arms[name].run(1)]
        print(f"{seeds} seeds, {name}: compiled, first losses {np.round(losses[name][0], 5).tolist()}", flush=True)
    # Adam's first step goes by the sign of a gradient, so the second loss differs by more.
    tolerances = (1e-4, 2e-3) if case.dtype == "float32" else (3e-2, 1e-1)
    for name, found in losses.items():
        if not all(map(np.allclose, found, losses["sequence"], tolerances)):
            sys.exit(f"{name} disagrees with sequence: {losses}; nothing was timed")
    times = measure(arms, args.blocks, args.steps)
    rows = []
    for name, ms in times.items():
        ratios = [mine / base for mine, base in zip(ms, times["sequence"], strict=True)]
        rows.append(
            stamp(PACKAGES)
            | {"system": args.system, "dtype": case.dtype, "clips": str(case.batch), "frame": str(case.size)}
            | {"seeds": str(seeds), "devices": str(len(kinds[name][1])), "arm": name}
            | spread(ms)
            | {"clips_per_s": f"{1e3 * seeds * case.batch / statistics.median(ms):.2f}"}
            | {"ratio": f"{statistics.median(ratios):.3f}"}
            | {"ratio_min": f"{min(ratios):.3f}", "ratio_max": f"{max(ratios):.3f}"}
        )
        row = rows[-1]
        print(
            f"{seeds} seeds, {name:9s} {row['median_ms']:>9s} ms, {row['ratio']} times sequence"
            f" ({row['ratio_min']} to {row['ratio_max']})",
            flush=True,
        )
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, default="single_stream")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    add_arguments(parser, DEMO)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="of all seeds, a block and arm")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.blocks, args.seeds = 2, (2,)
    return args


if __name__ == "__main__":
    main()
