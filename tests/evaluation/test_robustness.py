"""The command on a really trained tiny run, against NumPy statements of what its numbers mean."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_config import get_config

from configs import table as table_config
from hallujax import sealed
from hallujax.cli import main
from hallujax.data.noise import NOISES
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import encode
from hallujax.evaluation.evaluate import Predictions, fuse
from hallujax.evaluation.finished import restore
from hallujax.evaluation.noisy import CLEAN, NoisyEvaluator
from hallujax.evaluation.robustness import COLUMNS, DISCRIMINATOR, FUSE, POLICIES, SOFTMAX
from hallujax.evaluation.robustness_systems import choose_systems
from hallujax.experiment import read_config
from hallujax.methods import clip_logits
from hallujax.models.streams import Networks, initialize
from hallujax.training.sharding import make_mesh
from hallujax.training.start import build_method
from hallujax.training.summary import read_summary, write_summary


@pytest.fixture(scope="module")
def table(trained, tmp_path_factory):
    """A table's folder: a seed, the same with its two RGB streams exchanged for another, and one not begun."""
    folder = tmp_path_factory.mktemp("table")
    for seed, streams in ((0, ("rgb", "rgb2")), (1, ("rgb2", "rgb"))):
        shutil.copytree(trained, folder / f"seed{seed}", ignore=shutil.ignore_patterns("rgb", "rgb2", "latest"))
        for stage, source in zip(("rgb", "rgb2"), streams, strict=True):
            shutil.copytree(trained / source, folder / f"seed{seed}" / stage)
            write_summary(folder / f"seed{seed}" / stage, read_summary(trained / source) | {"name": stage})
            for found in (trained / source).glob("predictions_*.npz"):
                Predictions.load(found).save(folder / f"seed{seed}" / stage / found.name)
        run = sealed.read(trained / "run.json", "")
        run["config"]["seed"] = seed
        sealed.write(folder / f"seed{seed}" / "run.json", run)
    sealed.write(folder / "table.json", {"rows": [{"accuracies": {"0": 0.5, "1": 0.5, "2": None}}]})
    return folder


