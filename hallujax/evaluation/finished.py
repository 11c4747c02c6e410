"""Finished runs read back: their seeds, configuration, dataset and networks."""

import pathlib
from typing import Any

from hallujax import paths, sealed
from hallujax.data.records import PreparedDataset
from hallujax.errors import CheckpointError, DataError, UsageError
from hallujax.experiment import Experiment, from_json
from hallujax.training.checkpoint import read_networks
from hallujax.training.summary import is_done


def seed_folders(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """`{seed: workdir}` of a table's folder, or of one workdir; seeds that the table wants and that left nothing too.

    Raises:
      UsageError: if the folder holds no run.
    """
    if (folder / "run.json").exists():
        return {read_experiment(folder).seed: folder}
    found = {path.parent for path in folder.glob("seed*/run.json")}
    if not found:
        raise UsageError(f"{folder} is no workdir: neither it nor a seed's folder in it has a run.json")
    wanted = set()
    if (folder / "table.json").exists():
        rows = sealed.read(folder / "table.json", "evaluate again")["rows"]
        wanted = {folder / f"seed{seed}" for row in rows for seed in row["accuracies"]}
    return dict(sorted((int(path.name.removeprefix("seed")), path) for path in found | wanted))


def read_experiment(workdir: pathlib.Path) -> Experiment:
    """What a workdir was trained from.

    Raises:
      UsageError: if it is no workdir.
    """
    if not (workdir / "run.json").exists():
        seeds = sorted(path.name for path in workdir.glob("seed*") if (path / "run.json").exists())
        hint = f"; did you mean {workdir / seeds[0]}?" if seeds else ""
        raise UsageError(f"{workdir} is no workdir: it has no run.json{hint}")
    return from_json(read_settings(workdir)["config"])


def read_settings(workdir: pathlib.Path) -> dict[str, Any]:
    """What made a run, as `training.stages.describe_run` said it.

    Raises:
      CheckpointError: if run.json is damaged.
    """
    remedy = "the command that trained it writes it again, and keeps what is finished"
    found = sealed.read(workdir / "run.json", remedy)
    if "config" not in found:
        raise CheckpointError(f"{workdir / 'run.json'} is damaged: it holds no configuration; {remedy}")
    return found


def open_dataset(experiment: Experiment, data: pathlib.Path | None) -> PreparedDataset:
    """The dataset of an experiment, in the folder `data` if it is not where it was at training."""
    return PreparedDataset.open((data or paths.as_path(experiment.data.directory)) / experiment.data.dataset)


def restore(stage: pathlib.Path, dataset: PreparedDataset) -> dict[str, Any]:
    """`{"params", "batch_stats"}` of a finished stage's folder.

    Raises:
      CheckpointError: if the stage is not finished, or cannot be read.
      DataError: if it was trained on another dataset.
    """
    if not is_done(stage):
        raise CheckpointError(f"{stage} is not finished; the command that started it continues it")
    remedy = f"remove the folder {stage} to train that stage again"
    trained_on = sealed.read(stage / "config.json", remedy).get("dataset_fingerprint")
    if trained_on is None:
        raise CheckpointError(f"{stage / 'config.json'} is damaged: it names no dataset; {remedy}")
    if trained_on != dataset.fingerprint:
        raise DataError(
            f"{stage.name} was trained on another {dataset.name} ({trained_on[:12]}) than the one in "
            f"{dataset.directory.parent} ({dataset.fingerprint[:12]}): its predictions would not be comparable"
        )
    return read_networks(stage)
