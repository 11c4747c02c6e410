"""A table one of whose stages has numbers that are not finite: the other rows go on, and all of it is told."""

import csv
import dataclasses
import json

import pytest

from hallujax import tables
from hallujax.errors import NotFiniteError


@pytest.fixture(scope="module")
def table(experiment, tmp_path_factory):
    """Depth diverges, so the control, which starts from it, is left out; RGB is trained. And what was said, when."""
    keep = ("depth", "control", "rgb")
    stages = {name: experiment.stages[name] for name in keep}
    wild = dataclasses.replace(stages["depth"].optimizer, learning_rate=1e30)
    stages["depth"] = dataclasses.replace(stages["depth"], optimizer=wild)
    systems = tuple(system for system in experiment.systems if set(system.stages) <= set(keep))
    chosen = dataclasses.replace(experiment, stages=stages, systems=systems)
    out = tmp_path_factory.mktemp("table")
    with pytest.raises(NotFiniteError) as error:
        tables.train_table(chosen, out, 1, command="hallujax table")
    return chosen, out, str(error.value)


def test_the_other_rows_have_their_numbers_and_the_failed_ones_are_missing(table):
    _, out, _ = table
    rows = {row["method"]: row for row in csv.DictReader((out / "table.csv").open())}
    assert float(rows["RGB"]["seed0"]) >= 0
    for name in ("Depth", "RGB from depth (control)", "RGB + control"):
        assert rows[name]["seed0"] == rows[name]["mean"] == ""
    assert not (out / "seed0" / "control" / "checkpoints").exists()


def test_stage_and_step_are_reported_at_the_end_and_in_the_table(table):
    _, out, said = table
    assert said.startswith("the table lacks what rests on 1 stages that failed; seed 0: ")
    assert "stage depth at step" in said
    rows = {row["method"]: row for row in json.loads((out / "table.json").read_text())["rows"]}
    assert rows["RGB"]["note"] == ""
    assert "seed 0 failed: " in rows["RGB + control"]["note"] and "at step" in rows["RGB + control"]["note"]
    assert "Depth: seed 0 failed: " in (out / "table.md").read_text()


def test_the_table_is_written_after_every_stage(table, monkeypatch):
    """Going on with a finished stage removed: what is on disk when the next one is asked for has all that is done."""
    chosen, out, _ = table
    seen = []
    real = tables.write_table

    def spy(folder, rows, facts):
        real(folder, rows, facts)
        seen.append({row["method"]: row["mean"] for row in rows})

    monkeypatch.setattr(tables, "write_table", spy)
    good = dataclasses.replace(chosen, stages={n: s for n, s in chosen.stages.items() if n == "rgb"})
    good = dataclasses.replace(good, systems=tuple(s for s in chosen.systems if s.stages == ("rgb",)))
    (out / "seed0" / "rgb" / "stage.json").unlink()
    tables.train_table(good, out, 1, command="hallujax table")
    assert [rows["RGB"] is None for rows in seen] == [True, False, False]  # at the start, after the stage, at the end
