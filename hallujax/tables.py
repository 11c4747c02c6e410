"""Tables trained: one configuration over several seeds, a folder a seed, tabulated as far as it has come."""

import dataclasses
import pathlib
import signal
import sys
import textwrap
from collections.abc import Mapping

from hallujax import paths
from hallujax.console import Console
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import NotFiniteError, UsageError
from hallujax.evaluation.evaluate import evaluators, predictions_path
from hallujax.evaluation.finished import open_dataset, read_experiment, restore
from hallujax.evaluation.table import cells, system_predictions, tabulate, write_table
from hallujax.experiment import Experiment
from hallujax.training import processes
from hallujax.training.earlier import with_earlier
from hallujax.training.processes import is_first
from hallujax.training.sharding import make_mesh
from hallujax.training.stages import finished, for_dataset, train, work_left
from hallujax.training.start import build_method
from hallujax.training.stop import Stopped
from hallujax.training.summary import read_summary

_WIDTH_OF_A_FILE = 200  # characters


def train_table(experiment: Experiment, out: pathlib.Path, seeds: int, *, command: str) -> None:
    """Trains an experiment for seeds 0 to `seeds - 1` in `out/seedN`, and writes the table after every stage.

    The table has the systems of other configurations that were trained in `out` before, too.

    Finished stages are kept and half-finished ones continued, so a killed table goes on with the same command. A stage
    whose numbers are not finite costs the rows that rest on it this seed, and no other row.

    Raises:
      UsageError: if there is no seed to train.
      NotFiniteError: after everything else, naming the stages that failed.
      HallujaxError: as `training.stages.train`.
    """
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; at least one is needed")
    dataset = PreparedDataset.open(paths.as_path(experiment.data.directory) / experiment.data.dataset)
    experiment = for_dataset(experiment, dataset)
    splits = split(dataset, experiment.data.protocol)
    workdirs = {seed: out / f"seed{seed}" for seed in range(seeds)}
    work = [work_left(experiment, workdir, dataset, splits) for workdir in workdirs.values()]
    facts = {
        "dataset": dataset.name,
        "protocol": experiment.data.protocol,
        "preset": dataset.info.get("preset"),
        "classes": list(dataset.classes),
        "command": command,
    }
    failures: dict[int, dict[str, str]] = {seed: {} for seed in workdirs}

    def tabulated() -> list[dict]:
        rows = tabulate(with_earlier(experiment, workdirs.values()), workdirs, failures)
        write_table(out, rows, facts | {"seconds": _seconds(workdirs)})
        return rows

    if is_first():
        out.mkdir(parents=True, exist_ok=True)
        tabulated()  # what is wrong with a row is said before hours of training
    with Console(sum(total for total, _ in work), done=sum(done for _, done in work)) as console:
        for seed, workdir in workdirs.items():
            train(
                dataclasses.replace(experiment, seed=seed),
                workdir,
                console,
                after_stage=tabulated if is_first() else lambda: None,
                failures=failures[seed],
            )
    if is_first():
        print_table(tabulated())
    _report_failures(failures)


def _report_failures(failures: Mapping[int, Mapping[str, str]]) -> None:
    said = [f"seed {seed}: {why}" for seed, stages in failures.items() for why in stages.values()]
    if said:
        raise NotFiniteError(f"the table lacks what rests on {len(said)} stages that failed; {'; '.join(said)}")


def _seconds(workdirs: dict[int, pathlib.Path]) -> float:
    """Trained in all, over every start."""
    summaries = [path for workdir in workdirs.values() for path in workdir.glob("*/stage.json")]
    return round(sum(read_summary(path.parent)["seconds"] for path in summaries), 1)


def print_table(rows: list[dict]) -> None:
    """The table on the terminal, without the last columns if it is too narrow for them; the whole of it in a file."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    header, *lines = cells(rows)
    console = RichConsole(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    for shown in range(len(header), 2, -1):
        table = Table()
        for i, title in enumerate(header[:shown]):
            table.add_column("\n".join(textwrap.wrap(title, 14)), justify="left" if i < 2 else "right", no_wrap=i > 0)
        for line in lines:
            table.add_row(*line[:shown])
        if console.measure(table, options=console.options.update(max_width=_WIDTH_OF_A_FILE)).maximum <= console.width:
            break
    console.print(table)
    if shown < len(header):
        console.print(f"left out, the terminal is too narrow: {', '.join(header[shown:])}")


def evaluate_again(workdir: pathlib.Path, split_name: str, data: pathlib.Path | None) -> None:
    """Evaluates every finished stage of a workdir from its checkpoint, writes its predictions and prints the systems.

    Args:
      workdir: of `hallujax train`, or one seed's of a table.
      split_name: `validation` or `test`.
      data: folder of the prepared datasets, if not where it was at training.

    Raises:
      UsageError: if the folder holds no run.
      Stopped: in several processes, of which one got SIGTERM.
      DataError, CheckpointError: if what it was trained on or wrote cannot be read.
    """
    experiment = read_experiment(workdir)
    dataset = open_dataset(experiment, data)
    rows = split(dataset, experiment.data.protocol)[split_name]
    done = finished(experiment, workdir)
    for stage in experiment.order():
        if stage.name not in done:
            print(f"{stage.name}: not finished")
            continue
        if processes.several() and processes.stop_together():
            raise Stopped(signal.SIGTERM, f"stopped before {stage.name}; the same command evaluates again")
        method = build_method(stage, len(dataset.classes))
        networks = restore(workdir / stage.name, dataset)
        arguments = (method, dataset, experiment.data, experiment.transforms, make_mesh())
        for seen, evaluator in evaluators(*arguments).items():
            predictions = evaluator.predict(networks["params"], networks["batch_stats"], rows)
            if is_first():
                predictions.save(predictions_path(workdir / stage.name, split_name, seen))
    for system in experiment.systems if is_first() else ():
        if done.issuperset(system.stages):
            accuracy = system_predictions(system, workdir, split_name).accuracy
            print(f"{system.name:32} {split_name} accuracy {100 * accuracy:.2f} % of {len(rows)} clips")
