"""VideoResNet's own promises: time, connections, shapes and types. `test_resnet_parity.py` holds its arithmetic."""

import functools

import flax.linen as nn
import flax.traverse_util as tree
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax.errors import UsageError
from hallujax.models import VideoResNet, connections, head_of
from hallujax.models.layers import BatchNorm

SMALL = {"num_classes": 5, "stage_sizes": (2, 2), "width": 4}


def clips_of(frames, seed=0, size=32):
    return np.random.default_rng(seed).normal(size=(2, frames, size, size, 3)).astype(np.float32)


def drawn(model, clips, temporal=False, seed=1):
    """Variables from NumPy, which spares compiling `init`: He kernels, lively statistics.

    The temporal layers are the identity unless `temporal`.
    """
    rng = np.random.default_rng(seed)

    def draw(path, like):
        if "temporal" in path and not temporal:
            eye = np.zeros(like.shape)
            if path[-1] == "kernel":
                eye[like.shape[0] // 2] = np.eye(like.shape[1])
            return jnp.asarray(eye, jnp.float32)
        if path[-1] in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, like.shape)
        else:
            value = rng.normal(scale=np.sqrt(2 / np.prod(like.shape[:-1])) if like.ndim > 1 else 0.1, size=like.shape)
        return jnp.asarray(value, jnp.float32)

    shapes = tree.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), clips))
    return tree.unflatten_dict({path: draw(path, like) for path, like in shapes.items()})


def run(model, variables, clips, **arguments):
    return jax.jit(functools.partial(model.apply, train=False))(variables, clips, **arguments)


@pytest.mark.parametrize(("layout", "stage_sizes"), [("torchvision", (2, 1)), ("slim", (1, 3))])
def test_with_identity_temporal_layers_frames_are_independent(layout, stage_sizes):
    model = VideoResNet(3, stage_sizes, 4, layout=layout)
    clips = clips_of(4)
    together = run(model, drawn(model, clips), clips)
    alone = run(model, drawn(model, clips), clips.reshape(8, 1, 32, 32, 3))
    for name, value in together.maps.items():
        np.testing.assert_allclose(value, alone.maps[name].reshape(value.shape), atol=1e-5)
    np.testing.assert_allclose(together.logits, alone.logits.reshape(2, 4, 3), atol=1e-5)
    moved = run(model, drawn(model, clips, temporal=True), clips)
    assert np.abs(moved.logits - together.logits).max() > 1e-3


def test_identity_kernel_is_the_identity_and_authors_copy_channel_1_of_the_previous_frame():
    frames = np.random.default_rng(0).normal(size=(6, 4))  # T, C

    def over_time(kernel):
        padded = np.pad(frames, ((1, 1), (0, 0)))
        return sum(padded[k : k + 6] @ np.asarray(kernel[k]) for k in range(3))

    kernels = {}
    for init in ("identity", "authors_code"):
        model = VideoResNet(3, (1,), 4, temporal_kernel=3, temporal_init=init)
        made = jax.jit(model.init)(jax.random.key(0), clips_of(1))
        kernels[init] = made["params"]["block1"]["unit1"]["temporal"]["kernel"]
    np.testing.assert_array_equal(over_time(kernels["identity"]), frames)
    previous = np.pad(frames, ((1, 0), (0, 0)))[:6, 1:2]
    np.testing.assert_array_equal(over_time(kernels["authors_code"]), np.repeat(previous, 4, axis=1))


def test_temporal_layers_sit_in_unit_2_or_the_only_unit():
    model = VideoResNet(3, (1, 2, 3, 1), 4, temporal_kernel=3)
    params = jax.eval_shape(model.init, jax.random.key(0), clips_of(2))["params"]
    kernels = {k[:-1]: v.shape for k, v in tree.flatten_dict(params).items() if k[-2:] == ("temporal", "kernel")}
    assert kernels == {
        ("block1", "unit1", "temporal"): (3, 4, 4),
        ("block2", "unit2", "temporal"): (3, 8, 8),
        ("block3", "unit2", "temporal"): (3, 16, 16),
        ("block4", "unit1", "temporal"): (3, 32, 32),
    }


