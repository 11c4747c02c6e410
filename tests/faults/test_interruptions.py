"""R1 and R3: killed or stopped at any moment, any number of times, a run ends like one that was left alone."""

import collections
import pathlib
import re
import signal
import time

import numpy as np
import pytest
from victims import Victim, being_saved, contents, differences, left_by, train_command

from hallujax.training import manifest

# (phase, how often it may have been entered before, seconds after that): where the next signal is aimed.
AIMS = (("starting", 1, 10.0), ("training", 9, 0.2), ("saving", 3, 0.1), ("evaluating", 3, 0.2))


def signalled(victim: Victim, rng: np.random.Generator, aim: tuple[str, int, float], number: int) -> str | None:
    """Sends a signal at a drawn moment of the phase aimed at; the phase it fell into, None if the run ended before."""
    phase, times, seconds = aim
    nth, delay = int(rng.integers(1, times + 1)), float(rng.uniform(0, seconds))
    if not victim.comes_to_phase(phase, nth):
        return None
    moment = time.monotonic() + delay
    if not victim.comes_to(lambda: time.monotonic() >= moment):
        return None
    found = victim.phase[0]
    victim.send(number)
    return found


def aims(rng: np.random.Generator, phases: tuple[str, ...]):
    """Each phase as often as the others, in a drawn order."""
    while True:
        for i in rng.permutation(len(phases)):
            yield next(aim for aim in AIMS if aim[0] == phases[i])


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_runs_end_like_one_left_alone(tiny, straight, environment, tmp_path, figures, kills):
    """SIGKILL while it starts, trains, saves and evaluates, two stages one of which starts from the other."""
    rng, fell, rounds, compared = np.random.default_rng(kills), collections.Counter(), 0, 0
    drawn = aims(rng, ("starting", "training", "saving", "evaluating"))
    while True:
        workdir = tmp_path / f"run{rounds}"
        before = being_saved(workdir)
        victim = Victim(tmp_path, train_command(tiny.parent, workdir), environment)
        found = signalled(victim, rng, next(drawn), signal.SIGKILL) if fell.total() < kills else None
        code = victim.end()
        assert not victim.orphans()
        if found is not None and code == -signal.SIGKILL:
            fell["saving" if being_saved(workdir) - before else found] += 1
            continue
        assert code == 0, victim.said
        left = left_by(workdir)
        assert differences(left, straight[1]) == []
        rounds, compared = rounds + 1, compared + len(left)
        if fell.total() >= kills:
            break
    assert kills < 10 or len(fell) >= 3, f"all kills fell into {fell}"  # a few may well fall into one phase
    figures(
        "50 SIGKILLs, then bit for bit what an uninterrupted run leaves",
        kills=fell.total(),
        fell=fell,
        runs=rounds,
        arrays_and_files_compared=compared,
        different=0,
    )


def lasting(left: dict[str, object]) -> dict[str, object]:
    """Without `latest` and its progress: a run that is stopped leaves a checkpoint of that step too."""
    return {key: value for key, value in left.items() if "/latest/" not in key and not key.endswith("/progress")}


def leaked(before: set[str]) -> list[str]:
    """What is new in shared memory and belongs to no process."""
    new = {path.name for path in pathlib.Path("/dev/shm").iterdir()} - before
    mapped = set()
    for maps in pathlib.Path("/proc").glob("[0-9]*/maps"):
        try:
            text = maps.read_text()
        except OSError:
            continue
        mapped |= {name for name in new if name in text}
    return sorted(new - mapped)


@pytest.mark.slow  # a SIGTERM and a Ctrl-C are in tests/training/test_machines.py
@pytest.mark.parametrize("signals", [2, 20])
def test_sigterm_saves_at_that_step_and_leaves_with_143(tiny, straight, environment, tmp_path, figures, signals):
    rng, fell, rounds, after_stage, waited = np.random.default_rng(signals), collections.Counter(), 0, 0, []
    drawn = aims(rng, ("training", "saving", "evaluating"))
    shared = {path.name for path in pathlib.Path("/dev/shm").iterdir()}
    while True:
        workdir = tmp_path / f"run{rounds}"
        victim = Victim(tmp_path, train_command(tiny.parent, workdir), environment)
        found = signalled(victim, rng, next(drawn), signal.SIGTERM) if fell.total() < signals else None
        sent = time.monotonic()
        code = victim.end()
        assert not victim.orphans()
        if found is not None and code != 0:
            assert code in (143, -signal.SIGTERM), victim.said  # a shell says 143 of both
            waited.append(time.monotonic() - sent)
            fell[found] += 1
            if at := re.search(r"stopped in (\w+) at step (\d+); the same command continues there", victim.said):
                saved = workdir / at[1] / "checkpoints" / "latest"
                assert max(int(path.name) for path in saved.glob("[0-9]*")) == int(at[2])
                assert (saved / at[2] / manifest.NAME).exists() and manifest.damage(saved / at[2]) is None
            else:  # while a finished stage was evaluated, or just after, when all is saved
                said = re.search(r"stopped after (\w+); the same command goes on with the next stage", victim.said)
                assert said or code == -signal.SIGTERM
                after_stage += 1
            continue
        assert code == 0, victim.said
        assert differences(lasting(left_by(workdir)), lasting(straight[1])) == []
        rounds += 1
        if fell.total() >= signals:
            break
    assert leaked(shared) == []
    figures(
        "SIGTERM saves that step, exit code 143, nothing left behind",
        signals=fell.total(),
        fell=fell,
        stopped_between_stages=after_stage,
        slowest_seconds=round(max(waited), 1),
        median_seconds=round(float(np.median(waited)), 1),
        orphans=0,
        shared_memory_left=0,
        runs=rounds,
    )


@pytest.mark.slow  # one kill is in tests/data/test_convert.py
@pytest.mark.parametrize("kills", [3, 20])
def test_killed_preparations_leave_the_same_bytes(tiny, environment, tmp_path, figures, kills):
    """SIGKILL to the parent and its workers, from the imports to the last rename."""
    rng, wanted = np.random.default_rng(kills), contents(tiny)
    fell, number = collections.Counter(), 0
    while fell.total() < kills:
        out = tmp_path / f"out{number}"
        victim = Victim(
            tmp_path, ["prepare", "mocap_rgbd", "--preset=tiny", f"--out={out}", "--workers=2"], environment
        )
        rendering = rng.random() < 0.8
        if victim.comes_to(lambda out=out, aimed=rendering: not aimed or any(out.glob(".*.partial"))):
            moment = time.monotonic() + rng.uniform(0, 4.0)
            if victim.comes_to(lambda moment=moment: time.monotonic() >= moment):
                begun = any(out.glob(".*.partial"))
                victim.send(signal.SIGKILL)
                fell["rendering" if begun else "starting"] += 1
        victim.end()
        assert not victim.orphans()
        if (out / "mocap_rgbd").exists():
            assert contents(out / "mocap_rgbd") == wanted
            number += 1
    victim = Victim(tmp_path, ["prepare", "mocap_rgbd", "--preset=tiny", f"--out={out}", "--workers=2"], environment)
    assert victim.end() == 0, victim.said
    assert contents(out / "mocap_rgbd") == wanted and [path.name for path in out.iterdir()] == ["mocap_rgbd"]
    figures("killed preparations end with the same bytes", kills=fell.total(), fell=fell, datasets=number + 1)
