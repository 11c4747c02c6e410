"""Runs the benchmarks that a machine can run, one after the other, into benchmarks/results.

    python benchmarks/suite.py cpu                   # about three quarters of an hour on two quiet cores
    python benchmarks/suite.py gpu                   # one batch of under 10 minutes; needs jax, flax, optax and torch
    python benchmarks/suite.py gpu --out $OUT        # the CSV files go there
    python benchmarks/suite.py cpu --quick           # tiny networks, to see that all of it runs
    python benchmarks/suite.py cpu --list            # the commands alone

The dearest questions come first: what does not fit into `--minutes` any more is left out and said. What a command has
measured is on disk when the next one starts, and none stops the others by failing; the exit code says that one has.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SYSTEMS = "single_stream two_stream hallucination admd"
DEMO = "--stages 2 2 2 2 --width 16 --size 48 --batch 16 --classes 15"
COMPILED = "--arms hallujax flax torch torch_compile"

CPU = (
    f"train_step.py {DEMO} --steps 4 --blocks 16",
    f"train_step.py {DEMO} --steps 4 --blocks 16 --huge-pages",
    "train_step.py --steps 1 --blocks 5",
    "train_step.py --steps 1 --blocks 5 --huge-pages",
    f"train_step.py {DEMO} --systems two_stream hallucination admd --steps 3 --blocks 6",
    "game.py --stages 2 2 2 2 --width 16 --size 56 --batch 16 --classes 15 --steps 4 --blocks 8",
    "game.py --steps 1 --blocks 5",
    f"roofline.py {DEMO} --steps 20",
    "roofline.py --steps 3",
    "input.py",
    "end_to_end.py",
    "startup.py",
    "startup.py --stages 3 4 6 3 --width 64 --size 224 --batch 2 --rounds 2 --saves 3",
    "scale.py devices",
    "scale.py processes",
    "seeds.py",
    "scale.py batch --points 4 8 16 32",
    "scale.py frames",
    "scale.py clips",
    "train_step.py --batch 1 --dtype bfloat16 --arms hallujax torch --steps 1 --blocks 3",
    "inference.py --stages 2 2 2 2 --width 16 --size 56 --classes 15 --batches 1 4 16 64",
    "inference.py --stages 2 2 2 2 --width 8 --size 56 --classes 15 --batches 1 16",
    "conversion.py --blocks 2",
)
GPU = (
    f"train_step.py --dtype bfloat16 --batch 64 {COMPILED} --steps 10 --blocks 6",
    "roofline.py --dtype bfloat16 --batch 64 --steps 10",
    "game.py --dtype bfloat16 --batch 64 --steps 10",
    f"train_step.py --dtype bfloat16 --batch 128 {COMPILED} --steps 5 --blocks 6",
    "train_step.py --dtype bfloat16 --batch 64 --systems two_stream hallucination admd --arms hallujax torch --steps 5",
    "roofline.py --system admd --dtype bfloat16 --batch 64 --steps 10",
    "train_step.py --batch 64 --steps 5",
    "scale.py batch --stages 3 4 6 3 --width 64 --size 224 --classes 60 --dtype bfloat16 --points 8 32 128 --steps 5",
    "train_step.py --dtype bfloat16 --batch 64 --systems admd --arms hallujax flax torch_compile --steps 5",
)


def main() -> int:
    args = parse_arguments()
    commands = [shlex.split(line) for line in (GPU if args.machine == "gpu" else CPU)]
    if args.list:
        print("\n".join(f"python benchmarks/{shlex.join(command)}" for command in commands))
        return 0
    paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {
        "PYTHONPATH": paths,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch is on the same device
    }
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "hallujax" / "xla"))
    begun, failed = time.monotonic(), []
    for script, *rest in commands:
        name = shlex.join([script, *rest])
        left = 60 * args.minutes - (time.monotonic() - begun)
        if left < 10:
            failed.append(f"{name}: left out, the {args.minutes:g} minutes are over")
            continue
        out = ["--out", str(args.out / f"{Path(script).stem}.csv")] if args.out else []
        print(f"== {name}  ({left:.0f} s left)", flush=True)
        command = [sys.executable, str(HERE / script), *rest, *(["--quick"] if args.quick else []), *out]
        code = run(command, environment, left)
        if code:
            failed.append(f"{name}: {code}")
    print(f"== {(time.monotonic() - begun) / 60:.1f} minutes; " + ("\n".join(failed) or "all ran"), flush=True)
    return bool(failed)


def run(command: list[str], environment: dict[str, str], seconds: float) -> int | str:
    """Its exit code; what is still running when the time is over is ended, with all that it started."""
    process = subprocess.Popen(command, env=environment, cwd=HERE.parent, start_new_session=True)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", choices=("cpu", "gpu"))
    parser.add_argument("--minutes", type=float, help="for all of them (cpu: 60, gpu: 9.5)")
    parser.add_argument("--out", type=Path, help="folder of the CSV files (benchmarks/results)")
    parser.add_argument("--list", action="store_true", help="print the commands and end")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to see that all of it runs")
    args = parser.parse_args()
    args.minutes = args.minutes or (9.5 if args.machine == "gpu" else 60.0)
    return args


if __name__ == "__main__":
    sys.exit(main())
