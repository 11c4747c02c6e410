"""Plans of tiny configurations beside counts by hand, what does not fit, and what is said of it."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_config import shrunk

from configs import admd, base, streams
from hallujax.cli import main
from hallujax.errors import UsageError
from hallujax.experiment import read_config
from hallujax.plan import ACCELERATORS, Machine, plan, read_machine
from hallujax.plan.estimate import BANDWIDTH_REACHED, PEAK_REACHED
from hallujax.plan.stage import Clip, bytes_on_a_device
from hallujax.training.sharding import SMALLEST_SHARDED

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = f"--config={ROOT}/tests/small_config.py:nowhere"
SIDE, FRAMES, CLASSES = 16, 3, 15
CLIP = Clip(
    {
        "rgb": jax.ShapeDtypeStruct((FRAMES, SIDE, SIDE, 3), np.uint8),
        "depth": jax.ShapeDtypeStruct((FRAMES, SIDE, SIDE), np.uint16),
    },
    CLASSES,
)
RGB_BATCH = FRAMES * SIDE * SIDE * 3 + 3 * 4  # bytes a clip: frames, label, mask, sample


def small(make=streams, **training):
    """Networks of a stem and one unit, for which numbers can be counted by hand."""
    config = shrunk(make.get_config(), "nowhere")
    config.transforms.downsample = 1
    config.training.model.stage_sizes = (1,)
    config.training.model.bottleneck = 0
    for key, value in training.items():
        setattr(config.training, key, value)
    return config


def with_memory(machine: Machine, memory: int) -> Machine:
    return dataclasses.replace(machine, accelerator=dataclasses.replace(machine.accelerator, memory=memory, usable=1.0))


def test_bytes_are_those_counted_by_hand():
    width, last = 4, 16
    unit = {
        "shortcut": width * last + 2 * last,
        "conv1": width * width + 2 * width,
        "conv2": 9 * width * width + 2 * width,
        "temporal": 5 * width * width + width,
        "conv3": width * last + 2 * last,
    }
    parameters = 4 * (49 * 3 * width + 2 * width + sum(unit.values()) + last * CLASSES + CLASSES)
    statistics = 4 * 2 * (width + last + width + width + last)
    found = plan(read_config(small(batch_size=8)), read_machine("v5e-4"), CLIP, {"rgb": 800}, only="rgb").stages[0]
    assert (found.parameters, found.statistics) == (parameters, statistics)
    assert found.optimizer == 2 * parameters + 2 * 4  # Adam's moments, its count and the schedule's
    assert (found.clips_on_a_device, found.batch) == (2, 2 * RGB_BATCH)
    assert found.memory == sum(
        (found.parameters, found.statistics, found.optimizer, found.batch, found.temporaries, found.gathered)
    )
    networks = parameters + statistics
    assert found.checkpoints == 2 * (networks + found.optimizer + 4) + 2 * networks  # and the state's own count
    assert found.steps == round(0.7 * 800 / 8)
    assert found.sent == pytest.approx(2 * 3 / 4 * parameters)


def test_sgd_has_one_moment_and_a_frozen_teacher_none():
    config = small(admd, batch_size=4)
    config.stages.admd.optimizer.name = "sgd"
    stages = {stage.name: stage for stage in plan(read_config(config), read_machine("h100"), CLIP).stages}
    assert stages["rgb"].optimizer > 2 * stages["rgb"].parameters
    trained = stages["admd"].parameters - stages["depth"].parameters  # student and discriminator
    assert stages["admd"].optimizer == trained + 2 * 4  # a schedule's count each
    assert stages["admd"].sent == 0 and stages["admd"].communicate == 0


def test_time_is_the_rooflines_and_hours_follow():
    machine = read_machine("h100x2")
    planned = plan(read_config(small(batch_size=4)), machine, CLIP, {"rgb": 400, "depth": 400})
    stage = next(stage for stage in planned.stages if stage.name == "rgb")
    facts = machine.accelerator
    at_least = max(stage.traffic / (BANDWIDTH_REACHED * facts.bandwidth), stage.flops / (PEAK_REACHED * facts.float32))
    assert at_least * (1 - 1e-9) <= stage.compute <= 2 * at_least
    assert stage.communicate == stage.sent / facts.links
    assert stage.hours(2) == pytest.approx(stage.steps * (stage.compute + stage.communicate) * 2 / 3600)
    assert planned.hours == pytest.approx(sum(stage.hours(2) for stage in planned.stages))
    assert plan(read_config(small(batch_size=4)), machine, CLIP).hours is None
    assert plan(read_config(small()), read_machine("cpu"), CLIP, {"rgb": 400, "depth": 400}).hours is None


def test_what_does_not_fit_says_what_does():
    """And every remedy is one: what it says is planned again and fits."""
    experiment, machine = read_config(small(batch_size=64)), read_machine("v5e-4")
    enough = plan(experiment, machine, CLIP, only="rgb").stages[0]
    assert enough.fits and not enough.remedies
    tight = with_memory(machine, int(0.9 * enough.memory))
    found = plan(experiment, tight, CLIP, only="rgb")
    (stage,) = found.stages
    assert not found.fits and stage.memory == enough.memory
    remedies = dict(remedy.split(" ")[0].split("=") for remedy in stage.remedies)
    assert int(remedies["batch_size"]) < 64 and int(remedies["batch_size"]) % 4 == 0
    for key, value in remedies.items():
        assert key != "mesh.model"  # a state of a few kB
        again = read_config(small(**{"batch_size": 64, key: int(value)}))
        assert plan(again, tight, CLIP, only="rgb").fits, (key, value)
    (hopeless,) = plan(experiment, with_memory(machine, 1000), CLIP, only="rgb").stages
    assert hopeless.remedies == ("no single setting: combine a smaller batch_size, accumulate and mesh.model",)


def test_accumulation_is_the_same_work_in_less_memory():
    machine = read_machine("v5e-1")
    whole, parts = (
        plan(read_config(small(batch_size=32, accumulate=n)), machine, CLIP, only="rgb").stages[0] for n in (1, 4)
    )
    assert parts.flops == whole.flops and parts.temporaries < 0.6 * whole.temporaries
    here = [plan(read_config(small(accumulate=n)), read_machine("cpu"), CLIP, only="rgb").stages[0] for n in (1, 4)]
    assert here[0] == here[1]  # XLA:CPU computes the micro-batches beside each other


def test_rematerialisation_takes_time_and_is_not_trusted_to_save_memory():
    plain, again = (
        plan(read_config(small(batch_size=8, remat=remat)), read_machine("h100"), CLIP, only="rgb").stages[0]
        for remat in (False, True)
    )
    assert again.flops > plain.flops and again.compute > plain.compute
    assert again.temporaries == plain.temporaries


def test_a_state_cut_over_devices():
    large, small_one = jax.ShapeDtypeStruct((64, 100), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.float32)
    assert large.size >= SMALLEST_SHARDED
    assert bytes_on_a_device([large, small_one], 4) == 4 * (6400 / 4 + 8)
    config = small(batch_size=4)
    config.training.model.width = 32
    plain = plan(read_config(config), read_machine("v5e-4"), CLIP, only="rgb")
    config.mesh.model = 2
    cut = plan(read_config(config), read_machine("v5e-4"), CLIP, only="rgb")
    assert (plain.data, plain.model, cut.data, cut.model) == (4, 1, 2, 2)
    (before,), (after,) = plain.stages, cut.stages
    assert 0.5 * before.optimizer <= after.optimizer < 0.7 * before.optimizer
    assert after.gathered == before.parameters and before.gathered == 0
    assert after.sent == before.sent + before.parameters - after.parameters


@pytest.mark.skipif(not pathlib.Path("/proc/self/clear_refs").exists(), reason="Linux says what a process holds")
def test_the_temporaries_are_those_of_a_running_step():
    """Measured are the convolutions' scratch too, which neither the plan nor the compiler counts."""
    run = subprocess.run(
        [sys.executable, ROOT / "tests/plan/measured_peak.py"],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout)
    assert 0.85 < found["planned"] / found["compiled"] < 1.15, found
    assert 0.9 < found["measured"] / found["planned"] < 1.7, found


