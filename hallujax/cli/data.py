"""`hallujax prepare` and `inspect`: datasets."""

import argparse
import importlib
import pathlib
import shlex
from collections.abc import Sequence

from hallujax.cli.folders import local_folder
from hallujax.data.fingerprint import RENDERED
from hallujax.errors import UsageError

DATASETS = (*RENDERED, "folder", "ntu_rgbd60", "ntu_rgbd120", "nw_ucla", "uwa3dii", "nyud_objects")


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
    sub = command("prepare", _prepare, "write a dataset in the format that training reads")
    sub.add_argument("dataset", choices=DATASETS)
    sub.add_argument("--out", type=local_folder, required=True, help="the dataset becomes a folder in this one")
    sub.add_argument("--workers", type=int, help="processes (as many as cores)")
    sub.add_argument(
        "--preset", default="standard", help="rendered sets: tiny, quick, standard; full mocap_rgbd (%(default)s)"
    )
    sub.add_argument("--seed", type=int, default=0, help="rendered sets: of everything random (%(default)s)")
    sub.add_argument("--raw", type=pathlib.Path, help="all others: folder of the raw files")
    sub.add_argument("--size", type=int, default=256, help="all others: pixels a side (%(default)s)")
    sub.add_argument("--modalities", default="", help="all others: that every clip must have, as rgb,depth")
    sub.add_argument("--strict", action="store_true", help="all others: write nothing if a clip is refused")
    sub.add_argument("--beam", metavar="FLAGS", help="all others: on Apache Beam, as --beam='--runner=DirectRunner'")

    sub = command("inspect", _inspect, "say what is in a prepared dataset, what looks wrong, and show some clips")
    sub.add_argument("directory", type=local_folder, help="a dataset's folder, or one that holds datasets")
    sub.add_argument("--sheet", type=pathlib.Path, help="PNG of some clips (contact_sheet.png in the dataset)")
    sub.add_argument(
        "--verify", action="store_true", help="read and decode every record first; exit code 1 if any fail"
    )


def _prepare(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    if options.dataset in RENDERED:
        prepare = importlib.import_module(f"data_prep.{options.dataset}").prepare
        prepare(options.out, preset=options.preset, seed=options.seed, workers=options.workers)
        return
    if options.raw is None:
        raise UsageError(f"{options.dataset} is made from files of yours: say where they are with --raw DIR")
    importlib.import_module("data_prep.raw").prepare(
        options.dataset,
        options.raw,
        options.out,
        size=options.size,
        modalities=tuple(filter(None, options.modalities.split(","))),
        workers=options.workers,
        strict=options.strict,
        beam_flags=None if options.beam is None else shlex.split(options.beam),
    )


def _inspect(options: argparse.Namespace, rest: Sequence[str]) -> int:
    del rest
    inspect = importlib.import_module("data_prep.inspection").inspect
    return 0 if inspect(options.directory, options.sheet, verify=options.verify) else 1
