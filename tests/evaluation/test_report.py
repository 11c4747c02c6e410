import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from headless_chromium import CHROMIUM, browse
from PIL import Image
from synthetic_run import SYSTEMS, write_run

from hallujax import sealed
from hallujax.errors import DataError, UsageError
from hallujax.evaluation import comparison, figures, runs
from hallujax.evaluation.feature_space import principal_plane
from hallujax.evaluation.report import write_report
from hallujax.evaluation.runs import Row


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def report(whole_run):
    return write_report(whole_run)


def text_of(path):
    page = re.sub(r"<style>.*?</style>|<[^>]*>", " ", path.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", page)


def rows(**means):
    roles = {"ensemble": "ensemble", "control": "rgb+control", "admd": "privileged", "step4": "privileged"}
    return [Row(name, ("rgb",), {"0": mean}, mean, None, role=roles[name]) for name, mean in means.items() if mean]


def run_of(table_rows):
    return runs.Run(None, {}, table_rows, [], {}, [])


# What the numbers say


def test_takeaway_names_both_references_with_their_gaps():
    sentence = comparison.takeaway(run_of(rows(ensemble=0.4, control=0.65, admd=0.61, step4=0.58)))
    assert sentence.startswith("admd, on test clips the best of 2 RGB-only models taught by depth, got 61.0 % right:")
    assert "21.0 points above the RGB ensemble (40.0 %)" in sentence
    assert "4.0 points below RGB + control (65.0 %)" in sentence
    assert "one seed" in sentence


def test_takeaway_says_level_when_it_is_and_missing_when_it_is():
    assert "level with the RGB ensemble" in comparison.takeaway(run_of(rows(ensemble=0.6, admd=0.6)))
    assert "the control is missing" in comparison.takeaway(run_of(rows(ensemble=0.6, admd=0.6)))
    assert "nothing is compared yet" in comparison.takeaway(run_of(rows(ensemble=0.6, control=0.7)))


def test_takeaway_counts_seeds_and_admits_what_the_clips_cannot_tell(tmp_path):
    run = runs.read_run(write_run(tmp_path, seeds=(0, 1, 2), data=False))
    sentence = comparison.takeaway(run)
    assert "mean of 3 seeds" in sentence
    best, reference = (comparison.rows_by_role(run, role)[0] for role in ("privileged", "rgb+control"))
    difference = comparison.compare(run, best, reference)
    assert difference.low < difference.points < difference.high
    assert ("within the noise of the test clips" in sentence) == (not difference.separated)


def test_takeaway_says_once_that_two_gaps_are_within_the_noise(monkeypatch):
    run = run_of(rows(ensemble=0.6, control=0.62, admd=0.65))
    unsure = comparison.Difference(3.0, -1.0, 7.0)
    monkeypatch.setattr(comparison, "compare", lambda *_: unsure)
    sentence = comparison.takeaway(run)
    assert sentence.count("noise") == 1 and "(62.0 %), both within the noise of the test clips" in sentence
    sure = comparison.Difference(5.0, 2.0, 8.0)
    monkeypatch.setattr(comparison, "compare", lambda *a: sure if a[2].role == "ensemble" else unsure)
    assert "(60.0 %), and 3.0 points above RGB + control (62.0 %) but within" in comparison.takeaway(run)


def test_paired_bootstrap_against_closed_forms():
    draw = np.random.default_rng(3)
    first, second = draw.random(400) < 0.7, draw.random(400) < 0.6
    found = comparison.paired_bootstrap(first, second)
    gap = first.astype(float) - second
    assert found.points == pytest.approx(100 * gap.mean())
    # The mean of N draws is close to normal with standard error std / sqrt(N).
    half = 1.96 * 100 * gap.std() / 20
    assert found.low == pytest.approx(found.points - half, abs=0.5)
    assert found.high == pytest.approx(found.points + half, abs=0.5)
    # Pairing: two systems right on the same clips differ by nothing, however few the clips.
    same = comparison.paired_bootstrap(first[:5], first[:5])
    assert (same.points, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("method", "tested_on", "role"),
    [
        ("rgb", ("rgb",), "rgb"),
        ("RGB alone", ("rgb",), "rgb"),
        ("rgb_ensemble", ("rgb",), "ensemble"),
        ("control", ("rgb",), "control"),
        ("RGB from depth (control)", ("rgb",), "control"),
        ("RGB started from depth, cross-entropy only", ("rgb",), "control"),
        ("RGB + control", ("rgb",), "rgb+control"),
        ("Hallucination + RGB (step 4)", ("rgb",), "privileged"),
        ("ADMD hallucination alone", ("rgb",), "privileged"),
        ("Two-stream (step 2)", ("rgb", "depth"), "other"),
        ("depth", ("depth",), "other"),
    ],
)
def test_roles(method, tested_on, role):
    assert comparison.role(Row(method, tested_on, {}, None, None)) == role


def test_fused_rows_are_compared_by_their_mean_logits(whole_run):
    run = runs.read_run(whole_run)
    ensemble = next(row for row in run.rows if row.method == "RGB ensemble")
    fused = run.predictions(ensemble)["0"]
    members = [np.load(whole_run / "seed0" / name / "predictions_test.npz")["logits"] for name in ("rgb", "rgb2")]
    np.testing.assert_allclose(fused.logits, np.mean(members, axis=0), rtol=1e-6)
    assert fused.accuracy == ensemble.mean
    assert run.problems == []


# What is missing or wrong is said


def test_unfinished_missing_and_damaged_stages_are_named(tmp_path):
    write_run(tmp_path, stages=("rgb", "rgb2", "control", "admd"), data=False)
    (tmp_path / "seed0" / "admd" / "stage.json").unlink()
    (tmp_path / "seed0" / "rgb2" / "predictions_test.npz").write_bytes(b"not a zip")
    with (tmp_path / "seed0" / "rgb" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1050, "rgb/c')  # cut off by a kill: normal, and no reason to lose the rest
    page = text_of(write_report(tmp_path))
    assert "seed 0, stage admd is unfinished" in page
    assert "seed 0, stage rgb2: predictions_test.npz cannot be read" in page
    assert "stage depth, which control starts from, has no folder here" in page
    assert "Left out: the dataset is neither in this run folder" in page
    run = runs.read_run(tmp_path)
    states = {stage.name: stage.state for stage in run.stages}
    assert states == {
        "rgb": "finished",
        "rgb2": "not evaluated",
        "control": "finished",
        "admd": "unfinished",
        "depth": "missing",
    }
    assert len(next(stage for stage in run.stages if stage.name == "rgb").training) == 20
    assert page.count("missing") >= 4  # rows of the table that no stage fills


def test_a_table_that_contradicts_the_predictions_is_pointed_out(tmp_path):
    write_run(tmp_path, data=False)
    table = sealed.read(tmp_path / "table.json", "")
    table["rows"][1]["accuracies"]["0"] = 0.99
    sealed.write(tmp_path / "table.json", table)
    (problem,) = runs.read_run(tmp_path).problems
    assert problem.startswith("RGB, seed 0: the table says 99.00 %, the stored predictions give")


def test_stages_of_other_classes_are_refused_by_name(tmp_path):
    write_run(tmp_path / "a", data=False)
    write_run(tmp_path / "b", classes=("jump", "kick"), data=False)
    (tmp_path / "a" / "seed0" / "rgb2").rename(tmp_path / "gone")
    (tmp_path / "b" / "seed0" / "rgb2").rename(tmp_path / "a" / "seed0" / "rgb2")
    with pytest.raises(
        DataError, match=r"seed 0, stage \w+ and seed 0, stage \w+ do not belong in one table: 60 clips of"
    ):
        write_report(tmp_path / "a")


def test_a_row_with_a_seed_missing_says_so(tmp_path):
    write_run(tmp_path, seeds=(0, 1, 2), data=False)
    table = sealed.read(tmp_path / "table.json", "")
    table["rows"][0] |= {"mean": 0.5, "deviation": 0.01, "accuracies": {"0": 0.49, "1": 0.51, "2": None}}
    sealed.write(tmp_path / "table.json", table)
    assert "50.0 ± 1.0 (2 of 3 seeds)" in text_of(write_report(tmp_path))


def test_a_single_working_folder_without_a_table_reports_what_it_has(tmp_path):
    write_run(tmp_path, stages=("rgb", "rgb2"), data=False)
    (tmp_path / "run.json").rename(tmp_path / "seed0" / "run.json")
    page = text_of(write_report(tmp_path / "seed0"))
    assert "RGB ensemble" in page and "no table.json: accuracies are from the predictions" in page
    found = {row.method: row.mean for row in runs.read_run(tmp_path / "seed0").rows}
    stated = {row.method: row.mean for row in runs.read_run(tmp_path).rows if row.mean is not None}
    assert found == stated and set(found) == {"RGB", "RGB ensemble"}


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="no run folder at"):
        write_report(tmp_path / "absent")
    (tmp_path / "table.json").write_text('{"rows": [{"method": "rgb"}]}')
    with pytest.raises(DataError, match=r"table.json is not a table of results \(KeyError\('test_modalities'\)\)"):
        write_report(tmp_path)


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_named(whole_run, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs {package}; install it: pip install 'hallujax\[demo\]'"):
        write_report(whole_run)


def test_robustness_is_shown_where_it_was_measured(tmp_path):
    write_run(tmp_path, data=False)
    assert "When depth fails" not in text_of(write_report(tmp_path))
    lines = [
        {"system": system, "noise": noise, "points": points, "low": points - 1, "high": points + 1}
        for system, points in (("Switch: discriminator", 1.5), ("Always fuse", -0.25))
        for noise in ("all", "blur")
    ]
    found = {"regret": lines, "trusted": "Two-stream", "fallback": "ADMD two-stream", "false_alarms": 0.05}
    found |= {"seeds": [0], "missing_seeds": {"1": "admd not finished"}, "command": "hallujax robustness --workdir x"}
    (tmp_path / "robustness.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "robustness.json").write_text(json.dumps(found))
    text = text_of(write_report(tmp_path))
    assert "When depth fails" in text and "gives up 5 % of the clean" in text and "1 seed, 1 missing" in text
    assert "+1.5 +0.5 to +2.5" in text and "\u22120.2 \u22121.2 to +0.8" in text
    (tmp_path / "robustness.json").write_text(json.dumps(found | {"regret": [{}]}))
    assert "robustness.json is damaged (KeyError(" in text_of(write_report(tmp_path))


# The page


def test_the_page_is_a_function_of_the_files(report):
    before = report.read_bytes()
    assert write_report(report.parent).read_bytes() == before


def test_the_page_holds_every_row_curve_and_sample(report):
    page, text = report.read_text(), text_of(report)
    for name in SYSTEMS:
        assert name in text
    assert "73.42" in text and "mean of the logits" in text and "hallujax demo --out demo" in text
    assert "1 234 567" in text  # parameters of all of a stage's networks
    assert page.count('alt="Losses and validation accuracy') == 8
    assert page.count('alt="RGB frames of') == 3
    assert "3 classes, 5 frames each" in text and 'class="sample image"' not in page
    assert page.count('alt="Confusion matrix of') == 3  # RGB's, the best one's and ADMD's
    assert page.count('alt="Change of recall of ADMD') == 1
    assert "2.2 m" in text and "3.4 m" in text  # the disc and the wall of the synthetic clips


def test_a_set_of_single_images_is_shown_as_such(tmp_path):
    write_run(tmp_path, frames=1)
    page = write_report(tmp_path)
    assert "3 classes, one image each" in text_of(page) and page.read_text().count('class="sample image"') >= 3


def test_names_from_files_are_escaped(tmp_path):
    write_run(tmp_path, classes=("<script>alert(1)</script>", "b", "c"), data=False)
    table = sealed.read(tmp_path / "table.json", "")
    table["rows"][0]["note"] = "<img src=x onerror=alert(1)>"
    sealed.write(tmp_path / "table.json", table)
    page = write_report(tmp_path).read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;img src=x" in page


def test_no_return_pixels_are_marked_in_both_depth_strips():
    depth = np.full((2, 8, 8), 2000, np.uint16)
    depth[:, 2:4, 3] = 0
    mark = np.array([0xD5, 0x5E, 0x00])
    for uri in (figures.depth_strip(depth, 1000, 3000), figures.noise_strip(depth)):
        assert (decode(uri) == mark).all(axis=-1).sum() == 4
    # Noise: half the scale behind its neighbours is half-way from mid-grey to white, the others are mid-grey.
    depth[0, 6, 6] += int(figures.NOISE_MM / 2)
    pixels = decode(figures.noise_strip(depth))
    assert pixels[6, 6, 0] == 191 and pixels[0, 0, 0] == 127


def decode(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_comparisons_and_teachers_are_drawn(report):
    page, text = report.read_text(), text_of(report)
    assert page.count('alt="Points of every taught model above') == 4  # rgb, ensemble, control, rgb + control
    assert "What teachers are worth" in text and "One setting at a time" not in text


def test_recovered_memory_and_the_discriminator_are_shown(tmp_path):
    write_run(tmp_path, data=False)
    table = sealed.read(tmp_path / "table.json", "")
    table["rows"][2]["recovered"] = 0.437
    table["rows"][1]["recovered"] = -0.004
    sealed.write(tmp_path / "table.json", table)
    path = tmp_path / "seed0" / "rgb" / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peak_memory_mib": {"process": 1234, "device": None}}))
    page = write_report(tmp_path).read_text()
    assert re.search(r'data-label="teacher recovered, %" class="number">44<', page)
    assert re.search(r'data-label="teacher recovered, %" class="number">0<', page)
    assert "1\u202f234 MiB" in page
    lines = [{"step": s, "train/accuracy": 0.5, "accuracy/discriminator_real": 0.9, "d/real": 1.0} for s in (1, 2)]
    with_it, without = (
        figures.learning_curves(each, [], best_step=None, chance=None)
        for each in (lines, [{k: v for k, v in line.items() if "discriminator" not in k} for line in lines])
    )
    assert len(with_it) > len(without) + 1000


def test_the_plane_is_that_of_the_real_features():
    """Real features on a plane in five dimensions; hallucinated ones a step further in it, and two out of it."""
    draw = np.random.default_rng(0)
    basis = np.linalg.qr(draw.normal(size=(5, 5)))[0]
    inside = draw.normal(size=(50, 2)) * (3.0, 1.0)
    real = inside @ basis[:2] + 7.0
    hallucinated = real + 0.5 * basis[0] + 2.0 * basis[3]
    (first, second), explained = principal_plane(real, hallucinated)
    assert explained == pytest.approx(1.0)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.linalg.norm(inside - inside.mean(0), axis=1))
    np.testing.assert_allclose(np.linalg.norm(second - first, axis=1), 0.5)  # what is out of the plane is not seen


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 740)])
def test_in_a_browser(report, width, height):
    with browse(report, width=width, height=height) as page:
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Nothing sticks out of the page inside a clipped or scrolling box either.
        boxes = "[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)"
        assert page.evaluate(f"Math.max(...{boxes})") <= width
        broken = "[...document.images].filter(image => !image.naturalWidth).length"
        assert page.evaluate(broken) == 0 and page.evaluate("document.images.length") > 15
        assert [url for url in page.requests if not url.startswith("data:")] == [report.resolve().as_uri()]
        assert page.complaints == []
