"""One configuration after the other in one workdir: nothing that an earlier one has earned is lost from sight."""

import dataclasses
import json
import shutil

import pytest

from hallujax import tables
from hallujax.evaluation.finished import read_experiment
from hallujax.training.earlier import with_earlier


@pytest.fixture
def out(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "table" / "seed0")
    return tmp_path / "table"


def only(experiment, stage):
    """Of an experiment, one stage and the systems of it alone."""
    systems = [system for system in experiment.systems if system.stages == (stage,)]
    return dataclasses.replace(experiment, stages={stage: experiment.stages[stage]}, systems=systems)


def names(experiment):
    return [system.name for system in experiment.systems]


def test_a_table_has_the_rows_of_before_too(out, experiment):
    """All stages are there: nothing is trained."""
    tables.train_table(only(experiment, "depth"), out, 1, command="hallujax table")
    rows = {row["method"]: row["mean"] for row in json.loads((out / "table.json").read_text())["rows"]}
    assert list(rows) == names(experiment)
    assert None not in rows.values()
    again = read_experiment(out / "seed0")
    assert list(again.stages) == list(experiment.stages) and names(again) == names(experiment)


def test_a_camera_that_the_dataset_knows_makes_no_other_settings(experiment, tmp_path):
    """What is trained has the dataset's camera in its settings, the next configuration has not yet."""
    transforms = dataclasses.replace(experiment.transforms, depth_encoding="normals", depth_camera=None)
    normals = dataclasses.replace(experiment, transforms=transforms)
    for name in ("depth", "rgb"):
        tables.train_table(only(normals, name), tmp_path, 1, command="hallujax table")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"Depth", "RGB"} and None not in [row["mean"] for row in rows]


def test_what_is_unfinished_or_removed_does_not_count(out, experiment):
    depth = only(experiment, "depth")
    (out / "seed0" / "hallucination" / "stage.json").unlink()
    found = with_earlier(depth, [out / "seed0"])
    assert set(experiment.stages) - set(found.stages) == {"hallucination", "step4"}
    assert "Hallucination (step 3)" not in names(found) and "ADMD two-stream" in names(found)
    shutil.rmtree(out / "seed0")
    assert with_earlier(depth, [out / "seed0"]) == depth


def test_what_was_made_from_other_settings_does_not_count(out, experiment):
    """Another row of the same name, a stage under another ancestor, other data."""
    depth = only(experiment, "depth")
    renamed = dataclasses.replace(depth.systems[0], name="RGB", role=None)
    found = with_earlier(dataclasses.replace(depth, systems=[renamed]), [out / "seed0"])
    assert [system.stages for system in found.systems if system.name == "RGB"] == [("depth",)]
    longer = dataclasses.replace(depth.stages["depth"], epochs=3.0)
    found = with_earlier(dataclasses.replace(depth, stages={"depth": longer}), [out / "seed0"])
    assert set(found.stages) == {"depth", "rgb", "rgb2"}
    few = dataclasses.replace(depth, data=dataclasses.replace(depth.data, labelled=0.5))
    assert with_earlier(few, [out / "seed0"]) == few
