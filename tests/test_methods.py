"""Every method: who owns what, what cannot leak, and that its declaration is consistent."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hallujax import losses, methods, player_gradients
from hallujax.data.transforms import MODALITIES, TransformOptions, encode, prepare_training
from hallujax.errors import UsageError
from hallujax.evaluation.evaluate import evaluation_step
from hallujax.models import VideoResNet
from hallujax.models.streams import Networks, initialize
from hallujax.training.optimizer import OptimizerOptions, build_optimizers
from hallujax.training.state import TrainState
from hallujax.training.step import initial_state, player_losses, train_step

STREAM = VideoResNet(num_classes=4, stage_sizes=(1, 1), width=4, bottleneck=8)
CONNECTED = STREAM.clone(stage_sizes=(1, 2))  # a block of one unit takes no connection
CASES = {
    "single rgb": ("single_stream", {"modality": "rgb"}),
    "two-stream connected": ("two_stream", {"modalities": {"depth": "depth", "rgb": "rgb"}, "connect": True}),
    "step 4": ("two_stream", {"modalities": {"hallucination": "rgb", "rgb": "rgb"}}),
    "hallucination": ("hallucination", {"layer": "block2"}),
    "hallucination of several layers": ("hallucination", {"layer": ("block1", "features")}),
    "hallucination of features": ("hallucination", {"layer": "features", "soften_student": True}),
    "admd": ("admd", {}),
    "admd minimax": ("admd", {"objective": "minimax", "position": False}),
    "admd authors": ("admd", {"discriminator_batch_norm": True, "discriminator_weight": 0.5}),
    "admd, bounded discriminator": ("admd", {"spectral_norm": True, "discriminator_smoothing": 0.1}),
    "admd, deep discriminator before the bottleneck": (
        "admd",
        {"features": "pooled", "discriminator_hidden": (16, 8, 8), "r1": 0.1},
    ),
    "admd, teacher's classifier": ("admd", {"predict_from": "teacher"}),
    "admd set": ("admd", {"classify_set": True, "predict_from": "discriminator", "task": "object"}),
    "adversarial": ("adversarial", {}),
    "adversarial logistic": (
        "adversarial",
        {"objective": "logistic", "position": False, "classify_set": True, "predict_from": "teacher", "r1": 0.1},
    ),
    "side information": ("side_information", {}),
    "moddrop": ("moddrop", {"modalities": {"depth": "depth", "rgb": "rgb"}}),
    "distillation from an ensemble": ("distillation", {"teachers": {"rgb": "rgb", "rgb2": "rgb"}}),
    "distillation from depth": ("distillation", {"teachers": {"depth": "depth"}, "soften_student": False}),
    "distillation from both": ("distillation", {"teachers": {"depth": "depth", "rgb": "rgb"}}),
    "rgb and joints": ("two_stream", {"modalities": {"joints": "joints", "rgb": "rgb"}}),
    "joints hallucinated": ("hallucination", {"teacher": "joints", "layer": "features"}),
    "depth distilled from two": (
        "distillation",
        {"teachers": {"joints": "joints", "rgb": "rgb"}, "student_modality": "depth"},
    ),
    "admd from joints": ("admd", {"teacher": "joints", "predict_from": "teacher"}),
    "balanced": ("balanced_two_stream", {"modalities": {"depth": "depth", "rgb": "rgb"}}),
    "graph": ("graph_distillation", {"teachers": {"depth": "depth", "joints": "joints"}}),
    "autoencoder": ("translation", {}),
    "depth estimation, connected": (
        "translation",
        {"decoder": "up_projection", "loss": "reverse_huber", "connect": True},
    ),
    "two-stream on generated depth": ("generated_two_stream", {"decoder": "up_projection"}),
    "inverted": ("hallucination", {"teacher": "rgb", "student_modality": "depth", "layer": "block1"}),
}
OPTIONS = TransformOptions(
    flip=0.5,
    shift=1,
    downsample=1,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=500.0,
    depth_far=6000.0,
)


def random_batch(seed=0, clips=4):
    rng = np.random.default_rng(seed)
    return {
        "rgb": rng.integers(0, 256, (clips, 3, 16, 16, 3), dtype=np.uint8),
        "depth": rng.integers(0, 6000, (clips, 3, 16, 16), dtype=np.uint16),
        "joints": rng.normal(size=(clips, 3, 2, 3, 3)).astype(np.float32),
        "flow": rng.normal(size=(clips, 3, 16, 16, 2)).astype(np.float32),
        "label": rng.integers(0, 4, clips).astype(np.int32),
        "mask": np.ones(clips, np.float32),
        "sample": np.arange(clips, dtype=np.uint32),
    }


def fresh(method):
    """`params`, `batch_stats`."""
    shapes = jax.eval_shape(lambda b: encode(b, OPTIONS), random_batch())
    return initialize(method.networks, method.forward, shapes, jax.random.key(1))


def start(method, networks, **optimizer):
    optimizers = build_optimizers(OptimizerOptions(**optimizer), method.players, 10, method.idle)
    return initial_state(*networks, method.players, optimizers), optimizers


def take_step(method, state, optimizers, batch, rounds=None):
    """Operation by operation: methods share these, and a whole step of each would take longer to compile than all."""
    return train_step(
        state,
        batch,
        jnp.float32(1.0),
        jax.random.key(0),
        method=method,
        optimizers=optimizers,
        rounds=rounds or (tuple(dict.fromkeys(method.players.values())),),
        prepare=functools.partial(prepare_training, options=OPTIONS, mirror=(0, 2, 1)),
    )


@pytest.fixture(scope="module", params=list(CASES))
def method(request):
    name, options = CASES[request.param]
    return methods.build(name, CONNECTED if options.get("connect") else STREAM, options)


@pytest.fixture(scope="module")
def networks(method):
    return fresh(method)


def test_every_builder_is_among_the_cases():
    assert {name for name, _ in CASES.values()} == set(methods.BUILDERS)


def changed(before, after):
    return {n: [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before[n], after[n])), strict=True)]
            for n in before}  # fmt: skip


def test_after_a_step_exactly_the_owned_networks_have_changed(method, networks):
    """Parameters and statistics of the owned, not one bit of the others; weight decay on, so idle parts would show."""
    state, optimizers = start(method, networks, weight_decay=0.1)
    after, metrics = take_step(method, state, optimizers, random_batch())
    moved, statistics = changed(state.params, after.params), changed(state.batch_stats, after.batch_stats)
    for network in method.networks:
        assert any(moved[network]) == (network in method.players), network
        if statistics[network]:
            assert any(statistics[network]) == (network in method.players), network
    for network, modules in method.idle.items():
        for module in modules:
            same = jax.tree.map(np.array_equal, state.params[network][module], after.params[network][module])
            assert all(jax.tree.leaves(same)), f"{network}/{module} is idle and moved"
    assert set(after.opt_state) == set(method.players.values())
    assert all(np.isfinite(value) for value in metrics.values())
    assert int(after.step) == 1


def test_a_step_can_be_compiled_and_gives_back_what_it_takes(method, networks):
    """Traced without a value in it: structure, shapes and types stay, so that no later step is compiled anew."""
    state, optimizers = start(method, networks)
    after, _ = jax.eval_shape(lambda state: take_step(method, state, optimizers, random_batch()), state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, getattr(old, "weak_type", False))


def test_privileged_data_cannot_leak_into_prediction(method, networks):
    """Predictions from the test modalities alone equal those from a batch whose other modalities are garbage."""
    batch = random_batch()
    garbage = dict(batch)
    for modality in set(MODALITIES) - set(method.test_modalities):
        garbage[modality] = np.zeros_like(batch[modality]) + 7
    allowed = {k: v for k, v in batch.items() if k not in MODALITIES or k in method.test_modalities}
    predict = jax.jit(functools.partial(evaluation_step, method=method, transforms=OPTIONS))
    alone = predict(*networks, allowed)
    if set(method.modalities.values()) <= set(batch):
        np.testing.assert_allclose(predict(*networks, garbage), alone, rtol=1e-5, atol=1e-5)
    assert alone.shape == (4, 4)
    nets = Networks(method.networks, *networks)
    for modality in method.test_modalities:
        without = {k: v for k, v in encode(allowed, OPTIONS).items() if k != modality}
        if tuple(set(method.test_modalities) - {modality}) in method.also_tested_on:
            assert method.predict(method.forward(nets, without)).shape == (4, 4)
            continue
        with pytest.raises(KeyError):
            method.predict(method.forward(nets, without))


def test_masked_clips_do_not_count(method, networks):
    """Losses of a batch with a masked clip equal those of the batch without it (batch norm in evaluation mode)."""
    batch = encode(random_batch(), OPTIONS)
    masked = batch | {"mask": jnp.array([1.0, 1.0, 1.0, 0.0])}
    fewer = {name: value[:3] for name, value in batch.items()}

    def losses_of(batch):
        outputs = method.forward(Networks(method.networks, *networks), batch)
        return player_losses(method, outputs, batch)[0]

    found = losses_of(masked)
    for player, value in losses_of(fewer).items():
        np.testing.assert_allclose(found[player], value, rtol=1e-5)


def test_hallucination_descends_the_papers_loss():
    options = {"imitation": 0.3, "alpha": 0.2, "temperature": 5.0, "scale": 0.01, "layer": "block2"}
    method = methods.build("hallucination", STREAM, options)
    batch = encode(random_batch(), OPTIONS)
    outputs = method.forward(Networks(method.networks, *fresh(method)), batch)
    student, teacher = outputs["hallucination"], outputs["depth"]
    expected = losses.privileged_distillation(
        losses.generalized_distillation(
            student.logits.mean(1), teacher.logits.mean(1), batch["label"], imitation=0.3, temperature=5.0
        ),
        losses.hallucination(student.maps["block2"], teacher.maps["block2"], scale=0.01),
        alpha=0.2,
    ).mean()
    np.testing.assert_allclose(player_losses(method, outputs, batch)[0]["student"], expected, rtol=1e-5)


def test_admds_discriminator_descends_the_papers_loss():
    method = methods.build("admd", STREAM, {})
    batch = encode(random_batch(), OPTIONS)
    outputs = method.forward(Networks(method.networks, *fresh(method)), batch)
    real, fake = outputs["discriminator/depth"], outputs["discriminator/hallucination"]
    got = player_losses(method, outputs, batch)[0]
    np.testing.assert_allclose(
        got["discriminator"], losses.admd_discriminator(real, fake, batch["label"]).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(got["student"], losses.admd_hallucination(fake, batch["label"]).mean(), rtol=1e-5)


def at_the_start(method, batch, tie=lambda params: params):
    """Outputs, losses and prediction of fresh networks for an encoded batch; `tie` may change their parameters."""
    params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(1))

    @jax.jit
    def run(params, batch_stats, batch):
        outputs = method.forward(Networks(method.networks, params, batch_stats), batch)
        return outputs, player_losses(method, outputs, batch)[0], method.predict(outputs)

    return run(tie(params), batch_stats, batch)


def test_adversarial_players_learn_no_label():
    options = {"objective": "logistic", "discriminator_weight": 0.5}
    method = methods.build("adversarial", STREAM, options)
    batch = encode(random_batch(), OPTIONS)
    outputs, got, _ = at_the_start(method, batch)
    real, fake = outputs["discriminator/depth"], outputs["discriminator/hallucination"]
    assert real.shape == (4, 3, 1)
    # -log sigmoid(z) of the real, -log(1 - sigmoid(z)) of the fake; the student wants its fake called real.
    np.testing.assert_allclose(
        got["discriminator"], 0.5 * (np.log1p(np.exp(-real)) + np.log1p(np.exp(fake))).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(got["student"], np.log1p(np.exp(-fake)).mean(), rtol=1e-5)
    relabelled = batch | {"label": (batch["label"] + 1) % 4}
    for player, value in player_losses(method, outputs, relabelled)[0].items():
        np.testing.assert_allclose(value, got[player], rtol=1e-6)


def test_the_feature_term_of_several_layers_is_their_sum():
    batch = encode(random_batch(), OPTIONS)

    def feature_term(layer):
        method = methods.build("hallucination", STREAM, {"layer": layer})
        outputs, _, _ = at_the_start(method, batch)
        return method.losses(outputs, batch)["student"]["feature"]

    each = [feature_term(layer) for layer in ("block1", "block2", "features")]
    np.testing.assert_allclose(feature_term(("block1", "block2", "features")), sum(each), rtol=1e-5)


def test_r1_is_the_steepness_of_the_discriminators_odds_by_finite_differences():
    """Half the squared gradient of logsumexp(z_k<K) - z_K by the real features, and the discriminator's alone."""
    options = {"r1": 0.3, "position": False, "discriminator_hidden": (6,)}
    method = methods.build("admd", STREAM, options)
    batch = encode(random_batch(), OPTIONS)
    params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(1))
    outputs = method.forward(Networks(method.networks, params, batch_stats), batch)
    judge = jax.tree.map(lambda x: np.asarray(x, np.float64), params["discriminator"])

    def odds(features):
        x = features @ judge["fc1"]["kernel"] + judge["fc1"]["bias"]
        z = np.where(x > 0, x, 0.2 * x) @ judge["logits"]["kernel"] + judge["logits"]["bias"]
        return np.log(np.exp(z[..., :-1]).sum(-1)) - z[..., -1]

    features, step = np.asarray(outputs["depth"].features, np.float64), 1e-6
    steps = step * np.eye(features.shape[-1])
    slopes = np.stack([(odds(features + d) - odds(features - d)) / (2 * step) for d in steps], -1)
    expected = 0.5 * np.square(slopes).sum(-1).mean(1)
    terms = method.losses(outputs, batch)
    np.testing.assert_allclose(terms["discriminator"]["r1"], expected, rtol=1e-4)
    assert "r1" not in terms["student"] and method.weights["r1"] == 0.3
    for clash in ({"spectral_norm": True}, {"discriminator_batch_norm": True}):
        with pytest.raises(UsageError, match="r1 is for a discriminator without"):
            methods.build("admd", STREAM, options | clash)