@pytest.mark.parametrize(
    "asked, name, count",
    [
        ("v5e-64", "v5e", 64),
        ("v5litepod-16", "v5e", 16),
        ("v6e-8", "v6e", 8),
        ("v4-32", "v4", 16),
        ("v5p-8", "v5p", 4),
        ("h200", "h200", 1),
        ("H100x8", "h100", 8),
        ("a100-80", "a100-80", 1),
        ("a100-40x4", "a100-40", 4),
        ("a100x2", "a100-40", 2),
        ("rtx4090x2", "rtx4090", 2),
        ("cpu", "cpu", 1),
    ],
)
def test_machines_by_name(asked, name, count):
    machine = read_machine(asked)
    assert (machine.name, machine.count) == (name, count)


def test_more_than_a_node_goes_over_the_network():
    assert read_machine("h100x16").link < read_machine("h100x8").link
    with pytest.raises(UsageError, match="no more than 8 l4"):
        read_machine("l4x16")


@pytest.mark.parametrize("asked", ["", "v9-8", "tpu", "h100x", "x8", "v5e-64-2"])
def test_unknown_machines_are_named_with_the_known_ones(asked):
    with pytest.raises(UsageError, match=r"is not known.*v5e-64.*h100x8.*v4, v5e, .*h200"):
        read_machine(asked)


