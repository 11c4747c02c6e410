"""Time of one training step of each system: hallujax beside plain flax and PyTorch, same network, weights and batch.

    python benchmarks/train_step.py                       # ResNet-50, 224 pixels, 2 clips of 5 frames, RGB stream
    python benchmarks/train_step.py --systems single_stream two_stream hallucination admd
    python benchmarks/train_step.py --stages 2 2 2 2 --width 16 --size 48 --batch 16 --classes 15     # the demo's
    python benchmarks/train_step.py --huge-pages          # with the allocator that hallujax's command line asks for
    python benchmarks/train_step.py --dtype bfloat16 --batch 64 --arms hallujax flax torch torch_compile   # on a GPU

The arms take turns, forwards and backwards (ABBA), and the median over blocks is reported with its extremes; setting up
and compiling is timed apart. Before timing, the losses of the first two steps must agree: the second says that the
gradients do. Rows go to benchmarks/results/train_step.csv with machine, load, versions and command; an arm that cannot
run has its reason there instead of a time.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from peers_flax import FlaxArm
from peers_torch import TorchArm
from recording import measure, spread, stamp, write
from systems import SYSTEMS, Case, HallujaxArm, add_arguments, case_of, fresh_variables, random_batch

from hallujax import huge_pages

RESULTS = Path(__file__).parent / "results" / "train_step.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch")
ARMS = {
    "hallujax": HallujaxArm,
    "flax": FlaxArm,
    "torch": TorchArm,
    "torch_compile": partial(TorchArm, compiled=True),
}


def main() -> None:
    args = parse_arguments()
    if args.huge_pages:
        huge_pages.restart()
    case = case_of(args)
    rows = []
    for system in args.systems:
        rows += measure_system(system, case, args)
        write(rows, args.out)  # what is measured is kept, whatever comes next


def measure_system(system: str, case: Case, args: argparse.Namespace) -> list[dict[str, str]]:
    variables, batch = fresh_variables(system, case), random_batch(case)
    arms, setup, losses, failed = {}, {}, {}, {}
    for name in args.arms:
        start = time.perf_counter()
        try:
            arm = ARMS[name](system, case, variables, batch)
            losses[name] = [arm.run(1), arm.run(1)]
        except (ImportError, RuntimeError) as error:  # not installed, out of memory, a compiler that is not there
            failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            print(f"{system}, {name}: cannot run ({failed[name]})", flush=True)
            continue
        arms[name], setup[name] = arm, time.perf_counter() - start
        shown = ", ".join(f"{loss:.6f}" for loss in losses[name])
        print(f"{system}, {name}: ready in {setup[name]:.1f} s, first losses {shown}", flush=True)
    check_agreement(system, losses, case)

    times = measure(arms, args.blocks, args.steps)
    rows = []
    for name in args.arms:
        ms = times.get(name)
        row = stamp(PACKAGES) | {"system": system, "dtype": case.dtype}
        row |= {"clips": str(case.batch), "frame": str(case.size), "arm": name}
        row |= spread(ms) if ms else dict.fromkeys(("median_ms", "min_ms", "max_ms"), "")
        row["clips_per_s"] = f"{1e3 * case.batch / statistics.median(ms):.2f}" if ms else ""
        row["setup_and_compile_s"] = f"{setup[name]:.1f}" if ms else ""
        row["first_loss"] = f"{losses[name][0]:.6f}" if ms else ""
        row["failed"] = failed.get(name, "")
        rows.append(row)
        if ms:
            print(
                f"{system:14s} {name:14s} {row['median_ms']:>9s} ms ({row['min_ms']} to {row['max_ms']}),"
                f" {row['clips_per_s']} clips/s",
                flush=True,
            )
    return rows


def check_agreement(system: str, losses: dict[str, list[float]], case: Case) -> None:
    """Ends the program if two arms do not compute the same.

    In float32 the first losses agree to 1e-4 of themselves, the second to 2 % of what the first step changed: by so
    much rounding moves ResNet-50's. From 4.5637 it is 1.132 here, 1.100 in flax, 1.106 in PyTorch, and 1.143 there in
    float64.
    """
    if not losses:
        return
    first, second = (np.array(found) for found in zip(*losses.values(), strict=True))
    if case.dtype == "float32" and jax.default_backend() == "cpu":  # a GPU's float32 products are TF32
        allowed = 1e-4 * first.max(), max(2e-3 * second.max(), 2e-2 * abs(first - second).max())
    else:
        allowed = 3e-2 * first.max(), 1e-1 * second.max()
    for number, found, most in zip((1, 2), (first, second), allowed, strict=True):
        if not np.ptp(found) <= most:
            sys.exit(f"{system}: the arms disagree on loss {number}: {losses}; nothing was timed")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=["single_stream"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["hallujax", "flax", "torch"])
    add_arguments(parser)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="a block and arm")
    parser.add_argument("--huge-pages", action="store_true", help="for all arms; see hallujax.huge_pages")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.blocks = 2
    return args


if __name__ == "__main__":
    main()
