"""`hallujax plan`: reads what the clips are like, plans, prints."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from hallujax.data.flow import FLOW
from hallujax.data.joints import JOINTS, mirrored_joints
from hallujax.data.pipeline import ClipLoader
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError
from hallujax.experiment import Experiment
from hallujax.plan.devices import read_machine
from hallujax.plan.estimate import BANDWIDTH_REACHED, PEAK_REACHED, Plan, StagePlan, plan
from hallujax.plan.stage import Clip
from hallujax.training.input import training_rows
from hallujax.training.stages import for_dataset
from hallujax.training.start import build_method

# Classes, and pixels a side as `hallujax prepare` writes them unless told otherwise.
DATASETS = {
    "mocap_rgbd": (15, 112),
    "rgbd_objects": (14, 64),
    "ntu_rgbd60": (60, 256),
    "ntu_rgbd120": (120, 256),
    "nw_ucla": (10, 256),
    "uwa3dii": (30, 256),
    "nyud_objects": (19, 256),
}


def run(
    experiment: Experiment,
    devices: str,
    *,
    stage: str = "",
    size: int | None = None,
    classes: int | None = None,
    clips: int | None = None,
    out: pathlib.Path | None = None,
) -> int:
    """Plans a configuration and prints the plan; 0 if every stage fits, else 1.

    Args:
      devices: see `devices.read_machine`.
      stage: the only one to plan; all if empty.
      size, classes, clips: pixels a side, K, training clips, instead of the dataset's; needed where it is not here.
      out: a JSON file to write too.

    Raises:
      UsageError: as `plan`, and if the dataset is not here and its classes or size are not known.
    """
    machine = read_machine(devices)
    console = Console(highlight=False)
    console.width = max(console.width, 88)  # what the tables take; a narrower terminal wraps their lines
    clip, experiment, known = _clip(experiment, size, classes)
    counts = {name: clips for name in experiment.stages} if clips else known
    with console.status("") as status:
        planned = plan(
            experiment, machine, clip, counts, only=stage, said=lambda line: status.update(f"tracing {line}")
        )
    _print(planned, console)
    if out is not None:
        out.write_text(json.dumps(_as_json(planned), indent=1) + "\n")
    return 0 if planned.fits else 1


def _clip(experiment: Experiment, size: int | None, classes: int | None) -> tuple[Clip, Experiment, Mapping[str, int]]:
    """What a batch has for a clip, the experiment with the dataset's camera, and training clips by stage.

    As the dataset says, if it is here, and its pictures are not to be of another size.
    """
    name = experiment.data.dataset
    directory = pathlib.Path(experiment.data.directory) / name
    dataset = PreparedDataset.open(directory) if (directory / "dataset.json").exists() else None
    counts: Mapping[str, int] = {}
    if dataset is not None:
        splits = split(dataset, experiment.data.protocol)
        counts = {n: len(training_rows(experiment, s, dataset, splits)) for n, s in experiment.stages.items()}
        classes = classes or len(dataset.classes)
        experiment = for_dataset(experiment, dataset)
    usual_classes, usual_size = DATASETS.get(name, (None, None))
    classes = classes or usual_classes
    if classes is None:
        raise UsageError(f"{directory} is not here, and how many classes {name} has is not known: say --classes")
    seen = {m for s in experiment.stages.values() for m in build_method(s, classes).modalities.values()}
    if dataset is not None and size is None:
        loader = ClipLoader(dataset, sorted(seen), frames=experiment.data.frames, sampling="uniform", seed=0)
        example = loader(np.zeros(1, np.int64), splits["train"][:1])
        shapes = {m: jax.ShapeDtypeStruct(example[m].shape[1:], example[m].dtype) for m in seen}
        mirror = mirrored_joints(name, dataset.info["joint_names"]) if JOINTS in seen else ()
        return Clip(shapes, classes, mirror), experiment, counts
    size = size or usual_size
    if size is None:
        raise UsageError(f"{directory} is not here, and how large its pictures are is not known: say --size")
    if JOINTS in seen:
        raise UsageError(f"how many {JOINTS} {name} has only the dataset says: prepare {directory}, leave out --size")
    pictures = (experiment.data.frames, size, size)
    depth = ((*pictures, 3), np.uint8) if experiment.transforms.depth_encoding == "picture" else (pictures, np.uint16)
    layouts = {"rgb": ((*pictures, 3), np.uint8), "depth": depth, FLOW: ((*pictures, 2), np.float32)}
    return Clip({m: jax.ShapeDtypeStruct(*layouts[m]) for m in seen}, classes), experiment, counts


def _print(planned: Plan, console: Console) -> None:
    machine, stages = planned.machine, planned.stages
    cut = f", the state cut over {planned.model}, {planned.data} copies of it" if planned.model > 1 else ""
    console.print(f"{machine.count} x {machine.name}, {_giga(stages[0].usable)} GB usable on each{cut}")
    console.print("\n[bold]memory of a device, MB[/]")
    _print_table(
        console,
        ("stage", "clips", "params", "optimiser", "batch", "activations", "in all", "of usable"),
        [
            (
                stage.name,
                f"{stage.clips_on_a_device:,}",
                _mega(stage.parameters + stage.statistics),
                _mega(stage.optimizer),
                _mega(stage.batch),
                _mega(stage.temporaries + stage.gathered),
                _mega(stage.memory),
                f"{stage.memory / stage.usable:.0%}" + ("" if stage.fits else " [bold red]NO[/]"),
            )
            for stage in stages
        ],
    )
    console.print("\n[bold]a step of a device[/]")
    _print_table(
        console,
        ("stage", "GFLOP", "GB moved", "ms", "and all-reduce", "steps", "device-hours"),
        [
            (
                stage.name,
                f"{stage.flops / 1e9:,.1f}",
                _giga(stage.traffic),
                _or_dash(stage.compute, lambda seconds: f"{1e3 * seconds:.3g}"),
                _or_dash(stage.communicate, lambda seconds: f"{1e3 * seconds:.3g}"),
                _or_dash(stage.steps, lambda steps: f"{steps:,}"),
                _or_dash(stage.hours(machine.count), lambda hours: f"{hours:.3g}"),
            )
            for stage in stages
        ],
    )
    console.print()
    for stage in stages:
        if stage.remedies:
            console.print(f"{stage.name} fits with {'; or '.join(stage.remedies)}", markup=False, soft_wrap=True)
    console.print(_totals(planned), markup=False, soft_wrap=True)
    for line in _caveats(planned):
        console.print(line, markup=False, soft_wrap=True, style="dim")


def _print_table(console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "stage" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _mega(count: float) -> str:
    mega = count / 1e6
    return f"{mega:.2g}" if mega < 1 else f"{mega:,.1f}" if mega < 100 else f"{mega:,.0f}"


def _giga(count: float) -> str:
    return f"{count / 1e9:,.3g}"


def _or_dash(value: float | None, text: Callable[[float], str]) -> str:
    return "-" if value is None else text(value)


def _totals(planned: Plan) -> str:
    hours = planned.hours
    if hours is not None:
        time = f"At least {hours:.3g} device-hours, {hours / planned.machine.count:.3g} hours on the clock"
    elif planned.machine.name == "cpu":
        time = "How long a step takes on this processor no sheet says: train a few"
    else:
        time = "How many clips are trained on is not known: --clips gives the hours"
    return f"{time}. Checkpoints: up to {_giga(planned.checkpoints)} GB on disk."


def _caveats(planned: Plan) -> list[str]:
    """What the numbers are worth, one line each."""
    machine = planned.machine
    lines = [
        "Exact: parameters, optimiser, batch, checkpoints (before compression), products' FLOPs.",
        "Modelled from the step's jaxpr: activations and traffic (docs/plan.md says how close to three compilers).",
    ]
    if machine.accelerator.bandwidth:
        lines.append(
            f"A bound: ms, a roofline at {BANDWIDTH_REACHED:.0%} of {machine.accelerator.bandwidth / 1e9:,.0f} GB/s "
            f"and {PEAK_REACHED:.0%} of the peak; all-reduces at the links' full rate. Evaluation, input, compilation "
            f"and stops come on top. Rates: {machine.accelerator.source}."
        )
    return lines


def _as_json(planned: Plan) -> dict[str, Any]:
    machine = planned.machine
    return {
        "devices": machine.asked,
        "accelerator": machine.name,
        "count": machine.count,
        "mesh": {"data": planned.data, "model": planned.model},
        "facts": dataclasses.asdict(machine.accelerator),
        "bandwidth_reached": BANDWIDTH_REACHED,
        "peak_reached": PEAK_REACHED,
        "fits": planned.fits,
        "device_hours": planned.hours,
        "checkpoint_bytes": planned.checkpoints,
        "stages": [_stage_as_json(stage, machine.count) for stage in planned.stages],
    }


def _stage_as_json(stage: StagePlan, devices: int) -> dict[str, Any]:
    found = {"memory": stage.memory, "fits": stage.fits, "seconds": stage.seconds, "device_hours": stage.hours(devices)}
    return dataclasses.asdict(stage) | found
