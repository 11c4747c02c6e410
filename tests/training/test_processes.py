"""Several processes on one machine, as users start them: two of two simulated devices each, over gloo."""

import json
import pathlib
import signal
import time

import jax
import numpy as np
import pytest
from training.run_together import CONFIG, WRONG, start

from hallujax.evaluation.evaluate import Predictions
from hallujax.training import manifest
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import read_metrics

STAGES = ("depth", "control")  # the second starts from the first
LONG = ("--config.training.epochs=6.0", "--config.training.evaluations=3", "--config.checkpoint_every=3")
HEARTBEAT = 10.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder with a configuration and a cache of compiled programs."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "config.py").write_text(CONFIG + WRONG)
    return folder


def command(name, shared, tiny, workdir, *flags):
    return (
        (shared / "config.py", shared / "xla"),
        (name, f"--config={shared}/config.py:{tiny.parent}", f"--workdir={workdir}", *flags),
    )


def begin(name, shared, tiny, workdir, *flags, **how):
    where, arguments = command(name, shared, tiny, workdir, *flags)
    return start(*where, *arguments, **how)


def finish(name, shared, tiny, workdir, *flags, **how):
    with begin(name, shared, tiny, workdir, *flags, **how) as run:
        assert run.wait() == [0] * len(run.processes), [log.with_suffix(".err").read_text() for log in run.logs]
    return run


@pytest.fixture(scope="module")
def together(shared, tiny):
    """A table of one seed by two processes of two devices."""
    workdir = shared / "two"
    return workdir, finish("table", shared, tiny, workdir, "--seeds=1")


@pytest.fixture(scope="module")
def alone(shared, tiny):
    """The same by one process of four."""
    workdir = shared / "one"
    finish("table", shared, tiny, workdir, "--seeds=1", processes=1, devices=4, join=False)
    return workdir


def curve(stage: pathlib.Path):
    clocks = ("seconds", "input/waited")
    return [{name: value for name, value in line.items() if name not in clocks} for line in read_metrics(stage)]


def networks(stage: pathlib.Path):
    checkpoints = Checkpoints(stage / "checkpoints")
    found = jax.tree.map(np.asarray, checkpoints.restore_best())
    checkpoints.close()
    return found


def assert_bitwise(a: pathlib.Path, b: pathlib.Path, stages=STAGES):
    for stage in stages:
        assert curve(a / stage) == curve(b / stage)
        jax.tree.map(np.testing.assert_array_equal, networks(a / stage), networks(b / stage))
        for split in ("validation", "test"):
            first, second = (Predictions.load(w / stage / f"predictions_{split}.npz") for w in (a, b))
            np.testing.assert_array_equal(first.clip, second.clip)
            np.testing.assert_array_equal(first.logits, second.logits)


def test_two_processes_reproduce_the_curve_of_one(together, alone):
    """Sums over devices are taken in another order, by gloo instead of within the process."""
    for stage in STAGES:
        two, one = curve(together[0] / "seed0" / stage), curve(alone / "seed0" / stage)
        assert [line.keys() for line in two] == [line.keys() for line in one]
        for a, b in zip(two, one, strict=True):
            assert list(a.values()) == pytest.approx(list(b.values()), rel=1e-4, abs=1e-6)
        for split in ("validation", "test"):
            path = f"seed0/{stage}/predictions_{split}.npz"
            a, b = Predictions.load(together[0] / path), Predictions.load(alone / path)
            np.testing.assert_array_equal(a.clip, b.clip)
            assert len(set(a.clip)) == len(a.clip)
            np.testing.assert_allclose(a.logits, b.logits, rtol=1e-4, atol=1e-5)


