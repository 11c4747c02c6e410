"""The command line: one clear line and the right exit code for what people get wrong."""

import json
import pathlib
import subprocess
import sys

import pytest

from hallujax.cli import main

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"--config={ROOT}/configs/streams.py"


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail with `code` and one line on stderr, which it returns."""

    def run(code, *arguments):
        assert main([str(argument) for argument in arguments]) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("hallujax: "), lines
        return lines[0]

    return run


def test_wrong_configurations_are_named(fails, tmp_path):
    train = ("train", f"--workdir={tmp_path}/run")
    assert "--config=" in fails(2, *train)
    assert "no configuration file nope.py" in fails(2, *train, "--config=nope.py")
    assert "unknown dataset 'mocap'" in fails(2, *train, f"{CONFIG}:mocap")
    assert "unknown preset 'papre'; known: paper, authors_code" in fails(
        2, *train, f"{CONFIG}:mocap_rgbd,cross_view,papre"
    )
    said = fails(2, *train, CONFIG, "--config.training.epoch=3")
    assert """unknown configuration key 'epoch' (Did you mean "epochs" instead of "epoch"?); configs/base.py""" in said
    assert "unknown configuration key 'dept' (Did" in fails(2, *train, CONFIG, "--config.stages.dept.epochs=3")
    assert "unknown configuration key 'x';" in fails(2, *train, CONFIG, "--config.x=3")
    assert "learning" in fails(2, *train, CONFIG, "--config.training.optimizer.learningrate=3")
    assert "could not convert" in fails(2, *train, CONFIG, "--config.training.epochs=many")
    assert "epochs is -1" in fails(2, *train, CONFIG, "--config.training.epochs=-1.0")
    assert not (tmp_path / "run").exists()


def test_wrong_data_is_named(fails, tiny, tmp_path):
    train = ("train", f"--workdir={tmp_path}/run", CONFIG)
    missing = fails(3, *train, f"--config.data.directory={tmp_path}/nowhere")
    assert "no dataset.json" in missing and "--config.data.directory" in missing
    assert f"`hallujax prepare mocap_rgbd --out {tmp_path}/nowhere` makes it" in missing
    ntu = fails(3, "train", f"--workdir={tmp_path}/run", f"{CONFIG}:ntu_rgbd60", f"--config.data.directory={tmp_path}")
    assert f"`hallujax prepare ntu_rgbd60 --out {tmp_path} --raw RAW` makes it" in ntu
    here = f"--config.data.directory={tiny.parent}"
    assert "known" in fails(2, *train, here, "--config.data.protocol=cross_planet")
    assert "known: uniform, mixed" in fails(
        2, *train, here, "--config.data.sampling=all", "--config.training.batch_size=4"
    )


def test_wrong_model_options_are_named(fails, tiny, tmp_path):
    train = ("train", f"--workdir={tmp_path}/run", CONFIG, f"--config.data.directory={tiny.parent}")
    assert "layout='caffe'" in fails(2, *train, "--config.training.model.layout=caffe")
    assert "known: adam, sgd" in fails(2, *train, "--config.training.optimizer.name=lamb")


def test_evaluate_and_report_want_a_run(fails, tmp_path):
    assert "no workdir" in fails(2, "evaluate", f"--workdir={tmp_path}")
    assert "no run" in fails(2, "report", f"--runs={tmp_path}")
    (tmp_path / "run" / "rgb").mkdir(parents=True)
    (tmp_path / "run" / "rgb" / "stage.json").touch()
    assert f"is one stage; give the workdir it lies in, {tmp_path}/run" in fails(
        2, "report", f"--runs={tmp_path}/run/rgb"
    )


@pytest.mark.parametrize("command", ["demo", "table"])
def test_no_seeds_are_refused_before_anything_is_made(tmp_path, capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, f"--{'out' if command == 'demo' else 'workdir'}={tmp_path}/run", "--seeds=0"])
    assert stop.value.code == 2 and "--seeds: 0 is no count" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_arguments_that_no_command_takes():
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--verbose"])
    assert stop.value.code == 2


@pytest.mark.slow
def test_the_demo_end_to_end(tmp_path, monkeypatch):
    """The README's command itself: some ten minutes on two cores."""
    monkeypatch.setenv("XLA_FLAGS", "")
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    systems = {result["method"]: result for result in results}
    assert len(results) == len(systems) == 11
    assert all(result["test_clips"] == 360 and 0 <= result["accuracy"] <= 1 for result in results)
    assert systems["Depth"]["accuracy"] > 0.6 and systems["ADMD two-stream"]["test_modalities"] == ["rgb"]
    assert (out / "report.html").stat().st_size > 100_000
    before = (out / "results.json").read_text()
    assert main(["demo", "--out", str(out)]) == 0
    assert (out / "results.json").read_text() == before


def test_training_starts_without_pytorch():
    """Which some of what it uses would load wherever it is installed, longer than all else takes."""
    code = "import sys, hallujax.training.stages; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
