"""What the benchmarks share: arms timed in turn, and where, with what and when a number was measured."""

import csv
import datetime
import importlib.metadata
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
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


def stamp(packages: Iterable[str]) -> dict[str, str]:
    """The columns that every row begins with: when, where, under what load, with what and by which command."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "versions": versions(packages),
        "command": _command(),
    }


def _command() -> str:
    """As it was called, but for where the rows go: they are the same wherever they lie."""
    arguments = sys.argv[1:]
    if "--out" in arguments:
        place = arguments.index("--out")
        arguments = arguments[:place] + arguments[place + 2 :]
    return f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(arguments)}".rstrip()


def spread(milliseconds: Sequence[float]) -> dict[str, str]:
    """Median and extremes of an arm's blocks."""
    return {
        "median_ms": f"{statistics.median(milliseconds):.2f}",
        "min_ms": f"{min(milliseconds):.2f}",
        "max_ms": f"{max(milliseconds):.2f}",
    }


def write(rows: list[dict[str, str]], path: Path) -> None:
    """Into a CSV; rows that the same command wrote on the same machine before are replaced.

    Raises:
      SystemExit: if the file has other columns; nothing is written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = read(path)
    if kept and list(kept[0]) != list(rows[0]):
        sys.exit(f"{path} has other columns than these rows: {', '.join(set(kept[0]) ^ set(rows[0]))}")
    measured = {(row["command"], row["machine"]) for row in rows}
    kept = [row for row in kept if (row["command"], row["machine"]) not in measured]
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)
    partial.replace(path)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def on_huge_pages(row: dict[str, str]) -> bool:
    """Whether a row's command asked for the allocator's huge pages."""
    return "--huge-pages" in row["command"].split()


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