def test_outputs_are_float32_and_maps_follow_the_compute_type():
    model = VideoResNet(**SMALL, dtype=jnp.bfloat16, bottleneck=6)
    variables = drawn(model, clips_of(2))
    train = functools.partial(VideoResNet.apply, train=True, mutable=["batch_stats"])
    output, moved = jax.jit(functools.partial(train, model))(variables, clips_of(2))
    assert output.logits.dtype == output.features.dtype == jnp.float32
    assert output.features.shape == (2, 2, 6) and output.logits.shape == (2, 2, 5)
    assert {v.dtype for v in output.maps.values()} == {jnp.dtype(jnp.bfloat16)}
    assert {v.dtype for v in jax.tree.leaves(moved)} == {jnp.dtype(jnp.float32)}
    exact, _ = jax.jit(functools.partial(train, model.clone(dtype=jnp.float32)))(variables, clips_of(2))
    expected = exact.maps["block1"]
    assert 0 < np.abs(expected - output.maps["block1"]).max() < 0.05 * np.abs(expected).max()


def test_maps_and_blocks():
    """At 32x32, torchvision strides blocks 2 to 4 and slim blocks 1 to 3."""
    sides = {"torchvision": [8, 4, 2, 1], "slim": [4, 2, 1, 1]}
    for layout, expected in sides.items():
        model = VideoResNet(3, (2, 1, 2, 2), 4, layout=layout)
        maps = jax.eval_shape(model.init_with_output, jax.random.key(0), clips_of(3))[0].maps
        assert [maps[f"block{i}"].shape for i in range(1, 5)] == [
            (2, 3, side, side, 16 * 2**i) for i, side in enumerate(expected)
        ]
        sums = {k for k in maps if "/" in k}
        assert sums == {f"block{i}/unit1/preactivation" for i in (1, 3, 4)}


def hand_written_block(variables, x, modulation, frames):
    """Block 1 of the small torchvision network in evaluation mode, from NumPy-like primitives; x [N, H, W, C]."""
    params, stats = variables["params"]["block1"], variables["batch_stats"]["block1"]

    def norm(unit, name, x):
        p, s = params[unit][name], stats[unit][name]
        return (x - s["mean"]) / jnp.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    def conv(unit, name, x):
        kernel = params[unit][name]["kernel"]
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def branch(unit, x, temporal):
        x = nn.relu(norm(unit, "bn1", conv(unit, "conv1", x)))
        x = nn.relu(norm(unit, "bn2", conv(unit, "conv2", x)))
        if temporal:
            clips = x.reshape(-1, frames, *x.shape[1:])
            kernel, bias = params[unit]["temporal"]["kernel"], params[unit]["temporal"]["bias"]
            out = [
                sum(clips[:, t + k - 2] @ kernel[k] for k in range(5) if 0 <= t + k - 2 < frames) for t in range(frames)
            ]
            x = nn.relu(jnp.stack(out, 1) + bias).reshape(x.shape)
        return norm(unit, "bn3", conv(unit, "conv3", x))

    first = norm("unit1", "shortcut_bn", conv("unit1", "shortcut_conv", x)) + branch("unit1", x, False)
    inputs = nn.relu(first)
    return nn.relu(inputs + branch("unit2", inputs + first * modulation, True)), first