def test_features_before_the_bottleneck_are_the_mean_of_the_last_maps():
    method = methods.build("admd", STREAM, {"features": "pooled", "discriminator_hidden": (), "position": False})
    batch = encode(random_batch(), OPTIONS)
    params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(1))
    outputs = method.forward(Networks(method.networks, params, batch_stats), batch)
    layer = params["discriminator"]["logits"]
    expected = outputs["depth"].maps["block2"].mean((2, 3)) @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(outputs["discriminator/depth"], expected, rtol=1e-4, atol=1e-5)
    assert method.idle["hallucination"] == ("bottleneck_conv", "bottleneck_bn", "logits")


def test_the_discriminators_accuracy_is_logged():
    method = methods.build("admd", STREAM, {})
    state, optimizers = start(method, fresh(method))
    _, metrics = take_step(method, state, optimizers, random_batch())
    batch = encode(random_batch(), OPTIONS)
    outputs = method.forward(Networks(method.networks, state.params, state.batch_stats), batch)
    forced = outputs | {
        "discriminator/depth": jnp.zeros((4, 3, 5)).at[jnp.arange(4), :, batch["label"]].set(jnp.array([1.0, 1, -1])),
        "discriminator/hallucination": jnp.zeros((4, 3, 5)).at[:2, :, 4].set(1.0),
    }
    found = method.scores(forced, batch)
    np.testing.assert_allclose(found["discriminator_real"][batch["label"] > 0], 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(found["discriminator_fake"], [1, 1, 0, 0])
    assert {f"accuracy/{name}" for name in found} <= set(metrics)


def test_the_teachers_classifier_reads_the_students_features():
    method = methods.build("admd", STREAM, {"predict_from": "teacher"})

    def tie(params):
        return params | {"classifier": {"logits": params["hallucination"]["logits"]}}

    outputs, _, predicted = at_the_start(method, encode(random_batch(), OPTIONS), tie)
    np.testing.assert_allclose(predicted, outputs["hallucination"].logits.mean(1), rtol=1e-5, atol=1e-6)


def test_side_information_descends_its_six_terms():
    method = methods.build("side_information", STREAM, {"scale": 0.1})
    batch = encode(random_batch(), OPTIONS)
    outputs, got, predicted = at_the_start(method, batch)
    depth, rgb, hallucinated = (np.asarray(outputs[n].logits).mean(1) for n in ("depth_head", "rgb", "hallucination"))

    def ce(logits):
        return (np.log(np.exp(logits).sum(1)) - logits[np.arange(4), batch["label"]]).mean()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    feature = sigmoid(outputs["hallucination"].maps["block2"]) - sigmoid(outputs["depth"].maps["block2"])
    expected = ce(depth) + ce(rgb) + ce(hallucinated) + ce((rgb + depth) / 2) + ce((rgb + hallucinated) / 2)
    expected += 0.1 * np.square(feature).reshape(4, -1).sum(1).mean()
    np.testing.assert_allclose(got["streams"], expected, rtol=1e-4)
    np.testing.assert_allclose(predicted, (rgb + hallucinated) / 2, rtol=1e-5, atol=1e-6)
    assert "depth" not in method.players  # or the feature term would drag the teacher to the student


def test_distillation_learns_from_the_mean_of_its_teachers():
    options = {"imitation": 0.3, "temperature": 5.0, "temperature_squared": True}
    method = methods.build("distillation", STREAM, {"teachers": {"depth": "depth", "rgb2": "rgb"}, **options})
    batch = encode(random_batch(), OPTIONS)
    outputs, got, _ = at_the_start(method, batch)
    expected = losses.generalized_distillation(
        outputs["student"].logits.mean(1),
        (outputs["depth"].logits + outputs["rgb2"].logits).mean(1) / 2,
        batch["label"],
        soften_student=True,
        **options,
    ).mean()
    np.testing.assert_allclose(got["student"], expected, rtol=1e-5)
    for teachers in ({}, {"student": "rgb"}):
        with pytest.raises(UsageError, match="one teacher or more"):
            methods.build("distillation", STREAM, {"teachers": teachers})


def test_balancing_scales_each_streams_gradient_by_its_own_pace():
    """The gradients are `two_stream`'s times `losses.learning_pace`; only the faster modality's is smaller."""
    options = {"modalities": {"depth": "depth", "rgb": "rgb"}}
    plain = methods.build("two_stream", STREAM, options)
    balanced = methods.build("balanced_two_stream", STREAM, options | {"alpha": 0.4})
    batch = encode(random_batch(), OPTIONS)
    params, batch_stats = initialize(plain.networks, plain.forward, batch, jax.random.key(1))

    def gradients(method):
        def losses_of(trainable):
            outputs = method.forward(Networks(method.networks, trainable, batch_stats), batch)
            return player_losses(method, outputs, batch)[0], outputs

        return jax.jit(lambda p: player_gradients(losses_of, p, method.players))(params)

    (joint, outputs), (paced, _) = gradients(plain), gradients(balanced)
    own = {n: np.asarray(outputs[n].logits).mean(1) / 2 for n in ("depth", "rgb")}
    score = {n: sum(np.exp(x[i, y]) / np.exp(x[i]).sum() for i, y in enumerate(batch["label"])) for n, x in own.items()}
    fast, slow = sorted(score, key=score.get, reverse=True)
    pace = {fast: 1 - np.tanh(0.4 * score[fast] / score[slow]), slow: 1.0}
    for network in ("depth", "rgb"):
        jax.tree.map(
            lambda a, b, k=pace[network]: np.testing.assert_allclose(a, k * b, rtol=1e-3, atol=1e-6),
            paced[network],
            joint[network],
        )


def test_the_graphs_edges_weigh_the_teachers_and_learn_whom_to_believe():
    """Equal at first; a step that the edges alone take raises the weight of the teacher who agrees with the student."""
    options = {"teachers": {"depth": "depth", "rgb2": "rgb"}, "imitation": 1.0, "temperature": 2.0}
    method = methods.build("graph_distillation", STREAM, options)
    batch = encode(random_batch(), OPTIONS)

    def tie(params):  # the second teacher is the student
        return params | {"rgb2": params["student"]}

    params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(1))
    params = tie(params)

    def forward(edges):
        return method.forward(Networks(method.networks, params | {"edges": edges}, batch_stats), batch)

    outputs = forward(params["edges"])
    np.testing.assert_allclose(outputs["edges"], 0.5)
    softening = {"temperature": 2.0, "soften_student": True, "temperature_squared": True}
    said = {name: outputs[name].logits.mean(1) for name in method.modalities}
    pulls = [losses.soft_divergence(said["student"], said[name], **softening) for name in ("depth", "rgb2")]
    np.testing.assert_allclose(pulls[1], 0, atol=1e-5)
    got = player_losses(method, outputs, batch)[0]["student"]
    np.testing.assert_allclose(got, 0.5 * np.mean(pulls[0]), rtol=1e-4)
    gradient = jax.grad(lambda e: player_losses(method, forward(e), batch)[0]["student"])(params["edges"])
    moved = jax.tree.map(lambda p, g: p - 10.0 * g, params["edges"], gradient)
    assert (forward(moved)["edges"][:, 1] > 0.5).all()
    with pytest.raises(UsageError, match="called edges"):
        methods.build("graph_distillation", STREAM, {"teachers": {"edges": "depth"}})


