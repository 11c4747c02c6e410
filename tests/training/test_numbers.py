"""Numbers that are not finite: the step changes nothing, the run counts, names and stops; in real steps and runs."""

import dataclasses
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax import methods
from hallujax.console import Console
from hallujax.data.pipeline import rows_of_batch, training_batches
from hallujax.data.transforms import TransformOptions, encode, prepare_training
from hallujax.errors import NotFiniteError
from hallujax.experiment import from_json
from hallujax.models import VideoResNet
from hallujax.models.streams import initialize
from hallujax.training import loop, packing
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.metrics_log import CLOCK, read_metrics
from hallujax.training.optimizer import OptimizerOptions, build_optimizers
from hallujax.training.stages import train
from hallujax.training.step import all_finite, initial_state, train_step
from hallujax.training.stop import Stopped
from hallujax.training.watch import Watch

OPTIONS = TransformOptions(
    flip=0.5,
    shift=1,
    downsample=1,
    rgb_normalization="imagenet",
    depth_encoding="raw",
    depth_near=500.0,
    depth_far=6000.0,
)
PLACES = ("depth", "rgb", "loss", "gradient", "statistics", "update")
POISONS = (np.nan, np.inf, -np.inf, 3e38)


@jax.custom_vjp
def spoiled_gradient(x, poison):
    """The identity, whose gradient is multiplied by `poison`."""
    del poison
    return x


spoiled_gradient.defvjp(lambda x, poison: (x, poison), lambda poison, g: (g * poison, jnp.zeros_like(poison)))


class Step:
    """A compiled ADMD step in which something can go wrong; a poison is a factor, and to frames it is added."""

    def __init__(self):
        plain = methods.build("admd", VideoResNet(num_classes=4, stage_sizes=(1, 1), width=4, bottleneck=8), {})

        def prepare(batch, key):
            prepared = prepare_training(batch, key, options=OPTIONS)
            for place in ("rgb", "depth"):
                bad = prepared[place].at[1, 0, 2, 3].add(batch["poison"][0, PLACES.index(place)])
                prepared[place] = bad
            return prepared

        def losses(outputs, batch):
            factor = batch["poison"][0]
            terms = plain.losses(outputs, batch)
            fool = terms["student"]["fool"] * factor[PLACES.index("loss")]
            return terms | {"student": {"fool": spoiled_gradient(fool, factor[PLACES.index("gradient")])}}

        def forward(nets, batch):
            outputs = plain.forward(nets, batch)
            moved = nets.batch_stats["hallucination"]
            spoil = batch["poison"][0, PLACES.index("statistics")]
            nets.batch_stats["hallucination"] = jax.tree.map(lambda x: x * spoil, moved)
            return outputs

        self.method = dataclasses.replace(plain, losses=losses, forward=forward)
        optimizers = build_optimizers(OptimizerOptions(name="adam", learning_rate=1e-3), plain.players, 100)
        shapes = jax.eval_shape(lambda b: encode(b, OPTIONS), self.batch(0))
        params, batch_stats = initialize(plain.networks, plain.forward, shapes, jax.random.key(1))
        self.first = initial_state(params, batch_stats, plain.players, optimizers)
        self.run = jax.jit(
            functools.partial(
                train_step,
                method=self.method,
                optimizers=optimizers,
                rounds=(("student", "discriminator"),),
                prepare=prepare,
            )
        )

    @staticmethod
    def batch(seed, place="", poison=1.0):
        rng = np.random.default_rng(seed)
        factors = np.array([0, 0, 1, 1, 1, 1], np.float32)
        if place:
            factors[PLACES.index(place)] = poison
        return {
            "rgb": rng.integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8),
            "depth": rng.integers(0, 6000, (4, 2, 16, 16), dtype=np.uint16),
            "label": rng.integers(0, 4, 4).astype(np.int32),
            "mask": np.ones(4, np.float32),
            "sample": np.arange(4, dtype=np.uint32),
            "poison": np.tile(factors, (4, 1)),
        }

    def __call__(self, state, seed, place="", poison=1.0):
        # An absurd learning rate is the factor that the plateau gives.
        scale = poison if place == "update" else 1.0
        return self.run(state, self.batch(seed, place, poison), jnp.float32(scale), jax.random.key(0))


