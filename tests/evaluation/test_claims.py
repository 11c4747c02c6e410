"""The commands of the claims, on runs whose every answer is known."""

import contextlib
import csv
import json

import numpy as np
import pytest
from matplotlib.text import Text
from synthetic_run import write_run

from hallujax import cli
from hallujax.errors import UsageError
from hallujax.evaluation import claim_figures, comparison, figures, runs
from hallujax.evaluation.advantage import advantages, compare_runs
from hallujax.evaluation.comparison import Difference
from hallujax.evaluation.lessons import lessons
from hallujax.evaluation.sensitivity import _short, sensitivity


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("claims"), seeds=(0, 1), data=False)


def right(run, stages, seed):
    """Of each clip, whether the mean logits of some stages were right."""
    found = [np.load(run / f"seed{seed}" / stage / "predictions_test.npz") for stage in stages]
    return np.mean([each["logits"] for each in found], axis=0).argmax(1) == found[0]["label"]


def test_compare_is_the_paired_bootstrap_of_every_taught_row_with_every_reference(run, capsys):
    assert cli.main(["compare", "--workdir", str(run)]) == 0
    with (run / "compare.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    taught = {line["system"] for line in lines}
    assert taught == {"Hallucination (step 3)", "Hallucination + RGB (step 4)", "ADMD hallucination", "ADMD two-stream"}
    references = {"RGB", "RGB ensemble", "RGB from depth (control)", "RGB + control"}
    assert {line["reference"] for line in lines} == references
    (line,) = (each for each in lines if (each["system"], each["reference"]) == ("ADMD two-stream", "RGB ensemble"))
    ours, theirs = (np.mean([right(run, s, seed) for seed in (0, 1)], 0) for s in (("admd", "rgb"), ("rgb", "rgb2")))
    expected = comparison.paired_bootstrap(ours, theirs)
    got = [float(line[key]) for key in ("points", "low", "high", "passes_ratio")]
    np.testing.assert_allclose(got, [expected.points, expected.low, expected.high, 1.0], atol=1e-4)
    assert "<svg" in (run / "compare.svg").read_text()
    said = capsys.readouterr().out
    assert f"ADMD two-stream against RGB ensemble: {expected.points:+.1f} points" in said
    assert "1.00 times its clip-passes" in said


def test_several_runs_stand_side_by_side_and_must_have_names(run, tmp_path):
    other = write_run(tmp_path / "few", seeds=(0, 1), data=False)
    compare_runs([run, other], tmp_path / "out")
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        assert {line["run"] for line in csv.DictReader(file)} == {run.name, "few"}
    with pytest.raises(UsageError, match="two of the folders have the same name"):
        compare_runs([other, other], tmp_path / "out")
    write_run(tmp_path / "plain", stages=("rgb", "rgb2"), data=False)
    with pytest.raises(UsageError, match="no finished model taught by more than RGB"):
        compare_runs([tmp_path / "plain"], tmp_path / "out")


def test_a_row_with_a_seed_missing_has_no_interval(tmp_path):
    write_run(tmp_path, seeds=(0, 1), data=False)
    table = json.loads((tmp_path / "table.json").read_text())
    table["rows"][2]["accuracies"]["1"] = None  # the ensemble's
    (tmp_path / "table.json").write_text(json.dumps(table))
    lines = advantages(runs.read_run(tmp_path))
    assert all((line["low"] is None) == (line["reference"] == "RGB ensemble") for line in lines)


def test_a_student_is_measured_by_the_network_that_starts_where_it_does(run):
    found = {line["system"]: line for line in lessons(runs.read_run(run))}
    assert set(found) == {"Hallucination (step 3)", "ADMD hallucination"}
    for line in found.values():
        assert line["teachers"] == "depth" and line["student"] == "rgb"  # step 3's, before its fine-tuning
        assert line["reference"] == "RGB from depth (control)"  # not RGB, which starts from nothing
    depth, admd, control = (
        np.mean([right(run, [stage], seed) for seed in (0, 1)], 0) for stage in ("depth", "admd", "control")
    )
    line = found["ADMD hallucination"]
    assert line["lead"] == pytest.approx(100 * (depth.mean() - control.mean()))
    assert line["points"] == pytest.approx(100 * (admd.mean() - control.mean()))
    assert line["low"] < line["points"] < line["high"]


def test_a_student_of_another_size_has_no_reference(tmp_path):
    write_run(tmp_path, data=False)
    path = tmp_path / "seed0" / "control" / "stage.json"
    stage = json.loads(path.read_text())
    path.write_text(json.dumps(stage | {"parameters": {"rgb": 99}}))
    assert all(line["points"] is line["reference"] is None for line in lessons(runs.read_run(tmp_path)))
    assert cli.main(["teachers", "--workdir", str(tmp_path)]) == UsageError.exit_code


def test_teachers_writes_its_numbers_and_its_figure(run, tmp_path):
    assert cli.main(["teachers", "--workdir", str(run), "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "teachers.csv").read_text().splitlines()) == 3
    assert "<svg" in (tmp_path / "teachers.svg").read_text()


@pytest.mark.parametrize("panels", [1, 3])
@pytest.mark.parametrize("label", ["Hallucination, its teacher with connections", "RGB"])
def test_no_word_of_a_forest_is_cut(panels, label, monkeypatch):
    drawn = []

    @contextlib.contextmanager
    def kept(width, height):
        with figures.canvas(width, height) as (figure, uris):
            yield figure, uris
        drawn.append(figure)

    monkeypatch.setattr(claim_figures, "canvas", kept)
    panel = {
        "title": "RGB + control",
        "differences": {(label, ""): Difference(1.0, -20.0, 60.0)},
        "marks": {label: 58.0},
    }
    xlabel = "points above the same network without a teacher"
    claim_figures.forest([panel] * panels, [label, "x"], [""], xlabel=xlabel, mark="its teacher")
    (figure,) = drawn
    words = [text for text in figure.findobj(Text) if any(map(str.isalpha, text.get_text()))]  # not a tick out of sight
    assert {label, "its teacher"} <= {text.get_text() for text in words}
    for text in words:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text.get_text()


def made_of(**changes):
    """A stage as run.json has it, its settings said by `changes`."""
    options = {"imitation": 0.5, "alpha": 0.5, "layer": "block4"} | changes.pop("options", {})
    return {
        "name": "x",
        "method": "hallucination",
        "options": options,
        "init_from": {"depth": ["two_stream", "depth"]},
        "optimizer": {"learning_rate": 1e-3, "learning_rates": {}},
        "epochs": 15.0,
    } | changes


def test_sensitivity_finds_the_stages_that_differ_in_one_number(tmp_path):
    """By hand: imitation has three values, ADMD two rates; two numbers, a word or an epoch more are not one number."""
    write_run(tmp_path, data=False)
    admd = {"method": "admd", "options": {"position": True}}
    stages = {
        "hallucination": made_of(),
        "rgb": made_of(options={"imitation": 0.0}),
        "rgb2": made_of(options={"imitation": 1.0}),
        "control": made_of(options={"imitation": 1.0, "alpha": 0.0}),
        "depth": made_of(options={"layer": "block1"}),
        "admd": made_of(**admd, optimizer={"learning_rate": 1e-3, "learning_rates": {"discriminator": 2e-4}}),
        "step4": made_of(**admd, optimizer={"learning_rate": 1e-3, "learning_rates": {"discriminator": 2e-5}}),
        "two_stream": made_of(**admd, optimizer={"learning_rate": 1e-4, "learning_rates": {"discriminator": 2e-4}}),
    }
    settings = json.loads((tmp_path / "run.json").read_text())
    settings["config"] |= {"stages": stages, "systems": [{"name": name, "stages": [name]} for name in stages]}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    for name in ("table.json", "results.json"):
        (tmp_path / name).unlink()
    lines = sensitivity(runs.read_run(tmp_path))
    found = [(line["method"], line["setting"], line["value"], line["system"], line["own"]) for line in lines]
    assert found == [
        ("Step 3", "options.imitation", 0.0, "rgb", False),
        ("Step 3", "options.imitation", 0.5, "hallucination", True),
        ("Step 3", "options.imitation", 1.0, "rgb2", False),
        ("ADMD", "learning_rates.discriminator", 2e-5, "step4", False),
        ("ADMD", "learning_rates.discriminator", 2e-4, "admd", True),
        ("ADMD", "learning_rates.student", 1e-4, "two_stream", False),
        ("ADMD", "learning_rates.student", 1e-3, "admd", True),
    ]
    assert lines[0]["points"] == pytest.approx(100 * (lines[0]["accuracy"] - lines[1]["accuracy"]))
    assert cli.main(["sensitivity", "--workdir", str(tmp_path)]) == 0
    assert "<svg" in (tmp_path / "sensitivity.svg").read_text()
    assert len((tmp_path / "sensitivity.csv").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    "value, said",
    [(0.0, "0"), (0.75, "0.75"), (50.0, "50"), (0.01, "0.01"), (2e-5, "2e-5"), (6.0e-3, "6e-3"), (2.5e-4, "2.5e-4")],
)
def test_a_panel_says_its_values_in_few_characters(value, said):
    assert _short(value) == said


def test_the_learning_rate_of_step_3_is_one_number(tmp_path):
    write_run(tmp_path, data=False)
    stages = {
        "hallucination": made_of(),
        "rgb": made_of(optimizer={"learning_rate": 2e-3, "learning_rates": {}}),
    }
    settings = json.loads((tmp_path / "run.json").read_text())
    settings["config"] |= {"stages": stages, "systems": [{"name": name, "stages": [name]} for name in stages]}
    (tmp_path / "run.json").write_text(json.dumps(settings))
    for name in ("table.json", "results.json"):
        (tmp_path / name).unlink()
    found = [(line["setting"], line["value"]) for line in sensitivity(runs.read_run(tmp_path))]
    assert found == [("learning_rates.student", 1e-3), ("learning_rates.student", 2e-3)]


def test_sensitivity_needs_something_that_was_varied(run):
    assert cli.main(["sensitivity", "--workdir", str(run)]) == UsageError.exit_code