@pytest.mark.parametrize("connect", [False, True])
def test_generated_depth_takes_the_place_of_depth(connect):
    """What is predicted is a plain two-stream model's answer to RGB and the frames that the decoder made."""
    stream = CONNECTED if connect else STREAM
    method = methods.build("translation", stream, {"decoder": "up_projection", "connect": connect})
    batch = encode(random_batch(), OPTIONS)
    params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(1))
    outputs = method.forward(Networks(method.networks, params, batch_stats), batch)
    assert outputs["generated"].shape == batch["depth"].shape
    error = np.square(np.asarray(outputs["generated"]) - batch["depth"]).mean((1, 2, 3, 4))
    np.testing.assert_allclose(method.losses(outputs, batch)["translator"]["squared_error"], error, rtol=1e-5)
    pair = methods.build("two_stream", stream, {"modalities": {"depth": "depth", "rgb": "rgb"}, "connect": connect})
    nets = Networks(pair.networks, params, batch_stats)
    expected = pair.predict(pair.forward(nets, batch | {"depth": outputs["generated"]}))
    np.testing.assert_allclose(method.predict(outputs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", ["clip", "batch"])
def test_moddrop_blanks_whole_modalities_at_its_rate(draw):
    options = {"modalities": {"depth": "depth", "rgb": "rgb"}, "keep": 0.7, "keep_values": 0.8, "draw": draw}
    method = methods.build("moddrop", STREAM, options)
    ones = {name: jnp.ones((8, 3, 4, 4, 3)) for name in ("rgb", "depth")} | {"sample": jnp.arange(8)}
    keys = jax.random.split(jax.random.key(0), 300)
    corrupted = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: method.corrupt(key, ones)))(keys))
    kept = {name: corrupted[name].any((2, 3, 4, 5)) for name in ("rgb", "depth")}  # [300, 8]
    assert set(np.unique(corrupted["rgb"])) == {0.0, np.float32(1 / 0.8)}
    for name, clips in kept.items():
        assert clips.mean() == pytest.approx(0.7, abs=0.08)
        assert corrupted[name][clips].mean() == pytest.approx(1.0, abs=0.01)
        assert (clips.all(1) | ~clips.any(1)).all() == (draw == "batch")
    assert np.corrcoef(kept["rgb"][:, 0], kept["depth"][:, 0])[0, 1] == pytest.approx(0, abs=0.2)
    half = jax.jit(method.corrupt)(keys[0], {name: value[4:] for name, value in ones.items()})
    np.testing.assert_array_equal(half["rgb"], corrupted["rgb"][0, 4:])  # whichever host has these clips