def test_one_process_writes_and_speaks(together):
    workdir, run = together
    said = [log.read_text() for log in run.logs]
    assert "rgb <- depth/depth" in said[0] and "RGB from depth" in said[0]
    assert not [line for line in said[1].splitlines() if not line.startswith("[Gloo]")]
    assert [run.lines(i) for i in range(2)] == [[], []]
    assert len(json.loads((workdir / "table.json").read_text())["rows"]) == 2
    described = json.loads((workdir / "seed0" / "run.json").read_text())
    assert described["processes"] == 2 and len(described["devices"]) == 4
    for stage in STAGES:
        assert len(list((workdir / "seed0" / stage / "tensorboard").iterdir())) == 1
        steps = [line["step"] for line in read_metrics(workdir / "seed0" / stage) if "validation/accuracy" not in line]
        assert steps == sorted(set(steps))


def test_checkpoints_are_written_by_all_and_signed_when_whole(together):
    for stage in STAGES:
        (best,) = (together[0] / "seed0" / stage / "checkpoints" / "best").iterdir()
        named = json.loads((best / manifest.NAME).read_text())
        assert any("process_0" in name for name in named) and any("process_1" in name for name in named)
        assert manifest.damage(best) is None


@pytest.mark.slow
def test_evaluation_in_two_processes_gives_the_same_predictions(together, shared):
    workdir = together[0] / "seed0"
    before = Predictions.load(workdir / "control" / "predictions_test.npz")
    (workdir / "control" / "predictions_test.npz").unlink()
    with start(shared / "config.py", shared / "xla", "evaluate", f"--workdir={workdir}") as run:
        assert run.wait() == [0, 0], [run.lines(i) for i in range(2)]
    again = Predictions.load(workdir / "control" / "predictions_test.npz")
    np.testing.assert_array_equal(again.logits, before.logits)
    assert "RGB from depth" in run.logs[0].read_text() and "RGB" not in run.logs[1].read_text()


def latest(workdir, stage="depth"):
    folders = (workdir / stage / "checkpoints" / "latest").glob("[0-9]*")
    return sorted(int(path.name) for path in folders if path.name.isdigit())  # orbax writes under another name


def trains(workdir, stage="depth"):
    metrics = workdir / stage / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.stat().st_size > 0


def test_sigterm_to_one_saves_in_all(shared, tiny, tmp_path):
    with begin("train", shared, tiny, tmp_path, "--config.training.epochs=400.0") as run:
        run.until(trains(tmp_path))
        run.processes[1].send_signal(signal.SIGTERM)
        assert run.wait(120) == [143, 143]
    (line,) = run.lines(0)
    assert line.startswith("hallujax: stopped in depth at step ")
    step = int(line.partition(" at step ")[2].partition(";")[0])
    assert latest(tmp_path)[-1] == step
    assert manifest.damage(tmp_path / "depth" / "checkpoints" / "latest" / str(step)) is None
    assert not [said for said in run.lines(1) if said.startswith("hallujax")]


@pytest.fixture(scope="module")
def straight(shared, tiny):
    """A longer run of two processes that nothing interrupts."""
    workdir = shared / "straight"
    finish("train", shared, tiny, workdir, *LONG)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("hit", [0, 1])
