"""What this machine has, and what is missing for what: the command `hallujax doctor`.

Every check stands alone: a package that does not import is a finding, never a traceback.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

PURPOSES = {  # what an extra's package is for; a package without an entry is listed with its extra alone
    "pybullet": "renders mocap_rgbd (hallujax demo, hallujax prepare)",
    "av": "reads videos (hallujax prepare)",
    "matplotlib": "figures of report.html",
    "jinja2": "writes report.html",
    "pytest": "the test suite",
    "hypothesis": "the test suite",
    "ruff": "style checks",
    "torch": "tests of VideoResNet against PyTorch",
}
SYMBOLS = {"ok": "[green]✓[/]", "info": "[cyan]·[/]", "missing": "[yellow]–[/]", "broken": "[red]✗[/]"}


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
      name: what was looked at.
      status: `ok`, `info` (a fact), `missing` (optional and not there), `broken` (the core needs it).
      found: what is there.
      remedy: what to do, for `missing` and `broken`; else empty.
    """

    name: str
    status: str
    found: str
    remedy: str = ""


def diagnose(data_dirs: Sequence[os.PathLike | str] = ()) -> list[Check]:
    """All checks: machine, core packages, devices, compile cache, extras, datasets in `data_dirs`."""
    return [*_machine(), *_packages(), *_devices(), *_optional(), *_datasets(data_dirs)]


def report(data_dirs: Sequence[os.PathLike | str] = ()) -> int:
    """Prints all checks; the exit code is 0 when the core works, whatever is optional."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    checks = diagnose(data_dirs)
    table = Table.grid(padding=(0, 2))
    for check in checks:
        remedy = f"\n[dim]{escape(check.remedy)}[/]" if check.remedy else ""
        table.add_row(SYMBOLS[check.status], escape(check.name), escape(check.found) + remedy)
    broken = [check.name for check in checks if check.status == "broken"]
    missing = [check.name for check in checks if check.status == "missing"]
    console = Console(highlight=False)
    console.print(table)
    console.print()
    if broken:
        console.print(f"The core does not work: {', '.join(broken)}.", markup=False)
    elif missing:
        console.print(f"The core works. Not here, and optional: {', '.join(missing)}.", markup=False)
    else:
        console.print("The core works, and nothing optional is missing.", markup=False)
    return 1 if broken else 0


def _machine() -> Iterator[Check]:
    wanted = importlib.metadata.metadata("hallujax")["Requires-Python"]
    fits = sys.version_info >= tuple(int(part) for part in wanted.removeprefix(">=").split("."))
    yield Check(
        "Python",
        "ok" if fits else "broken",
        f"{platform.python_version()} ({sys.executable})",
        "" if fits else f"hallujax needs Python {wanted}",
    )
    yield Check("platform", "info", platform.platform())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("processor cores", "info", f"{usable} usable of {os.cpu_count()}")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit = _memory_limit()
        limited = f", limited to {limit / 2**30:.1f} GiB here" if limit and limit < total else ""
        yield Check("memory", "info", f"{total / 2**30:.1f} GiB{limited}")
    yield Check("disk", "info", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free in {os.getcwd()}")


def _memory_limit() -> int | None:
    """The control group's limit in bytes, as containers set it."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(pathlib.Path(path).read_text())
        except (OSError, ValueError):
            continue
    return None


def _packages() -> Iterator[Check]:
    """The core packages, in the ranges that hallujax's own metadata declares."""
    yield Check("hallujax", "ok", importlib.metadata.version("hallujax"))
    try:
        core = [requirement for requirement, extra in _requirements("hallujax") if extra is None]
    except ImportError as error:
        yield Check("packaging", "broken", f"versions cannot be compared: {error}", "pip install packaging")
        return
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # no jax: said below
        # jax alone says which jaxlib it runs with.
        core += [found for found, extra in _requirements("jax") if found.name == "jaxlib" and extra is None]
    for requirement in core:
        yield _package(requirement, "broken", "pip install --upgrade hallujax")


def _package(requirement: Any, status: str, remedy: str, purpose: str = "") -> Check:
    """`status` and `remedy` are for a package that is absent or outside the requirement's range."""
    suffix = f": {purpose}" if purpose else ""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(requirement.name, status, f"not installed{suffix}", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, status, f"{version}, outside {requirement.specifier}{suffix}", remedy)
    return Check(requirement.name, "ok", f"{version}{suffix}")