def test_moddrop_takes_a_missing_modality_for_a_blank_one():
    method = methods.build("moddrop", STREAM, {"modalities": {"depth": "depth", "rgb": "rgb"}})
    assert set(method.also_tested_on) == {("depth",), ("rgb",)}
    batch = encode(random_batch(), OPTIONS)
    _, _, blank = at_the_start(method, batch | {"depth": jnp.zeros_like(batch["depth"])})
    _, _, missing = at_the_start(method, {name: value for name, value in batch.items() if name != "depth"})
    np.testing.assert_allclose(missing, blank, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="keep is 0"):
        methods.build("moddrop", STREAM, {"modalities": {"depth": "depth", "rgb": "rgb"}, "keep": 0.0})


def gradients_of_admd(method, state, batch):
    """By `player_gradients`, and by hand: each network alone, its own player's loss, everything else held still."""

    def losses_of(trainable):
        nets = Networks(
            method.networks, state.params | trainable, state.batch_stats, training=frozenset(method.players)
        )
        return player_losses(method, method.forward(nets, batch), batch)[0]

    trainable = {network: state.params[network] for network in method.players}
    together, _ = jax.jit(lambda t: player_gradients(lambda t: (losses_of(t), None), t, method.players))(trainable)
    by_hand = {
        network: jax.jit(jax.grad(lambda p, n=network, q=player: losses_of({n: p})[q]))(state.params[network])
        for network, player in method.players.items()
    }
    return together, by_hand