def test_numbers_of_devices_that_there_are_not():
    with pytest.raises(UsageError, match="named by their TensorCores, 2 a chip"):
        read_machine("v4-9")
    with pytest.raises(UsageError, match="asks for no device"):
        read_machine("h100x0")


def test_every_accelerator_says_where_its_numbers_are_from():
    for name, facts in ACCELERATORS.items():
        assert facts.source and min(facts.memory, facts.bandwidth, facts.float32, facts.links) > 0, name
        assert facts.float32 <= facts.bfloat16


def test_wrong_stages_batches_and_meshes_are_named():
    experiment, machine = read_config(small(batch_size=4)), read_machine("v5e-8")
    with pytest.raises(UsageError, match="--stage=ir is not a stage; there are depth, rgb"):
        plan(experiment, machine, CLIP, only="ir")
    with pytest.raises(UsageError, match=r"stages.depth.batch_size=4 does not divide by the 8 devices of v5e-8"):
        plan(experiment, machine, CLIP)
    config = small(batch_size=8)
    config.mesh.model = 3
    with pytest.raises(UsageError, match=r"mesh.model=3 does not make up the 8 devices"):
        plan(read_config(config), machine, CLIP)


def test_the_command_with_a_prepared_dataset(tiny, tmp_path, capsys):
    out = tmp_path / "plan.json"
    arguments = ["plan", f"--config={ROOT}/tests/small_config.py:{tiny.parent}", "--devices=v5e-2", "--stage=rgb"]
    assert main([*arguments, f"--json={out}"]) == 0
    said = capsys.readouterr().out
    written = json.loads(out.read_text())
    (stage,) = written["stages"]
    assert written["fits"] and stage["fits"] and written["count"] == 2
    assert stage["batch"] == 2 * (3 * 32 * 32 * 3 + 12)  # two of four clips, three frames as prepared
    index = np.load(tiny / "clips.npy")
    assert 0 < stage["clips"] < len(index) and stage["steps"] == round(0.7 * stage["clips"] / 4)
    assert "device-hours" in said and "rgb" in said and "Exact:" in said and "cloud.google.com" in said
    assert stage["device_hours"] == pytest.approx(stage["seconds"] * stage["steps"] * 2 / 3600)


def test_the_command_without_its_dataset(capsys):
    arguments = ["plan", "--devices=v5e-4", "--stage=rgb", CONFIG]
    assert main(arguments) == 0
    assert "--clips gives the hours" in capsys.readouterr().out
    assert main([*arguments, "--clips=1000", "--size=64", "--classes=7"]) == 0
    assert "At least" in capsys.readouterr().out
    folder = ["plan", "--devices=v5e-4", f"--config={ROOT}/configs/streams.py:folder,own"]
    assert main(folder) == 2 and "--classes" in capsys.readouterr().err
    assert main([*folder, "--classes=3"]) == 2 and "--size" in capsys.readouterr().err
    assert main(["plan", "--devices=v7-4", CONFIG]) == 2
    assert "known" in capsys.readouterr().err


def test_exit_code_1_where_a_stage_does_not_fit(capsys):
    huge = ["--config.training.batch_size=1000000", "--size=1024"]
    assert main(["plan", "--devices=rtx4090", "--stage=rgb", CONFIG, *huge]) == 1
    said = capsys.readouterr().out
    assert "NO" in said and "rgb fits with batch_size=" in said


def test_the_defaults_of_datasets_cover_the_configurations():
    from hallujax.plan.command import DATASETS

    assert set(DATASETS) == set(base.DATASETS) - {"folder"}
