"""R4, R6, R7: whatever happens to a file, its values come back, or a line says where it is damaged."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
import two_stages_config
from harm import tally
from victims import left_by

from hallujax import sealed
from hallujax.console import Console
from hallujax.data.records import PreparedDataset
from hallujax.deploy import run as deployed
from hallujax.evaluation import finished, runs
from hallujax.evaluation.table import tabulate
from hallujax.experiment import read_config
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.stages import train
from hallujax.training.state import TrainState


def both(short: int, long: int):
    return pytest.mark.parametrize("count", [short, pytest.param(long, marks=pytest.mark.slow)])


def plain(tree) -> dict[str, str]:
    """Arrays as digests, anything else as it is printed."""
    return {
        jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        if hasattr(leaf, "dtype")
        else repr(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def files_under(folder):
    return lambda: sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def checkpoints(tmp_path):
    """`latest` of two steps and `best` of two."""

    def state_of(step):
        values = jax.random.normal(jax.random.key(step), (40, 50))
        return TrainState(
            jax.numpy.int32(step), {"rgb": {"w": values}}, {"rgb": {"mean": values[0]}}, {"rgb": {"m": -values}}
        )

    saved = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        state = state_of(step)
        saved.save_best(step, {"params": state.params, "batch_stats": state.batch_stats})
        saved.save(step, state, {"position": 16 * step})
    saved.close()
    return tmp_path / "checkpoints", state_of(0)


@both(20, 250)
def test_checkpoints_to_continue_from(checkpoints, tmp_path, figures, count):
    """What is restored is the last that is whole; the one before it where the last is damaged, and that is said."""
    folder, template = checkpoints

    def read():
        copy = tmp_path / "copy"  # what is damaged is set aside
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        opened = Checkpoints(copy)
        try:
            return plain(opened.restore(template)), list(opened.noticed)
        finally:
            opened.close()

    found = tally(count, 1, files_under(folder / "latest"), read, also=("latest/2", "step 2"))
    figures("checkpoint: identical, refused by name, or the one before it", damages=count, outcomes=found)


@both(10, 100)
def test_best_networks(checkpoints, figures, count):
    folder, _ = checkpoints

    def read():
        opened = Checkpoints(folder)
        try:
            return plain(opened.restore_best(2)), []
        finally:
            opened.close()

    found = tally(count, 2, files_under(folder / "best" / "2"), read, also=("best/2",))
    figures("best networks: identical, or refused by name", damages=count, outcomes=found)


@both(15, 250)
def test_prepared_data(tiny, tmp_path, figures, count):
    """Index, description and every frame; TFDS's own descriptions are there too, and not read by hallujax."""
    folder = shutil.copytree(tiny, tmp_path / "mocap_rgbd")

    def read():
        dataset = PreparedDataset.open(folder)
        rows = np.arange(len(dataset))
        frames = {
            name: plain(dataset.read(name, rows, np.tile(np.arange(5), (len(rows), 1)))) for name in dataset.modalities
        }
        index = hashlib.sha256(np.asarray(dataset.index).tobytes()).hexdigest()
        return frames | {"index": index, "info": {key: dataset.info.get(key) for key in keys}}, []

    keys = json.loads((folder / "dataset.json").read_text()).keys() - {sealed.SEAL}
    clips = [clip.decode() for clip in PreparedDataset.open(folder).index["clip"]]
    modalities = [f"{folder}/{name}" for name in ("rgb", "depth", "joints")]
    found = tally(count, 3, files_under(folder), read, also=(*clips, *modalities))
    figures("prepared data: identical, or refused by name", damages=count, outcomes=found)


RUN_FILES = (
    "run.json",
    "config.json",
    "stage.json",
    "metrics.jsonl",
    "predictions_validation.npz",
    "predictions_test.npz",
)


@both(24, 250)
def test_files_of_a_run(straight, tiny, tmp_path, figures, count):
    """Through all that reads a workdir: the table, the report, deployment, and the same command once more."""
    folder = shutil.copytree(straight[0], tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard"))
    experiment = read_config(two_stages_config.get_config(str(tiny.parent)))
    files = [path for path in files_under(folder)() if path.name in RUN_FILES]
    shown = ("steps", "clip_passes", "networks", "test_modalities", "seconds")
    known = runs.read_run(folder).problems  # a workdir alone has no table.json, which is said

    def missing(rows):  # the word that stands in the table
        return [f"stage {stage}: missing" for row in rows if row["mean"] is None for stage in row["stages"]]

    def table():
        again = finished.read_experiment(folder)
        rows = tabulate(again, {0: folder})
        return {"rows": rows, "experiment": repr(again)}, missing(rows)

    def report():
        found = runs.read_run(folder)
        stages = {
            stage.name: (
                stage.state,
                {key: stage.info.get(key) for key in shown},
                stage.training,
                stage.validation,
                stage.test and plain(vars(stage.test)),
            )
            for stage in found.stages
        }
        return {
            "rows": repr(found.rows),
            "config": found.settings.get("config"),
            "dataset": found.settings.get("dataset"),
        } | stages, [line for line in found.problems if line not in known]

    def deployment():
        found = deployed.read_run(folder, "ADMD hallucination")
        return {"facts": repr(found.facts), "system": repr(found.system)} | plain(found.variables), []

    def again():
        copy = tmp_path / "again"  # what is not finished any more is trained again
        shutil.rmtree(copy, ignore_errors=True)
        train(experiment, shutil.copytree(folder, copy), Console())
        rows = tabulate(experiment, {0: copy})  # what the command ends with
        return left_by(copy), missing(rows)

    also = [str(folder / "admd"), str(folder / "depth"), "stage admd", "stage depth"]
    readers = {table: 0.35, report: 0.35, deployment: 0.2, again: 0.1}
    found = {
        read.__name__: tally(
            round(share * count),
            10 + number,
            lambda: files,
            read,
            also,
        )
        for number, (read, share) in enumerate(readers.items())
    }
    figures("a run's files: identical, refused or named as a problem", damages=count, outcomes=found)