def test_player_gradients_of_admd_equal_a_hand_written_version():
    method = methods.build("admd", STREAM, {})
    state, _ = start(method, fresh(method))
    together, by_hand = gradients_of_admd(method, state, encode(random_batch(), OPTIONS))
    for network in method.players:
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(by_hand[network]))
        jax.tree.map(
            lambda a, b, scale=scale: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale),
            together[network],
            by_hand[network],
        )


@pytest.mark.slow
def test_player_gradients_equal_a_hand_written_version_at_resnet50s_size():
    """ResNet-50 2D+1D for teacher and student; the difference's norm against the gradient's.

    At 224x224 it was 2.8e-6 for the student on a CPU: two compiled programs, so two orders of float32 summation.
    """
    method = methods.build("admd", VideoResNet(60, bottleneck=128), {})
    rng = np.random.default_rng(0)
    batch = {
        "rgb": rng.normal(size=(2, 2, 112, 112, 3)).astype(np.float32),
        "depth": rng.normal(size=(2, 2, 112, 112, 3)).astype(np.float32),
        "label": np.array([3, 59], np.int32),
        "mask": np.ones(2, np.float32),
    }
    params, batch_stats = initialize(method.networks, method.forward, batch, jax.random.key(0))
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, {})
    together, by_hand = gradients_of_admd(method, state, batch)
    for network in method.players:
        difference = jax.tree.map(jnp.subtract, together[network], by_hand[network])
        relative = float(optax.tree.norm(difference) / optax.tree.norm(by_hand[network]))
        assert relative < 1e-5, network


