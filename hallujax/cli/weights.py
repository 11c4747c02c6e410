"""`hallujax import-weights` and `export-weights`: image ResNets in, trained streams out."""

import argparse
import pathlib
from collections.abc import Sequence

from hallujax.cli.folders import folder, local_folder
from hallujax.errors import UsageError

NORMALIZATIONS = ("imagenet", "vgg", "none")


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
    sub = command("import-weights", _import, "check an image ResNet's weights and keep them with what they expect")
    sub.add_argument("file", type=pathlib.Path, metavar="FILE", help=".safetensors, .pth or a TensorFlow checkpoint")
    sub.add_argument("--out", type=local_folder, required=True, help="folder to make, for --config.imagenet_weights")
    sub.add_argument("--normalization", choices=NORMALIZATIONS, help="of RGB (what the publisher's weights expect)")
    sub.add_argument("--channels", choices=("rgb", "bgr"), default="rgb", help="their order in FILE (%(default)s)")

    sub = command("export-weights", _export, "write a trained stream under torchvision's names")
    sub.add_argument("run_folder", type=folder, metavar="RUN", help="its workdir")
    sub.add_argument("--stage", required=True, help="a stage of the run")
    sub.add_argument("--network", help="a stream of the stage (the stage's own, if it has one)")
    sub.add_argument("--out", type=pathlib.Path, required=True, help="the .safetensors file to write")


def _import(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    import dataclasses

    from hallujax.models import pretrained
    from hallujax.models.pretrained import imported

    weights = pretrained.read(options.file)
    if options.channels == "bgr":
        weights = imported.from_blue_green_red(weights)
    if options.normalization:
        weights = dataclasses.replace(weights, normalization=options.normalization)
    written = imported.write(weights, options.out, options.file)
    print(f"{written}: {pretrained.describe(weights)}")


def _export(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.evaluation.finished import read_experiment
    from hallujax.models.pretrained.exported import write_torchvision
    from hallujax.training.start import build_method, read_network

    stages = read_experiment(options.run_folder).stages
    if options.stage not in stages:
        raise UsageError(f"{options.run_folder} has no stage {options.stage!r}; it has {', '.join(stages)}")
    stage = stages[options.stage]
    streams = list(build_method(stage, num_classes=1).modalities)  # their names, which do not depend on the classes
    if options.network is None and len(streams) > 1:
        raise UsageError(f"stage {stage.name!r} has several streams: choose one with --network, {', '.join(streams)}")
    network = options.network or streams[0]
    if network not in streams:
        raise UsageError(f"stage {stage.name!r} has no stream {network!r}; it has {', '.join(streams)}")
    if not (options.run_folder / stage.name / "stage.json").exists():
        raise UsageError(f"stage {stage.name!r} of {options.run_folder} is not finished")
    variables = read_network(options.run_folder / stage.name, network)
    left_out = write_torchvision(variables, stage.model["layout"], options.out)
    print(f"{options.out}: {stage.name}/{network}; left out: {', '.join(left_out) or 'nothing'}")