def test_connections_enter_the_residual_branch_only():
    model = VideoResNet(**SMALL)
    variables = drawn(model, clips_of(5), temporal=True)
    other = run(model, drawn(model, clips_of(5), seed=2), clips_of(5, seed=3))
    given = connections(other)
    np.testing.assert_array_equal(given[0], np.maximum(other.maps["block1/unit1/preactivation"], 0))
    ours = run(model, variables, clips_of(5), modulation=given)
    plain = run(model, variables, clips_of(5))

    stem = nn.max_pool(  # block 1 has the stem's output as its input
        nn.relu(_stem(variables, clips_of(5))), (3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
    )
    expected, first = hand_written_block(variables, stem, given[0].reshape(10, 8, 8, 16), 5)
    np.testing.assert_allclose(ours.maps["block1"].reshape(expected.shape), expected, atol=1e-4)
    np.testing.assert_allclose(ours.maps["block1/unit1/preactivation"].reshape(first.shape), first, atol=1e-4)
    assert np.abs(ours.maps["block1"] - plain.maps["block1"]).max() > 1e-2

    nothing = run(model, variables, clips_of(5), modulation=jax.tree.map(jnp.zeros_like, given))
    np.testing.assert_array_equal(nothing.logits, plain.logits)


def _stem(variables, clips):
    params, stats = variables["params"]["bn1"], variables["batch_stats"]["bn1"]
    x = jax.lax.conv_general_dilated(
        clips.reshape(-1, *clips.shape[2:]),
        variables["params"]["conv1"]["kernel"],
        (2, 2),
        ((3, 3), (3, 3)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]


def test_connections_send_gradients_into_both_streams():
    model = VideoResNet(**SMALL)

    def loss(both):
        other = model.apply(both["other"], clips_of(2, seed=3))
        return jnp.square(model.apply(both["own"], clips_of(2), modulation=connections(other)).logits).sum()

    both = {"own": drawn(model, clips_of(2)), "other": drawn(model, clips_of(2), seed=2)}
    gradients = jax.jit(jax.grad(loss))(both)
    for stream in ("own", "other"):
        assert np.abs(gradients[stream]["params"]["conv1"]["kernel"]).max() > 0


def test_object_bottleneck_is_a_convolution_over_the_last_map():
    model = VideoResNet(**SMALL, bottleneck=6, bottleneck_pooling="convolution", bottleneck_norm=False)
    variables = drawn(model, clips_of(1))
    output = run(model, variables, clips_of(1))
    last, dense = output.maps["block2"], variables["params"]["bottleneck_conv"]
    kernel = dense["kernel"].reshape(4, 4, 32, 6)
    expected = nn.relu(jnp.einsum("bthwc,hwcd->btd", last, kernel) + dense["bias"])
    np.testing.assert_allclose(output.features, expected, atol=1e-4)
    assert "bottleneck_bn" not in variables["params"]


def test_batch_norm_moves_its_statistics_as_torch_does():
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(6, 4)).astype(np.float32)
    layer = BatchNorm(train=True, momentum=0.9)
    variables = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(4))
    out, moved = layer.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_allclose(out, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * x.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "caffe"}, "layout='caffe' is unknown; use one of torchvision, slim"),
        ({"temporal_init": "eye"}, "temporal_init='eye' is unknown"),
        ({"temporal_kernel": 4}, "temporal_kernel=4 must be odd"),
    ],
)
def test_unknown_options_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        VideoResNet(**SMALL | arguments).init(jax.random.key(0), clips_of(1))


def test_misplaced_modulation_is_refused():
    model, single = VideoResNet(**SMALL), VideoResNet(5, (1, 2), 4)
    given = [jnp.ones((2, 1, 8, 8, 16)), None]
    with pytest.raises(UsageError, match="1 modulations for 2 blocks"):
        jax.eval_shape(model.init, jax.random.key(0), clips_of(1), modulation=given[:1])
    assert connections(run(single, drawn(single, clips_of(1)), clips_of(1)))[0] is None
    with pytest.raises(UsageError, match="block1 has one unit"):
        jax.eval_shape(single.init, jax.random.key(0), clips_of(1), modulation=given)


@pytest.mark.parametrize(
    "bottleneck",
    [
        {},
        {"bottleneck": 6},
        {"bottleneck": 6, "bottleneck_pooling": "convolution"},
        {"bottleneck": 6, "bottleneck_pooling": "convolution", "bottleneck_norm": False},
    ],
)
def test_a_head_is_the_top_of_its_stream(bottleneck):
    """On the stream's last map, or its features, and with its part of the stream's variables, it gives its logits."""
    model = VideoResNet(5, (1, 1), 4, **bottleneck)
    clips = clips_of(3)
    variables = drawn(model, clips)
    whole = run(model, variables, clips)
    for above, below in (("maps", whole.maps["block2"]), ("features", whole.features)):
        head = head_of(model, above)
        part = head.part_of(variables)
        fresh = jax.eval_shape(head.init, jax.random.key(0), below)
        shapes = [jax.tree.map(jnp.shape, {"params": {}, "batch_stats": {}, **tree}) for tree in (part, fresh)]
        assert shapes[0] == shapes[1], "nothing more than its part, nothing less"
        np.testing.assert_allclose(run(head, part, below), whole.logits, rtol=1e-5, atol=1e-5)