def test_alternating_rounds_let_the_second_player_see_the_first_ones_move():
    method = methods.build("admd", STREAM, {})
    state, optimizers = start(method, fresh(method), name="sgd", learning_rate=0.1)
    batch = random_batch()
    together, _ = take_step(method, state, optimizers, batch)
    in_turn, _ = take_step(method, state, optimizers, batch, rounds=(("discriminator",), ("student",)))
    same = jax.tree.map(
        lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-6),
        together.params["discriminator"],
        in_turn.params["discriminator"],
    )
    assert all(jax.tree.leaves(same)), "the first to move moves the same either way"
    assert any(changed({"h": together.params["hallucination"]}, {"h": in_turn.params["hallucination"]})["h"])


def test_corruption_is_for_training_only():
    plain = methods.build("single_stream", STREAM, {"modality": "rgb"})
    state, optimizers = start(plain, fresh(plain))
    dark = dataclasses.replace(plain, corrupt=lambda key, batch: batch | {"rgb": jnp.zeros_like(batch["rgb"])})
    batch = random_batch()
    _, metrics = take_step(plain, state, optimizers, batch)
    _, corrupted = take_step(dark, state, optimizers, batch)
    assert not np.isclose(metrics["rgb/ce"], corrupted["rgb/ce"])
    run = functools.partial(evaluation_step, transforms=OPTIONS)
    rgb = {k: v for k, v in batch.items() if k != "depth"}
    np.testing.assert_array_equal(
        run(state.params, state.batch_stats, rgb, method=plain), run(state.params, state.batch_stats, rgb, method=dark)
    )


