"""`hallujax doctor`: the machine."""

import argparse
import contextlib
import pathlib
from collections.abc import Sequence

from hallujax.cli.cache import compile_cache


def add(command) -> None:
    """Declares the command; `command` as in `hallujax.cli`."""
    sub = command("doctor", _doctor, "say what this machine has, and what is missing for what")
    sub.add_argument("data", type=pathlib.Path, nargs="*", help="folders of prepared datasets to look at")


def _doctor(options: argparse.Namespace, rest: Sequence[str]) -> int:
    del rest
    with contextlib.suppress(ImportError):  # which the doctor will say
        compile_cache()
    from hallujax.doctor import report

    return report(options.data)
