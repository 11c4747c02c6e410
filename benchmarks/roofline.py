"""How far a training step is from what the machine could do, kernel by kernel.

    python benchmarks/roofline.py                                                  # ResNet-50, RGB stream
    python benchmarks/roofline.py --system admd --dtype bfloat16 --batch 64        # on a GPU

The optimised HLO says which bytes every kernel moves and which products it computes (`hlo.py`). Bandwidth is measured
here by copying an array, the rate of products by multiplying matrices, each in the types that the step uses. The
roofline is the sum over kernels of max(bytes / bandwidth, operations / rate), the fraction that sum over the measured
step. A profile of the same steps says how long each kernel took: those that lose most are listed. On a CPU arrays that
stay in its caches move faster than the copy, and kernels run beside each other: a kernel may come out above 1.

Rows go to benchmarks/results/roofline.csv: the whole step, each kind of kernel, the kernels that lose most.
`transposed_mib` is what kernels lay out anew, `near_convolutions` how many of these touch one.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from hlo import Kernel, kernels
from jax.profiler import ProfileData
from recording import stamp, write
from systems import SYSTEMS, HallujaxArm, add_arguments, case_of, fresh_variables, random_batch

RESULTS = Path(__file__).parent / "results" / "roofline.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax")
WORST = 12


def main() -> None:
    args = parse_arguments()
    case = case_of(args)
    arm = HallujaxArm(args.system, case, fresh_variables(args.system, case), random_batch(case))
    found = kernels(arm.compiled.as_text())
    dtypes = {kernel.dtype for kernel in found if kernel.flops}
    before = measure_machine(dtypes, args.quick)
    arm.run(2)
    step = statistics.median(timed(lambda: arm.run(1)) for _ in range(args.steps))
    seconds = profile(arm, args.steps)
    after = measure_machine(dtypes, args.quick)
    bandwidth = max(before[0], after[0])  # what it can do, whatever else may have run meanwhile
    rates = {dtype: max(before[1][dtype], after[1][dtype]) for dtype in dtypes}
    print(f"copying moves {bandwidth / 1e9:.1f} GB/s; products: {show(rates)}", flush=True)

    def ideal(kernel: Kernel) -> float:
        return max(kernel.bytes / bandwidth, kernel.flops / rates[kernel.dtype] if kernel.flops else 0.0)

    common = stamp(PACKAGES) | {
        "system": args.system,
        "dtype": case.dtype,
        "clips": str(case.batch),
        "frame": str(case.size),
        "copy_gb_per_s": f"{bandwidth / 1e9:.1f}",
        "product_gflop_per_s": show(rates),
    }

    def row(kernel: str, kind: str, members: list[Kernel], measured: float | None) -> dict[str, str]:
        best = sum(map(ideal, members))
        return common | {
            "kernel": kernel,
            "kind": kind,
            "kernels": str(len(members)),
            "mib": f"{sum(each.bytes for each in members) / 2**20:.2f}",
            "gflop": f"{sum(each.flops for each in members) / 1e9:.3f}",
            "transposed_mib": f"{sum(each.transposed for each in members) / 2**20:.2f}",
            "near_convolutions": str(sum(each.convolution_near for each in members)),
            "ideal_ms": f"{1e3 * best:.3f}",
            "measured_ms": f"{1e3 * measured:.3f}" if measured else "",
            "fraction": f"{best / measured:.3f}" if measured else "",
        }

    rows = [row("the step", "all", found, step)]
    for kind in sorted({kernel.kind for kernel in found}):
        members = [kernel for kernel in found if kernel.kind == kind]
        rows.append(row(f"every {kind}", kind, members, sum(seconds.get(each.name, 0.0) for each in members)))
    lost = sorted(found, key=lambda kernel: ideal(kernel) - seconds.get(kernel.name, 0.0))
    rows += [row(each.name, each.kind, [each], seconds.get(each.name)) for each in lost[:WORST]]
    for each in rows:
        print(
            f"{each['kernel'][:44]:44s} {each['kind']:12s} {each['ideal_ms']:>10s} of {each['measured_ms']:>10s} ms"
            f"  {each['fraction']:>6s}  {each['mib']:>9s} MiB  {each['gflop']:>9s} GFLOP"
        )
    whole = rows[0]
    print(f"{whole['near_convolutions']} kernels beside convolutions lay out {whole['transposed_mib']} MiB anew")
    write(rows, args.out)


def measure_machine(dtypes: Iterable[str], quick: bool) -> tuple[float, dict[str, float]]:
    """Bytes a second of a copy, read and written ones, and operations a second of products in each type."""
    accelerated = jax.default_backend() != "cpu"
    size, side = (2**30, 8192) if accelerated else (2**28, 2048)
    if quick:
        size, side = 2**22, 256
    add = jax.jit(lambda x: x + 1)
    bandwidth = 2 * size / fastest(add, jnp.zeros(size // 4, jnp.float32))
    rates = {}
    for dtype in dtypes:
        left = jax.random.normal(jax.random.key(0), (side, side), jnp.float32).astype(_JAX_TYPES[dtype])
        rates[dtype] = 2 * side**3 / fastest(jax.jit(jnp.dot), left, left)
    return bandwidth, rates


_JAX_TYPES = {"f32": jnp.float32, "bf16": jnp.bfloat16, "f16": jnp.float16, "f64": jnp.float64}


def fastest(function: Callable, *inputs: jax.Array, repeats: int = 10) -> float:
    """Seconds of the best of several runs: what the machine can do."""
    jax.block_until_ready(function(*inputs))
    return min(timed(lambda: jax.block_until_ready(function(*inputs))) for _ in range(repeats))


def timed(run: Callable) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def profile(arm: HallujaxArm, steps: int) -> Mapping[str, float]:
    """Seconds that each kernel took in one step, by the profiler."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            arm.run(steps)
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = ProfileData.from_file(str(path))
    begun: dict[str, list[float]] = {}
    ended: dict[str, list[float]] = {}
    on_device = [plane for plane in data.planes if plane.name.startswith("/device:")]
    for plane in on_device or data.planes:
        for line in plane.lines:
            if on_device and not line.name.startswith("Stream"):
                continue  # the profiler's own sums over the same kernels
            for event in line.events:
                if event.name.startswith("end: "):
                    # On a CPU what runs on several threads returns at once; its end is an event of another thread.
                    ended.setdefault(event.name.removeprefix("end: "), []).append(event.start_ns)
                elif operation := dict(event.stats).get("hlo_op"):
                    begun.setdefault(operation, []).append(event.start_ns)
                    if on_device:
                        ended.setdefault(operation, []).append(event.start_ns + event.duration_ns)
    return {
        name: 1e-9 * (sum(ended[name]) - sum(begun[name])) / steps
        for name in begun
        if len(ended.get(name, ())) == len(begun[name])
    }


def show(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{dtype} {rate / 1e9:.0f}" for dtype, rate in sorted(rates.items()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, default="single_stream")
    add_arguments(parser)
    parser.add_argument("--steps", type=int, default=5, help="that are timed, and again that are profiled")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