def test_weights_must_name_exactly_the_terms():
    method = methods.build("single_stream", STREAM, {"modality": "rgb"})
    state, optimizers = start(method, fresh(method))
    wrong = dataclasses.replace(method, weights={"ce": 1.0, "l2": 1.0})
    with pytest.raises(ValueError, match="weights"):
        take_step(wrong, state, optimizers, random_batch())


def test_unknown_methods_and_options_are_named():
    with pytest.raises(UsageError, match=r"unknown method 'adm'; known: .*admd"):
        methods.build("adm", STREAM, {})
    with pytest.raises(UsageError, match="imitatio"):
        methods.build("hallucination", STREAM, {"imitatio": 0.5})
    with pytest.raises(UsageError, match="predict_from is 'discriminator'; known: classifier, teacher"):
        methods.build("adversarial", STREAM, {"predict_from": "discriminator"})
    for name, options in (
        ("hallucination", {"teacher": "joints", "layer": "block1"}),
        ("side_information", {"teacher": "joints"}),
        ("two_stream", {"modalities": {"joints": "joints", "rgb": "rgb"}, "connect": True}),
        ("moddrop", {"modalities": {"joints": "joints", "rgb": "rgb"}}),
    ):
        with pytest.raises(UsageError, match="needs the maps"):
            methods.build(name, STREAM, options)
    for name, options in (("hallucination", {"layer": "features"}), ("admd", {}), ("adversarial", {})):
        with pytest.raises(UsageError, match=r"set model\.bottleneck"):
            methods.build(name, STREAM.clone(bottleneck=None), options | {"teacher": "joints"})
    with pytest.raises(UsageError, match="two networks"):
        methods.build("two_stream", STREAM, {"modalities": {"rgb": "rgb"}})


