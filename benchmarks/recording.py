"""What the benchmarks share: arms timed in turn, and where, with what and when a number was measured."""

import csv
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import jax


def measure(arms, blocks: int, steps: int) -> dict[str, list[float]]:
    """Milliseconds a step, one number a block and arm; the order turns round from block to block."""
    times = {name: [] for name in arms}
    for name in arms:
        arms[name].run(1)
    for block in range(blocks):
        for name in list(arms) if block % 2 == 0 else reversed(arms):
            start = time.perf_counter()
            arms[name].run(steps)
            times[name].append(1e3 * (time.perf_counter() - start) / steps)
    return times


def write(rows: list[dict[str, str]], path: Path) -> None:
    """Appends to a CSV, which gets its header from the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def machine() -> str:
    """Processor, cores and JAX's device."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {jax.devices()[0].device_kind}"


def versions(packages: Iterable[str]) -> str:
    """Of Python and of those of the packages that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"python {platform.python_version()}, " + ", ".join(found)