@pytest.fixture(scope="module")
def measured(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("measured")
    assert main(["robustness", f"--workdir={table}", f"--out={out}", "--false-alarms=0.25"]) == 0
    return out


@pytest.fixture(scope="module")
def rows(measured):
    with open(measured / "robustness.csv", newline="") as file:
        found = list(csv.DictReader(file))
    return {(int(r["seed"]), r["noise"], float(r["level"]), r["system"]): r for r in found}


@pytest.fixture(scope="module")
def summary(measured):
    return json.loads((measured / "robustness.json").read_text())


def test_every_seed_level_and_system_has_a_row(rows, experiment):
    levels = 1 + sum(len(noise.levels) for noise in NOISES.values())
    systems = {name for *_, name in rows}
    assert systems == {
        "Two-stream (step 2)",
        "Two-stream, not fine-tuned",
        "Hallucination + RGB (step 4)",
        "ADMD two-stream",
        *POLICIES,
    }
    assert len(rows) == 2 * levels * len(systems)
    assert all(list(row) == list(COLUMNS) for row in rows.values())


def test_clean_accuracies_are_those_of_the_table(rows, table, experiment):
    for system in experiment.systems:
        for seed in (0, 1):
            if (seed, *CLEAN, system.name) in rows:
                members = [Predictions.load(table / f"seed{seed}" / s / "predictions_test.npz") for s in system.stages]
                row = rows[(seed, *CLEAN, system.name)]
                assert float(row["accuracy"]) == pytest.approx(fuse(members).accuracy, abs=1e-5)
                assert int(row["clips"]) == len(members[0].label)


def test_what_sees_no_depth_does_not_change(rows):
    for name in ("Hallucination + RGB (step 4)", "ADMD two-stream"):
        for seed in (0, 1):
            assert len({r["accuracy"] for (s, _, _, n), r in rows.items() if (s, n) == (seed, name)}) == 1


def test_thresholds_keep_what_they_promise(summary):
    assert {(line["seed"], line["system"]) for line in summary["thresholds"]} == {
        (seed, name) for seed in (0, 1) for name in (DISCRIMINATOR, SOFTMAX)
    }
    for line in summary["thresholds"]:
        assert line["validation_false_alarms"] == pytest.approx(
            np.floor(0.25 * line["validation_clips"]) / line["validation_clips"]
        )


def test_the_summary_says_what_made_it(summary, table):
    assert summary["run"] == str(table) and "--false-alarms 0.25" in summary["command"]
    assert summary["seeds"] == [0, 1] and list(summary["missing_seeds"]) == ["2"]
    assert summary["trusted"] == "Two-stream, not fine-tuned" and summary["fallback"] == "ADMD two-stream"
    assert summary["revision"] and summary["dataset"]["fingerprint"]
    for line in summary["regret"]:
        assert line["low"] <= line["points"] <= line["high"]


def test_regret_is_the_distance_to_the_better_curve(rows, summary):
    kinds = {"all": None, "missing": "missing"}
    for name in POLICIES:
        for wanted, kind in kinds.items():
            losses = []
            for (seed, noise, level, system), row in rows.items():
                if system == name and kind in (None, noise):
                    curves = [rows[seed, noise, level, summary[key]] for key in ("trusted", "fallback")]
                    loss = max(float(curve["accuracy"]) for curve in curves) - float(row["accuracy"])
                    assert float(row["regret"]) == pytest.approx(loss, abs=2e-5)
                    losses.append(loss)
            (line,) = [x for x in summary["regret"] if (x["system"], x["noise"]) == (name, wanted)]
            assert line["points"] == pytest.approx(100 * np.mean(losses), abs=2e-3)


def test_one_condition_against_the_networks_called_by_hand(experiment, tiny, table, rows, summary):
    """Blank depth, seed 1: every system's accuracy from plain forward passes."""
    dataset, folder = PreparedDataset.open(tiny), table / "seed1"
    test = split(dataset, "cross_subject")["test"]
    lengths = np.minimum(dataset.length("rgb"), dataset.length("depth"))[test]
    frames = [np.linspace(0, n - 1, 3).astype(int) for n in lengths]
    batch = {m: dataset.read(m, test, frames) for m in ("rgb", "depth")}
    batch["depth"] = np.zeros_like(batch["depth"])
    batch = encode(batch, experiment.transforms)

    def run(stage):
        method, found = build_method(experiment.stages[stage], 4), restore(folder / stage, dataset)
        return method, method.forward(Networks(method.networks, found["params"], found["batch_stats"]), batch)

    admd, outputs = run("admd")
    fake = np.asarray(jax.nn.softmax(outputs["discriminator/depth"])[..., -1].mean(1))
    depth, hallucinated = clip_logits(outputs["depth"]), admd.predict(outputs)
    rgb = clip_logits(run("rgb")[1]["rgb"])
    two_stream, both = run("two_stream")
    (threshold,) = [
        line["threshold"] for line in summary["thresholds"] if (line["seed"], line["system"]) == (1, DISCRIMINATOR)
    ]
    expected = {
        "Two-stream (step 2)": two_stream.predict(both),
        "Two-stream, not fine-tuned": (depth + rgb) / 2,
        FUSE: (depth + rgb + hallucinated) / 3,
        DISCRIMINATOR: np.where(fake[:, None] > threshold, (hallucinated + rgb) / 2, (depth + rgb) / 2),
    }
    labels = dataset.index["label"][test]
    for name, logits in expected.items():
        row = rows[1, "blank", 1.0, name]
        assert float(row["accuracy"]) == pytest.approx((np.asarray(logits).argmax(1) == labels).mean(), abs=1e-5), name
        assert float(row["fake_confidence"]) == pytest.approx(fake.mean(), abs=1e-4)
    assert float(rows[1, "blank", 1.0, DISCRIMINATOR]["switched"]) == pytest.approx((fake > threshold).mean(), abs=1e-5)


def test_systems_are_found_by_what_they_see():
    """The paper preset gives ADMD streams of its own, so no system of its table is the trusted one."""
    found = {}
    for preset in ("", "paper", "authors_code"):
        experiment = read_config(table_config.get_config(f"mocap_rgbd,cross_subject,{preset}"))
        methods = {name: build_method(stage, 15) for name, stage in experiment.stages.items()}
        found[preset] = choose_systems(experiment, methods, None)
    ours, paper = found[""], found["paper"]
    assert (ours.admd, ours.rgb, ours.trusted) == ("admd", ("rgb",), "Two-stream, not fine-tuned")
    assert [system.name for system in ours.two_streams] == ["Two-stream (step 2)"]
    assert [system.name for system in ours.hallucinating] == ["Hallucination + RGB (step 4)"]
    assert "depth" not in ours.stages, "ADMD's own teacher stands for it"
    assert (paper.rgb, paper.trusted) == (("admd_rgb",), "RGB + depth of admd")
    assert {system.name for system in paper.two_streams} == {"Two-stream (step 2)", "Two-stream, not fine-tuned"}
    assert paper.stages == found["authors_code"].stages and "depth" in paper.stages


@pytest.mark.parametrize("first, second", [("depth", "rgb"), ("rgb", "depth")])
def test_connected_streams_feel_the_noise_in_both(tiny, first, second):
    """With connections from depth to RGB, the RGB stream's answer on clean depth must not be used again."""
    config = get_config(str(tiny.parent))
    config.stages.two_stream.options.connect = True
    config.stages.two_stream.options.modalities = ConfigDict({first: first, second: second}, sort_keys=False)
    experiment, dataset = read_config(config), PreparedDataset.open(tiny)
    methods = {name: build_method(experiment.stages[name], 4) for name in ("two_stream", "admd")}
    rows, mesh = np.arange(3), make_mesh()
    frames = np.tile([0, 2, 4], (3, 1))
    batch = {m: dataset.read(m, rows, frames) for m in ("rgb", "depth")}
    encoded = encode(batch, experiment.transforms)
    networks = {}
    for name, method in methods.items():
        params, batch_stats = initialize(method.networks, method.forward, encoded, jax.random.key(0))
        networks[name] = {"params": params, "batch_stats": batch_stats}
    evaluator = NoisyEvaluator(
        ("admd", methods["admd"]),
        {"two_stream": methods["two_stream"]},
        dataset,
        experiment.data,
        experiment.transforms,
        mesh,
    )
    answers = evaluator(networks, rows, [CLEAN, ("blank", 1.0)], lambda clips: None)
    for condition, depth in ((CLEAN, batch["depth"]), (("blank", 1.0), np.zeros_like(batch["depth"]))):
        seen = encode(batch | {"depth": depth}, experiment.transforms)
        nets = Networks(methods["two_stream"].networks, *networks["two_stream"].values())
        expected = methods["two_stream"].predict(methods["two_stream"].forward(nets, seen))
        np.testing.assert_allclose(answers[condition].stages["two_stream"], expected, rtol=1e-4, atol=1e-5)


def test_the_figure_stands_alone(measured):
    text = (measured / "robustness.svg").read_text()
    assert text.startswith("<?xml") and "http" not in text.split("</metadata>")[-1].replace("http://www.w3.org", "")


def fails(capsys, code, *arguments):
    capsys.readouterr()
    assert main(["robustness", *map(str, arguments)]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_bad_input_is_named(table, tiny, tmp_path, capsys):
    assert "is no workdir" in fails(capsys, 2, "--workdir", tmp_path)
    assert "below 1" in fails(capsys, 2, "--workdir", table, "--false-alarms", 1)
    assert "it can be 'ADMD two-stream'" in fails(capsys, 2, "--workdir", table, "--system", "ADMD")
    assert "no prepared dataset" in fails(capsys, 3, "--workdir", table, "--data", tmp_path)

    plain = tmp_path / "streams"
    shutil.copytree(table / "seed0", plain)
    run = sealed.read(plain / "run.json", "")
    del run["config"]["stages"]["admd"]
    run["config"]["systems"] = [s for s in run["config"]["systems"] if "admd" not in s["stages"]]
    sealed.write(plain / "run.json", run)
    assert "no ADMD stage" in fails(capsys, 2, "--workdir", plain)
    assert not list(plain.glob("robustness*"))


def test_seeds_that_cannot_be_compared_are_refused(table, tmp_path, capsys):
    folder = tmp_path / "table"
    shutil.copytree(table, folder)
    run = sealed.read(folder / "seed1" / "run.json", "")
    run["config"]["transforms"]["flip"] = 0.25
    sealed.write(folder / "seed1" / "run.json", run)
    line = fails(capsys, 2, "--workdir", folder)
    assert "seed0" in line and "seed1" in line and "different settings" in line
    for seed, stage in ((0, "step4"), (1, "admd")):
        (folder / f"seed{seed}" / stage / "stage.json").unlink()
    line = fails(capsys, 2, "--workdir", folder)
    assert "no finished seed: seed 0: step4 not finished; seed 1: admd not finished; seed 2: " in line