@pytest.mark.parametrize(
    "name, options, said",
    [
        (
            "hallucination",
            {"layer": "block2", "imitation": 1.5},
            "imitation is 1.5; it must be from 0 to 1",
        ),  # ascent on the labels
        ("hallucination", {"layer": "block2", "alpha": -1.0}, "alpha is -1.0; it must be from 0 to 1"),
        ("hallucination", {"layer": "block2", "scale": -0.5}, "scale is -0.5; it must be at least 0"),
        ("hallucination", {"layer": "block2", "temperature": 0.0}, "temperature is 0.0; it must be positive"),
        ("side_information", {"scale": -0.5}, "scale is -0.5"),
        ("distillation", {"teachers": {"depth": "depth"}, "imitation": -0.1}, "imitation is -0.1"),
        ("graph_distillation", {"teachers": {"depth": "depth"}, "temperature": -1.0}, "temperature is -1.0"),
        ("single_stream", {"label_smoothing": 1.2}, "label_smoothing is 1.2"),
        ("balanced_two_stream", {"modalities": {"depth": "depth", "rgb": "rgb"}, "alpha": -1.0}, "alpha is -1.0"),
        ("admd", {"discriminator_weight": -1.0}, "discriminator_weight is -1.0"),
        ("admd", {"discriminator_smoothing": 2.0}, "discriminator_smoothing is 2.0"),
        ("admd", {"r1": float("nan")}, "r1 is nan"),
        ("admd", {"task": "object", "discriminator_batch_norm": True}, "batch_norm belongs to task='action'"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_trained(name, options, said):
    with pytest.raises(UsageError, match=said):
        methods.build(name, STREAM, options)
