"""The table's comparisons, on predictions whose every answer is known."""

import csv
import json

import numpy as np
import pytest

from configs import baselines
from hallujax.errors import DataError
from hallujax.evaluation.evaluate import Predictions, predictions_path
from hallujax.evaluation.table import as_csv, as_html, as_markdown, cells, tabulate
from hallujax.experiment import read_config
from hallujax.tables import print_table

CLIPS = 200


def write_stage(folder, right, modality="rgb"):
    """A finished stage that is sure and right about the first `right` of the clips, sure and wrong about the rest."""
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text(json.dumps({"clip_passes": 100, "test_modalities": [modality]}))
    label = np.arange(CLIPS) % 3
    said = np.where(np.arange(CLIPS) < right, label, (label + 1) % 3)
    for split in ("validation", "test"):
        predictions = Predictions(np.arange(CLIPS).astype("S8"), label, 9.0 * np.eye(3, dtype=np.float32)[said])
        predictions.save(predictions_path(folder, split))


@pytest.fixture
def experiment():
    return read_config(baselines.get_config())


@pytest.fixture
def workdir(tmp_path):
    for stage, right in {"depth": 180, "rgb": 100, "rgb2": 100, "control": 140}.items():
        write_stage(tmp_path / stage, right, "depth" if stage == "depth" else "rgb")
    return tmp_path


def test_differences_to_the_ensemble_come_with_an_interval(experiment, workdir):
    rows = {row["method"]: row for row in tabulate(experiment, {0: workdir})}
    assert rows["RGB ensemble"]["difference"] is None, "it is the reference"
    control = rows["RGB from depth (control)"]["difference"]
    assert control["points"] == pytest.approx(20.0)
    # The share of 200 clips that only one of the two gets right: its standard error is sqrt(0.2 * 0.8 / 200).
    assert control["high"] - control["low"] == pytest.approx(2 * 196 * np.sqrt(0.2 * 0.8 / CLIPS), rel=0.1)
    assert rows["RGB"]["difference"] == {"points": 0.0, "low": 0.0, "high": 0.0}, "the same answers, clip by clip"


def test_what_is_recovered_is_measured_from_rgb_to_its_teacher(experiment, workdir):
    rows = {row["method"]: row for row in tabulate(experiment, {0: workdir})}
    assert rows["RGB from depth (control)"]["recovered"] == pytest.approx((140 - 100) / (180 - 100))
    assert rows["Depth"]["recovered"] is rows["RGB"]["recovered"] is None
    shown = {share: cells([rows["RGB"] | {"recovered": share}])[1][4] for share in (0.437, -0.0049, -0.006, None)}
    assert list(shown.values()) == ["44", "0", "-1", "-"]


def test_a_teacher_that_is_no_better_has_nothing_to_recover(experiment, tmp_path):
    for stage in ("depth", "rgb", "rgb2", "control"):
        write_stage(tmp_path / stage, 100, "depth" if stage == "depth" else "rgb")
    assert all(row["recovered"] is None for row in tabulate(experiment, {0: tmp_path}))


def test_rows_of_other_seeds_are_not_compared(experiment, workdir, tmp_path_factory):
    other = tmp_path_factory.mktemp("seed1")
    for stage in ("depth", "rgb", "control"):
        write_stage(other / stage, 120, "depth" if stage == "depth" else "rgb")
    rows = {row["method"]: row for row in tabulate(experiment, {0: workdir, 1: other})}
    assert rows["RGB ensemble"]["accuracies"] == {"0": 0.5, "1": None}
    assert all(row["difference"] is None for row in rows.values())


def test_the_csv_and_the_markdown_say_the_same(experiment, workdir):
    rows = tabulate(experiment, {0: workdir})
    read = {line["method"]: line for line in csv.DictReader(as_csv(rows).splitlines())}
    assert float(read["RGB from depth (control)"]["difference"]) == pytest.approx(0.2)
    assert float(read["RGB from depth (control)"]["recovered"]) == pytest.approx(0.5)
    assert read["RGB ensemble"]["difference"] == read["Depth"]["recovered"] == ""
    (line,) = (line for line in as_markdown(rows).splitlines() if line.startswith("| RGB from depth (control)"))
    assert "| 70.0 | +20.0 (+14.5 to +25.5) | 50 |" in line


def test_runs_of_other_clips_or_classes_are_refused_by_name(experiment, workdir, tmp_path_factory):
    for stage, clips, classes in (("rgb", CLIPS - 1, 3), ("rgb2", CLIPS, 4)):
        other = tmp_path_factory.mktemp("other")
        write_stage(other / stage, 100)
        label = np.arange(clips) % 3
        odd = Predictions(np.arange(clips).astype("S8"), label, np.eye(classes, dtype=np.float32)[label])
        odd.save(predictions_path(other / stage, "test"))
        with pytest.raises(DataError, match=rf"and {other / stage} do not belong in one table: 200 clips of 3") as said:
            tabulate(experiment, {0: workdir, 1: other})
        assert f"{clips} clips of {classes} classes" in str(said.value) and str(workdir / "depth") in str(said.value)


def test_a_stage_that_failed_is_told_of_in_the_rows_that_rest_on_it(experiment, workdir):
    failures = {0: {}, 1: {"depth": "stage depth at step 7: loss/depth is nan"}}
    rows = {row["method"]: row for row in tabulate(experiment, {0: workdir, 1: workdir.parent / "none"}, failures)}
    assert rows["RGB"]["note"] == "" and rows["RGB"]["accuracies"] == {"0": 0.5, "1": None}
    for name in ("Depth", "RGB from depth (control)", "RGB + control"):
        assert rows[name]["note"] == "seed 1 failed: stage depth at step 7: loss/depth is nan"
    assert "(1 of 2 seeds)" in as_markdown(list(rows.values()))


def test_the_page_has_the_rows_and_what_else_was_reported(experiment, workdir):
    page = as_html(tabulate(experiment, {0: workdir}), {"dataset": "<mocap>", "protocol": "cross_subject"})
    assert (
        "<td>RGB from depth (control)</td><td>rgb</td><td>70.0</td><td>+20.0 (+14.5 to +25.5)</td><td>50</td>" in page
    )
    assert "<td>HOG-2 [19]</td><td>depth</td><td>32.4</td>" in page and page.count("<td>66.52</td>") == 1
    assert "<mocap>" not in page and "&lt;mocap&gt;" in page


@pytest.mark.parametrize(
    ("where", "column", "percent"),
    [
        ("mocap_rgbd,cross_view", "NTU cross-view, published %", "75.16"),
        ("nw_ucla,cross_view", "NW-UCLA, published %", "72.38"),
        ("uwa3dii,cross_view", "UWA3DII, published %", "75.28"),
        ("folder,own", None, None),
    ],
)
def test_the_published_column_is_the_datasets_own(workdir, where, column, percent, monkeypatch, capsys):
    experiment = read_config(baselines.get_config(where))
    rows = tabulate(experiment, {0: workdir})
    header, _, depth, *_ = as_markdown(rows).splitlines()
    print_table(rows)
    assert "+20.0 (+14.5 to +25.5)" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    print_table(rows)
    said = capsys.readouterr().out
    assert "accuracy %" in said and "+20.0" not in said and "too narrow: to the RGB ensemble" in " ".join(said.split())
    if column is None:
        assert header.endswith("clip-passes |") and depth.endswith("| 100 |")
        assert as_csv(rows).splitlines()[0].endswith("clip_passes")
    else:
        assert header.endswith(f"| {column} |") and depth.endswith(f"| {percent} |")
        assert as_csv(rows).splitlines()[1].endswith(percent)
