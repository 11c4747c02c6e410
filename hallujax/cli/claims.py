"""`hallujax compare`, `teachers` and `sensitivity`: what a finished table says, a figure and its numbers each."""

import argparse
from collections.abc import Sequence

from hallujax.cli.folders import folder


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
    sub = command("compare", _compare, "what distillation adds over labels alone, with intervals, at which budget")
    sub.add_argument("--workdir", type=folder, nargs="+", required=True, help="tables' folders, side by side")
    sub.add_argument("--out", type=folder, help="where compare.csv and .svg go (the first workdir)")

    sub = command("teachers", _teachers, "what weak, inverted and several teachers give their students")
    sub.add_argument("--workdir", type=folder, required=True, help="a table's folder")
    sub.add_argument("--out", type=folder, help="where teachers.csv and .svg go (the workdir)")

    sub = command("sensitivity", _sensitivity, "how much step 3 and ADMD depend on their settings")
    sub.add_argument("--workdir", type=folder, required=True, help="a table's folder, of configs/sensitivity.py")
    sub.add_argument("--out", type=folder, help="where sensitivity.csv and .svg go (the workdir)")


def _compare(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.evaluation.advantage import compare_runs

    compare_runs(options.workdir, options.out or options.workdir[0])


def _teachers(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.evaluation.lessons import measure_lessons

    measure_lessons(options.workdir, options.out or options.workdir)


def _sensitivity(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.evaluation.sensitivity import measure_sensitivity

    measure_sensitivity(options.workdir, options.out or options.workdir)
