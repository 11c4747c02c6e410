"""How the training step and reading grow, one curve a call.

    python benchmarks/scale.py devices          # 1 to 8 simulated devices, same batch, same groups of batch norm
    python benchmarks/scale.py batch            # clips a batch
    python benchmarks/scale.py frames           # frames a clip
    python benchmarks/scale.py clips            # clips in the dataset, 1e3 to 1e6: opening it and the first batch
    python benchmarks/scale.py processes        # hallujax train in 1 and in 2 processes, the same batch

The points of a curve take turns (ABBA) in one process, but for `clips` and `processes`, whose points are processes of
their own. Before timing, the losses on several devices must be those on one. Several simulated devices share the
machine's cores: what they can show is what dividing the work costs, not that it is faster. Growth with the frames
stored of a clip is in `input.py`. Rows go to benchmarks/results/scale.csv; `ratio` is to the curve's first point.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
from recording import measure, spread, stamp, write
from scale_processes import step_times
from synthetic import write_larger_index, write_prepared
from systems import DEMO, SYSTEMS, HallujaxArm, add_arguments, case_of, fresh_variables, random_batch

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "scale.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "array-record")
DEVICES, GROUP = (1, 2, 4, 8), 2  # GROUP: clips that batch norm takes together, whatever the devices
BATCHES, FRAMES = (4, 8, 16, 32, 64), (1, 3, 5, 9, 15)
CLIPS = (1_000, 10_000, 100_000, 1_000_000)
PROCESSES, PROCESS_STEPS = (1, 2), 40


def main() -> None:
    args = parse_arguments()
    if args.curve == "devices":  # before the first array is made
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(DEVICES))
    rows = []
    for point, found in CURVES[args.curve](args):
        rows.append(stamp(PACKAGES) | {"curve": args.curve, "point": str(point)} | dict.fromkeys(COLUMNS, "") | found)
        print(args.curve, point, {key: value for key, value in found.items() if value}, flush=True)
    write(rows, args.out)


COLUMNS = (
    *("median_ms", "min_ms", "max_ms", "clips_per_s", "ratio", "ratio_min", "ratio_max"),
    *("private_mib", "mapped_mib", "failed"),
)
Points = Iterator[tuple[int, dict[str, str]]]


def timed_arms(arms: Mapping[int, object], clips: Mapping[int, int], args: argparse.Namespace) -> Points:
    """Rows of arms in one process; the ratio is of time, or of time a clip where the clips differ."""
    times = measure(arms, args.blocks, args.steps)
    first = next(iter(times))
    for point, ms in times.items():
        share = clips[first] / clips[point]
        ratios = [share * mine / base for mine, base in zip(ms, times[first], strict=True)]
        yield (
            point,
            spread(ms)
            | {"clips_per_s": f"{1e3 * clips[point] / statistics.median(ms):.2f}"}
            | dict(zip(("ratio", "ratio_min", "ratio_max"), of_three(ratios), strict=True)),
        )


def of_three(values: Sequence[float]) -> list[str]:
    return [f"{value:.3f}" for value in (statistics.median(values), min(values), max(values))]


def devices(args: argparse.Namespace) -> Points:
    case = case_of(args)
    case = dataclasses.replace(case, batch=max(case.batch, GROUP * max(DEVICES)), ghost_batch=GROUP)
    variables, batch = fresh_variables(args.system, case), random_batch(case)
    arms = {count: HallujaxArm(args.system, case, variables, batch, devices=jax.devices()[:count]) for count in DEVICES}
    first = {count: arm.run(1) for count, arm in arms.items()}
    if max(first.values()) - min(first.values()) > 1e-4 * max(first.values()):
        sys.exit(f"the first loss depends on the number of devices: {first}; nothing was timed")
    yield from timed_arms(arms, dict.fromkeys(DEVICES, case.batch), args)


def batch(args: argparse.Namespace) -> Points:
    yield from grown(args, "batch", BATCHES)


def frames(args: argparse.Namespace) -> Points:
    yield from grown(args, "frames", FRAMES)


def grown(args: argparse.Namespace, field: str, points: Sequence[int]) -> Points:
    cases = {point: dataclasses.replace(case_of(args), **{field: point}) for point in chosen(args, points)}
    arms = {}
    for point, case in cases.items():
        arms[point] = HallujaxArm(args.system, case, fresh_variables(args.system, case), random_batch(case))
    yield from timed_arms(arms, {point: case.batch for point, case in cases.items()}, args)


def chosen(args: argparse.Namespace, usual: Sequence[int]) -> Sequence[int]:
    return args.points or usual[: 2 if args.quick else None]


def clips(args: argparse.Namespace) -> Points:
    with tempfile.TemporaryDirectory() as folder:
        small = write_prepared(Path(folder) / "few", 50, 8, 32)
        first = 0.0
        for count in chosen(args, CLIPS):
            dataset = write_larger_index(small, Path(folder) / f"of{count}", count)
            command = [sys.executable, HERE / "scale_dataset.py", dataset]
            read = [subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout for _ in range(args.blocks)]
            found = [json.loads(each) for each in read]
            ms = [each["ms"] for each in found]
            first = first or statistics.median(ms)
            row = spread(ms) | dict(
                zip(("ratio", "ratio_min", "ratio_max"), of_three([each / first for each in ms]), strict=True)
            )
            for key in ("private_mib", "mapped_mib"):
                row[key] = f"{statistics.median(each[key] for each in found):.1f}"
            yield count, row


def processes(args: argparse.Namespace) -> Points:
    """Milliseconds between lines of metrics of `hallujax train`, from the second step on."""
    case = case_of(args)
    with tempfile.TemporaryDirectory() as folder:
        write_prepared(Path(folder) / "data", 80, 8, 2 * case.size)
        first = 0.0
        for count in PROCESSES:
            try:
                ms = step_times(Path(folder), count, case, 4 if args.quick else PROCESS_STEPS)
            except RuntimeError as error:
                yield count, {"failed": str(error)}
                continue
            first = first or statistics.median(ms)
            ratios = dict(
                zip(("ratio", "ratio_min", "ratio_max"), of_three([each / first for each in ms]), strict=True)
            )
            yield count, spread(ms) | {"clips_per_s": f"{1e3 * case.batch / statistics.median(ms):.2f}"} | ratios


CURVES = {"devices": devices, "batch": batch, "frames": frames, "clips": clips, "processes": processes}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curve", choices=CURVES)
    parser.add_argument("--system", choices=SYSTEMS, default="single_stream")
    add_arguments(parser, DEMO)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="a block and point")
    parser.add_argument(
        "--points", nargs="+", type=int, help="of the curves batch, frames and clips, others than usual"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.blocks = 2
    return args


if __name__ == "__main__":
    main()