@pytest.fixture(scope="module")
def step():
    return Step()


def same(a, b):
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_a_finite_step_moves_everything_it_should(step):
    state, metrics = step(step.first, 0)
    assert metrics["skipped"] == 0 and state.step == 1
    for tree in ("params", "batch_stats"):
        assert not same(getattr(state, tree)["hallucination"], getattr(step.first, tree)["hallucination"])
        assert same(getattr(state, tree)["depth"], getattr(step.first, tree)["depth"])
    assert not same(state.params["discriminator"], step.first.params["discriminator"])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_its_number_alone(step, place, poison):
    before, _ = step(step.first, 0)
    after, metrics = step(before, 1, place, poison)
    assert metrics["skipped"] == 1
    assert same(after.replace(step=before.step), before) and after.step == before.step + 1
    # And the next one is what it would have been, but for its number.
    assert same(step(after, 2)[0].replace(step=before.step), step(before, 2)[0].replace(step=before.step))


def test_a_hundred_poisoned_runs_keep_their_parameters_finite(step):
    """R9: of 100 runs of 4 steps, one to four of them poisoned at random, none ever holds a number not finite.

    3e38 may pass, finite as it is: what it makes of the networks is then caught in the steps after it.
    """
    finite, rng = jax.jit(all_finite), np.random.default_rng(9)
    skipped = 0
    for run in range(100):
        state = step.first
        poisoned = set(rng.choice(4, rng.integers(1, 5), replace=False).tolist())
        for number in range(4):
            place = PLACES[rng.integers(len(PLACES))] if number in poisoned else ""
            before = state
            state, metrics = step(state, 4 * run + number, place, POISONS[rng.integers(len(POISONS))])
            assert finite((state.params, state.batch_stats, state.opt_state)), (run, number, place)
            if metrics["skipped"]:
                assert min(poisoned) <= number and same(state.params, before.params)
                skipped += 1
    assert skipped > 150


def test_losses_that_leap_are_told_from_those_that_wander():
    watch, rng = Watch(), np.random.default_rng(0)

    def look(loss):
        return watch.look({"skipped": 0, "bad_clips": 0.0, "loss/rgb": loss})

    for value in 2 ** rng.normal(size=300):
        assert look(float(value)) == {}
    median = float(np.median(watch.losses["loss/rgb"]))
    assert look(100.0) == {"loss/rgb": (100.0, median)}
    assert look(100.0) == {}, "as high as the last one, which was told"
    negative = Watch()
    for value in (-2 - 0.1 * rng.random(40)).tolist():
        assert negative.look({"skipped": 0, "bad_clips": 0, "loss/min-max": value}) == {}
    assert negative.look({"skipped": 0, "bad_clips": 0, "loss/min-max": 0.5})
    young = Watch()
    assert [young.look({"skipped": 0, "bad_clips": 0, "loss/rgb": x}) for x in (1.0, 1e6)] == [{}, {}]


def test_the_watch_goes_on_from_its_counters():
    watch = Watch()
    for number in range(60):
        watch.look({"skipped": number % 7 == 0, "bad_clips": number % 3, "loss/rgb": 1.0 + number})
    again = Watch(**json.loads(json.dumps(watch.counters())))
    assert again == watch and watch.skipped == 9 and watch.bad_clips == 60
    assert len(watch.losses["loss/rgb"]) == 51