def test_after_a_kill_the_others_leave_and_a_restart_ends_bit_for_bit(hit, shared, tiny, straight, tmp_path):
    flags = (f"--heartbeat-timeout={HEARTBEAT}",)
    with begin("train", shared, tiny, tmp_path, *LONG, flags=flags) as run:
        run.until(lambda: latest(tmp_path))
        run.processes[hit].kill()
        killed = time.monotonic()
        survivor = run.processes[1 - hit].wait(120)
        took = time.monotonic() - killed
    print(f"process {hit} killed: the other left after {took:.1f} s with {survivor}: {run.lines(1 - hit)[-1]}")
    if hit == 1:  # without process 0 there is no coordination service, and jax aborts
        assert survivor == 42
        (line,) = (line for line in run.lines(0) if line.startswith("hallujax"))
        assert "process 1 on " in line and "gone" in line and "start all processes again" in line
    else:
        assert survivor in (42, -signal.SIGABRT)
    finish("train", shared, tiny, tmp_path, *LONG)
    assert_bitwise(straight, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("hit", [0, 1])
def test_a_process_that_is_stopped_is_left_behind(hit, shared, tiny, tmp_path):
    flags = (f"--heartbeat-timeout={HEARTBEAT}",)
    with begin("train", shared, tiny, tmp_path, "--config.training.epochs=400.0", flags=flags) as run:
        run.until(trains(tmp_path))
        run.processes[hit].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        assert run.processes[1 - hit].wait(120) == 42
        took = time.monotonic() - stopped
        run.processes[hit].send_signal(signal.SIGCONT)
        assert run.processes[hit].wait(120) != 0, "what was left behind must not go on alone"
    (line,) = (line for line in run.lines(1 - hit) if line.startswith("hallujax"))
    print(f"process {hit} stopped: {took:.1f} s: {line}")
    assert f"process {hit}" in line


@pytest.mark.slow
def test_a_process_that_hangs_in_python_is_named(shared, tiny, straight, tmp_path):
    """Its heartbeats go on; only its work does not. `straight` has compiled what this one runs."""
    del straight
    (shared / "wrong").unlink(missing_ok=True)
    flags = ("--stall-timeout=60",)
    long = "--config.training.epochs=400.0"
    with begin("train", shared, tiny, tmp_path, long, flags=flags, wrong="hangs") as run:
        run.until(trains(tmp_path))
        (shared / "wrong").touch()
        codes = run.wait(240)
    (shared / "wrong").unlink()
    assert codes == [42, 42]
    said = [line for i in range(2) for line in run.lines(i) if line.startswith("hallujax")]
    print(said)
    assert any("nothing has gone on for 60 s" in line and "process 1 on" in line and "behind" in line for line in said)


@pytest.mark.slow
def test_an_error_in_one_process_is_said_in_all(shared, tiny, tmp_path):
    (shared / "wrong").unlink(missing_ok=True)
    long = "--config.training.epochs=400.0"
    with begin("train", shared, tiny, tmp_path, long, wrong="fails") as run:
        run.until(trains(tmp_path))
        (shared / "wrong").touch()
        codes = run.wait(180)
    (shared / "wrong").unlink()
    assert codes == [3, 3]
    for i in range(2):
        (line,) = (line for line in run.lines(i) if line.startswith("hallujax"))
        assert "clip a017 cannot be read" in line and f"process {i}: " in line


@pytest.mark.slow
def test_another_number_of_processes_continues(shared, tiny, straight, tmp_path):
    """Two processes, then one, then four, each with four devices in all, and told of each other: bit for bit."""
    for processes in (2, 1):
        with begin("train", shared, tiny, tmp_path, *LONG, processes=processes, devices=4 // processes) as run:
            before = latest(tmp_path)
            run.until(lambda before=before: latest(tmp_path) > before or latest(tmp_path, "control"))
            run.processes[-1].send_signal(signal.SIGTERM)
            assert set(run.wait(120)) == {143}
    finish("train", shared, tiny, tmp_path, *LONG, processes=4, devices=1)
    assert_bitwise(straight, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.log_every=2", "log_every is 2 here and 1 in process 0"),
        ("--config.stages.control.epochs=2.0", "stages.control.epochs is 2.0 here and 0.7 in process 0"),
        ("--workdir=ELSEWHERE", "--workdir must be one folder that all processes share"),
    ],
)
def test_what_differs_between_processes_is_named(flag, said, shared, tiny, tmp_path):
    own = [flag.replace("ELSEWHERE", str(tmp_path / "elsewhere"))]
    with begin("train", shared, tiny, tmp_path / "run", own=own) as run:
        assert run.wait(300) == [2, 2]
    for i in range(2):
        (line,) = run.lines(i)
        assert said in line