def _requirements(package: str) -> Iterator[tuple[Any, str | None]]:
    """(requirement, its extra or None) that apply here; extras made of other extras are left out."""
    from packaging.requirements import Requirement

    extras = importlib.metadata.metadata(package).get_all("Provides-Extra") or []
    for text in importlib.metadata.requires(package) or []:
        requirement = Requirement(text)
        if requirement.name == package:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement, None
            continue
        yield from ((requirement, extra) for extra in extras if requirement.marker.evaluate({"extra": extra}))


def _devices() -> Iterator[Check]:
    """The accelerator JAX sees, whether it computes, and where compiled programs are kept."""
    try:
        import jax
        import jax.numpy as jnp

        devices = jax.devices()
        total = float(jnp.ones((8, 8)).sum())
    except Exception as error:  # whatever a broken driver or wheel raises is the finding
        yield Check("devices", "broken", f"JAX does not run: {error}", "see https://docs.jax.dev/installation")
        return
    if total != 64.0:
        yield Check("devices", "broken", f"{devices[0]} computes 8 * 8 = {total}", "reinstall jax and jaxlib")
        return
    kinds = ", ".join(f"{kind} × {sum(d.device_kind == kind for d in devices)}" for kind in _kinds(devices))
    yield Check("devices", "ok", f"{jax.default_backend()}: {kinds}")
    if jax.default_backend() == "cpu" and shutil.which("nvidia-smi"):
        remedy = "pip install 'hallujax[cuda12]'"
        yield Check("GPU", "missing", "nvidia-smi is here, but JAX uses the processor", remedy)
    yield _compile_cache(jax.config.jax_compilation_cache_dir)


def _kinds(devices: Sequence) -> list[str]:
    return list(dict.fromkeys(device.device_kind for device in devices))


def _compile_cache(directory: str | None) -> Check:
    if not directory:
        remedy = "to keep compiled programs: export JAX_COMPILATION_CACHE_DIR=~/.cache/jax"
        return Check("compile cache", "info", "none: every start compiles anew", remedy)
    if "://" in directory:
        return Check("compile cache", "info", f"{directory} (remote, not checked)")
    path = pathlib.Path(directory).expanduser()
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(nearest, os.W_OK):
        remedy = "set JAX_COMPILATION_CACHE_DIR to a folder you may write to"
        return Check("compile cache", "missing", f"{path} cannot be written to", remedy)
    held = f"{sum(1 for _ in path.iterdir())} files" if path.is_dir() else "not made yet"
    return Check("compile cache", "ok", f"{path}, {held}")


def _optional() -> Iterator[Check]:
    """The extras' packages; those that only add plugins to jax are what the device check is about."""
    extras: dict[str, tuple[Any, str]] = {}
    with contextlib.suppress(ImportError):  # without `packaging`, which `_packages` has said by now
        for requirement, extra in _requirements("hallujax"):
            if extra is not None and not requirement.extras:
                extras.setdefault(requirement.name, (requirement, extra))
    for name, (requirement, extra) in extras.items():
        yield _package(requirement, "missing", f"pip install 'hallujax[{extra}]'", PURPOSES.get(name, ""))


def _datasets(data_dirs: Sequence[os.PathLike | str]) -> Iterator[Check]:
    """Prepared datasets in each of `data_dirs` or at most two folders below; in `data/` if there are none."""
    for directory in map(pathlib.Path, data_dirs or ["data"]):
        described = sorted(path for depth in ("", "*/", "*/*/") for path in directory.glob(f"{depth}dataset.json"))
        if not described:
            reason = "holds no prepared dataset" if directory.is_dir() else "does not exist"
            yield Check("datasets", "missing", f"{directory} {reason}", "hallujax prepare, or hallujax demo")
        for path in described:
            yield _dataset(path.parent)


def _dataset(directory: pathlib.Path) -> Check:
    from hallujax.data.records import PreparedDataset
    from hallujax.errors import DataError

    try:
        dataset = PreparedDataset.open(directory)
    except (DataError, OSError, json.JSONDecodeError) as error:
        return Check(f"dataset {directory.name}", "missing", str(error), f"delete {directory} and prepare again")
    modalities = ", ".join(dataset.modalities)
    found = f"{len(dataset)} clips, {len(dataset.classes)} classes, {modalities} in {directory}"
    return Check(f"dataset {dataset.name}", "ok", found)