def test_one_in_a_thousand_bad_clips_is_borne_and_no_more():
    """As often as chance would have it: the first one anywhere, 1 in 2,000 for ever, 1 in 400 not for long."""
    assert not Watch(bad_clips=1).too_many_bad(4)
    assert Watch(bad_clips=2).too_many_bad(64)
    for read in range(2_000, 200_000, 2_000):
        assert not Watch(bad_clips=read // 2_000).too_many_bad(read)
    assert Watch(bad_clips=25).too_many_bad(10_000)


def test_the_clips_of_a_batch_are_those_that_were_read(tiny):
    rows = np.arange(5, 35)
    taken = []

    class Rows:
        def __call__(self, samples, rows):
            taken.append(rows)
            return {"row": rows}

    batches = training_batches(Rows(), rows, batch_size=8, seed=3, position=16)
    for number in range(2, 7):
        np.testing.assert_array_equal(next(batches)["row"], rows_of_batch(rows, batch_size=8, seed=3, number=number))


# Whole runs


@pytest.fixture
def one(experiment):
    """A stage of twelve steps, checkpointed every three."""
    rgb = experiment.stages["rgb"]
    rgb = dataclasses.replace(rgb, model=rgb.model | {"stage_sizes": (1,)}, epochs=4.0, evaluations=3)
    return dataclasses.replace(experiment, stages={"rgb": rgb}, systems=(), checkpoint_every=3)


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the loss of chosen samples NaN, in the step that the loop really compiles."""

    def choose(*samples):
        build = loop.build_method

        def spoiled(stage, classes):
            method = build(stage, classes)

            def losses(outputs, batch):
                bad = jnp.isin(batch["sample"], jnp.array(samples, jnp.uint32))
                terms = method.losses(outputs, batch)
                return jax.tree.map(lambda term: jnp.where(bad, jnp.nan, term), terms)

            return dataclasses.replace(method, losses=losses)

        monkeypatch.setattr(loop, "build_method", spoiled)

    return choose


def latest(folder, step=None):
    """Step, arrays by name and progress of the newest checkpoint, or of that of `step`."""
    checkpoints = Checkpoints(folder / "checkpoints")
    step = checkpoints._latest.latest_step() if step is None else step
    restored = checkpoints._latest.restore(step)
    checkpoints.close()
    entries = [packing.Entry(*entry) for entry in restored["progress"]["arrays"]]
    return step, packing.unpack(restored["state"], entries), restored["progress"]


def test_skipped_steps_are_counted_named_and_resumed_bit_for_bit(one, poisoned, tmp_path, capsys):
    poisoned(5, 18)  # of batches of four: steps 2 and 5
    train(one, tmp_path / "straight", Console())
    said = capsys.readouterr().out
    assert "2 of 12 steps were not finite and skipped" in said

    class Stops(Console):
        def advance(self, work, text):
            if text in ("rgb 2/12", "rgb 5/12"):
                os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Stopped):
            train(one, tmp_path / "broken", Stops())
    train(one, tmp_path / "broken", Console())

    runs = [tmp_path / name / "rgb" for name in ("straight", "broken")]
    networks, lines = [], []
    for folder in runs:
        checkpoints = Checkpoints(folder / "checkpoints")
        networks.append(checkpoints.restore_best())
        checkpoints.close()
        found = read_metrics(folder)
        lines.append([{k: v for k, v in line.items() if k not in CLOCK} for line in found])
        assert json.loads((folder / "stage.json").read_text())["skipped_steps"] == 2
    assert same(*networks) and lines[0] == lines[1]
    told = [line for line in lines[0] if "not_finite" in line]
    assert [line["step"] for line in told] == [2, 5]
    assert all(line["not_finite"]["loss/rgb"] == "nan" and len(set(line["clips"])) == 4 for line in told)
    for clip in told[0]["clips"]:
        assert clip in said
    counted = {line["step"]: line["skipped"] for line in lines[0] if "skipped" in line}
    assert counted[1] == 0 and counted[2] == 1 and counted[4] == 1 and counted[12] == 2


def test_a_run_that_stays_not_finite_stops_with_what_was_before(one, poisoned, tmp_path):
    """From step 5 on nothing is finite: the checkpoint at the stop holds what step 4 left."""
    patient = dataclasses.replace(one, stages={"rgb": dataclasses.replace(one.stages["rgb"], skipped_steps=2)})
    poisoned(*range(16, 48))
    with pytest.raises(
        NotFiniteError, match=r"stage rgb at step 7: .* is nan, in 3 steps in a row; the last one's clips"
    ):
        train(patient, tmp_path / "run", Console())
    step, state, progress = latest(tmp_path / "run" / "rgb")
    assert step == 8 and progress["watch"]["in_a_row"] == 4  # the eighth had been dispatched when the seventh was read

    straight = dataclasses.replace(one, checkpoint_every=4)
    stopped = dataclasses.replace(straight, stages={"rgb": dataclasses.replace(one.stages["rgb"], skipped_steps=0)})
    with pytest.raises(NotFiniteError, match="at step 5"):
        train(stopped, tmp_path / "other", Console())
    _, before, _ = latest(tmp_path / "other" / "rgb", 4)
    assert same({k: v for k, v in state.items() if k != "step"}, {k: v for k, v in before.items() if k != "step"})
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))

    # The same settings stop again at once; with a cure or more patience the same folder goes on.
    with pytest.raises(NotFiniteError, match=r"at step 9: .*in 5 steps in a row"):
        train(patient, tmp_path / "run", Console())


def test_an_absurd_learning_rate_never_reaches_the_parameters(one, tmp_path):
    """1e39 is infinite in float32: every update is, so every step is skipped and the first networks remain.

    With more patience than there are steps before the first validation, that stops it.
    """
    rgb = one.stages["rgb"]
    broken = dataclasses.replace(
        rgb, optimizer=dataclasses.replace(rgb.optimizer, learning_rate=1e39, warmup=0.0), skipped_steps=3
    )
    with pytest.raises(
        NotFiniteError, match=r"stage rgb at step 4: an update is not finite, in 4 steps in a row"
    ) as told:
        train(dataclasses.replace(one, stages={"rgb": broken}), tmp_path, Console())
    assert told.value.exit_code == 4
    _, state, _ = latest(tmp_path / "rgb")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_validation_that_is_not_finite_names_clips_and_keeps_the_best(one, tmp_path):
    """At 1e15 the parameters are finite and the logits, of two blocks, are not."""
    rgb = one.stages["rgb"]
    rgb = dataclasses.replace(rgb, model=rgb.model | {"stage_sizes": (1, 2)})
    broken = dataclasses.replace(
        rgb, optimizer=dataclasses.replace(rgb.optimizer, learning_rate=1e15, warmup=0.0), skipped_steps=100
    )
    message = r"in stage rgb at step 4: 12 of 12 clips have logits that are not finite: \w+.* and 4 more; the best"
    with pytest.raises(NotFiniteError, match=f"{message} checkpoint does not exist"):
        train(dataclasses.replace(one, stages={"rgb": broken}), tmp_path, Console())


def test_what_the_settings_of_a_stopped_run_may_become(one):
    """Neither the patience nor what is done about bad records makes another run of it; old run.json have neither."""
    changed = dataclasses.replace(
        one,
        data=dataclasses.replace(one.data, bad_records="skip"),
        stages={"rgb": dataclasses.replace(one.stages["rgb"], skipped_steps=0)},
    )
    assert changed.identity("rgb") == one.identity("rgb")
    assert "skipped_steps" not in json.dumps(one.identity("rgb"))
    old = json.loads(json.dumps(dataclasses.asdict(one)))
    del old["data"]["bad_records"], old["stages"]["rgb"]["skipped_steps"]
    assert from_json(old).identity("rgb") == one.identity("rgb")
