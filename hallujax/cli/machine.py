"""`hallujax doctor` and `plan`: the machine that is here, and those that are not."""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Sequence

from hallujax.cli.cache import compile_cache
from hallujax.cli.configuration import read_flags
from hallujax.cli.folders import local_folder


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
    sub = command("doctor", _doctor, "say what this machine has, and what is missing for what")
    sub.add_argument("data", type=local_folder, nargs="*", help="folders of prepared datasets to look at")

    sub = command("plan", _plan, "say what a configuration needs of devices that are not here", takes_flags=True)
    sub.epilog = "--config=configs/FILE.py:DATASET,PROTOCOL[,PRESET] is required. Exit code 1: a stage does not fit."
    sub.add_argument("--devices", required=True, help="v5e-64 (a TPU slice), h100x8 (GPUs), cpu: docs/plan.md")
    sub.add_argument("--stage", default="", help="plan this one alone")
    sub.add_argument("--size", type=int, help="pixels a side, of a dataset that is not here or is to be larger")
    sub.add_argument("--classes", type=int, help="of a dataset that is not here")
    sub.add_argument("--clips", type=int, help="training clips, of a dataset that is not here")
    sub.add_argument("--json", type=pathlib.Path, help="write all numbers to this file too")


def _doctor(options: argparse.Namespace, rest: Sequence[str]) -> int:
    del rest
    with contextlib.suppress(ImportError):  # which the doctor will say
        compile_cache()
    from hallujax.doctor import report

    return report(options.data)


def _plan(options: argparse.Namespace, rest: Sequence[str]) -> int:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed: an accelerator that is here stays free
    experiment = read_flags(rest)
    from hallujax.plan.command import run

    return run(
        experiment,
        options.devices,
        stage=options.stage,
        size=options.size,
        classes=options.classes,
        clips=options.clips,
        out=options.json,
    )
