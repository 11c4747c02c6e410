"""From the start of the process to the first step, cold and warm; what saving costs; how long restoring takes.

    python benchmarks/startup.py                          # the demo's network
    python benchmarks/startup.py --stages 3 4 6 3 --width 64 --size 224 --batch 2 --rounds 2 --saves 3    # ResNet-50
    python benchmarks/startup.py --quick                  # to see that it runs

`cold` and `warm` are `hallujax train` on a fresh folder, from the start of the process until the first step's metrics
are on disk: cold with an empty compilation cache, warm with the one that the cold start left. `imports` is a process
that imports what training needs and ends. A start is killed after its first step; the arms take turns.

`save_stall` is how much later a few steps end if a checkpoint is started before them, its background writing included,
`of` one step without. `restore` is from a closed folder to the state on the device, checksums included. Rows go to
benchmarks/results/startup.csv, times in milliseconds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from recording import spread, stamp, write
from synthetic import write_prepared
from systems import DEMO, HallujaxArm, add_arguments, case_of, fresh_variables, random_batch

from hallujax.training.checkpoint import Checkpoints

RESULTS = Path(__file__).parent / "results" / "startup.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
ROOT = Path(__file__).parents[1]
IMPORTS = "import hallujax.experiment, hallujax.training.stages, hallujax.evaluation.table"
SECONDS = 600  # after which a start has failed
STEPS_AFTER_SAVING = 8


def main() -> None:
    args = parse_arguments()
    case = case_of(args)
    found: dict[str, list[float]] = {"cold": [], "warm": [], "imports": []}
    with tempfile.TemporaryDirectory() as folder:
        write_prepared(Path(folder) / "data", 40, 8, 2 * case.size)
        for number in range(args.rounds):
            cache = Path(folder) / f"cache{number}"
            for arm in ("cold", "warm"):
                found[arm].append(start_training(Path(folder) / f"{arm}{number}", Path(folder) / "data", cache, case))
            found["imports"].append(run([sys.executable, "-c", IMPORTS], cache))
            print({name: f"{times[-1]:.0f} ms" for name, times in found.items()}, flush=True)
        step, stall, restored, size = checkpoints(Path(folder) / "checkpoints", case, args)
    rows = []

    def add(what: str, times: Sequence[float], of: str, ratios: Sequence[float], mib: float = 0.0) -> None:
        middle = spread(ratios)["median_ms"] if of else ""
        rows.append(
            stamp(PACKAGES)
            | {"clips": str(case.batch), "frame": str(case.size), "what": what, "rounds": str(len(times))}
            | spread(times)
            | {"of": of, "ratio": middle, "mib": f"{mib:.1f}" if mib else ""}
        )
        print(f"{what:12s} {rows[-1]['median_ms']:>10s} ms" + (f", {middle} of {of}" if of else ""))

    add("cold", found["cold"], "", [])
    for arm in ("warm", "imports"):
        add(arm, found[arm], "cold", [a / b for a, b in zip(found[arm], found["cold"], strict=True)])
    add("step", step, "", [])
    typical = sorted(step)[len(step) // 2]
    add("save_stall", stall, "step", [each / typical for each in stall], size)
    add("restore", restored, "step", [each / typical for each in restored], size)
    write(rows, args.out)


def start_training(workdir: Path, data: Path, cache: Path, case) -> float:
    """Milliseconds from the start of `hallujax train` to the first line of its metrics; it is killed there."""
    flags = {
        "data.directory": data,
        "data.frames": case.frames,
        "training.model.stage_sizes": f"({','.join(map(str, case.stages))})",
        "training.model.width": case.width,
        "training.batch_size": min(case.batch, 16),
        "training.epochs": 100.0,
        "log_every": 1,
        "checkpoint_every": 1,  # metrics reach the disk with the checkpoint that speaks of them
    }
    command = [
        sys.executable,
        "-m",
        "hallujax.cli",
        "train",
        "--config=benchmarks/one_stream.py:mocap_rgbd,cross_subject",
    ]
    command += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in flags.items())]
    begun = time.perf_counter()
    with (workdir.parent / f"{workdir.name}.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(cache), stdout=log, stderr=log)
        try:
            while not any(path.stat().st_size for path in workdir.glob("*/metrics.jsonl")):
                if process.poll() is not None or time.perf_counter() - begun > SECONDS:
                    log.seek(0)
                    sys.exit(f"hallujax train did not get to its first step:\n{log.read()[-2000:]}")
                time.sleep(0.005)
            return 1e3 * (time.perf_counter() - begun)
        finally:
            process.kill()
            process.wait()


def run(command: Sequence[str], cache: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment(cache), check=True)
    return 1e3 * (time.perf_counter() - begun)


def environment(cache: Path) -> dict[str, str]:
    """With this checkout first, and a compilation cache of its own that keeps small programs too, as a warm one has."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": paths, "JAX_COMPILATION_CACHE_DIR": str(cache)}


def checkpoints(folder: Path, case, args: argparse.Namespace) -> tuple[list[float], list[float], list[float], float]:
    """Milliseconds of a step, of the stall of a save and of a restore; MiB of the checkpoint."""
    arm = HallujaxArm("admd", case, fresh_variables("admd", case), random_batch(case))
    arm.run(2)
    step, stall, restored = [], [], []
    saving = Checkpoints(folder)
    for number in range(1, args.saves + 1):
        plain = timed(lambda: arm.run(STEPS_AFTER_SAVING))
        step.append(plain / STEPS_AFTER_SAVING)

        def save_and_step(number=number):
            saving.save(number, arm.state, {"position": number})
            arm.run(STEPS_AFTER_SAVING)

        stall.append(timed(save_and_step) - plain)
        saving.wait()
    saving.close()
    for _ in range(args.saves):
        restored.append(timed(lambda: restore(folder, arm.state)))
    latest = folder / "latest" / str(args.saves)
    return step, stall, restored, sum(path.stat().st_size for path in latest.rglob("*") if path.is_file()) / 2**20


def restore(folder: Path, template) -> None:
    reading = Checkpoints(folder)
    jax.block_until_ready(reading.restore(template)[0].params)
    reading.close()


def timed(work) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, DEMO)
    parser.add_argument("--rounds", type=int, default=3, help="starts of every kind")
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.saves = 1, 2
    return args


if __name__ == "__main__":
    main()
