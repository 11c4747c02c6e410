"""Class-activation maps: the closed form without a bottleneck, the definition by differences with one, the overlay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoded import pictures

import hallujax
from hallujax.data.transforms import TransformOptions
from hallujax.deploy.activation import class_activations, colours, overlay
from hallujax.deploy.export import write_export
from hallujax.deploy.run import read_run
from hallujax.deploy.system import Member, RgbSystem
from hallujax.errors import UsageError
from hallujax.models.streams import initialize

STEP4 = "Hallucination + RGB (step 4)"
TRANSFORMS = TransformOptions(
    flip=0.0,
    shift=0,
    downsample=1,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=1500.0,
    depth_far=5500.0,
)


def one_stream(bottleneck):
    """A system of one stream with fresh weights."""
    model = {"stage_sizes": (1, 2), "width": 4, "bottleneck": bottleneck, "dtype": "float32"}
    member = Member(stage="rgb", method="single_stream", options={"modality": "rgb"}, model=model)
    system = RgbSystem(
        name="RGB", classes=("a", "b", "c"), frames=2, frame_size=(32, 32), transforms=TRANSFORMS, members=(member,)
    )
    method = system.methods["rgb"]
    clip = {"rgb": jnp.zeros((1, 2, 32, 32, 3))}
    params, batch_stats = initialize(method.networks, method.forward, clip, jax.random.key(0))
    return system, {"rgb": {"params": params, "batch_stats": batch_stats}}


def unit(maps):
    """Each clip's `[T, h, w]` divided by its largest value."""
    return maps / maps.max(axis=(1, 2, 3), keepdims=True)


def test_without_a_bottleneck_it_is_the_class_activation_map():
    system, variables = one_stream(0)
    clips, classes = np.stack([pictures(2, 32), pictures(2, 32)[::-1]])[:, :, :, :32], np.array([2, 0])
    found = jax.jit(lambda *a: class_activations(system, *a))(variables, clips, classes)["rgb"]
    last = np.asarray(system.outputs(variables, clips)["rgb"]["rgb"].maps["block2"])
    kernel = np.asarray(variables["rgb"]["params"]["rgb"]["logits"]["kernel"])
    zhou = np.stack([last[i] @ kernel[:, k] for i, k in enumerate(classes)])
    assert (zhou < 0).any(), "else the cut is not tested"
    np.testing.assert_allclose(found, unit(np.maximum(zhou, 0)), atol=1e-5)


def test_with_a_bottleneck_it_follows_the_derivative():
    """Against central differences of the clip's logit with float64 NumPy above the maps."""
    system, variables = one_stream(8)
    clips = pictures(2, 32)[None, :, :, :32]
    params = jax.tree.map(np.float64, variables["rgb"]["params"]["rgb"])
    norm = jax.tree.map(np.float64, variables["rgb"]["batch_stats"]["rgb"]["bottleneck_bn"])
    last = np.float64(system.outputs(variables, clips)["rgb"]["rgb"].maps["block2"])[0]

    def logit(maps):
        x = maps.mean((1, 2)) @ params["bottleneck_conv"]["kernel"]
        x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * params["bottleneck_bn"]["scale"]
        x = np.maximum(x + params["bottleneck_bn"]["bias"], 0)
        return (x @ params["logits"]["kernel"] + params["logits"]["bias"]).mean(0)[1]

    alpha = np.zeros((2, last.shape[-1]))
    for t, k in np.ndindex(*alpha.shape):
        moved = np.zeros_like(last)
        moved[t, :, :, k] = 1e-6  # everywhere: pooling takes the mean, as alpha does of the derivatives
        alpha[t, k] = (logit(last + moved) - logit(last - moved)) / 2e-6
    expected = unit(np.maximum(np.einsum("tk,txyk->txy", alpha, last), 0)[None])
    found = class_activations(system, variables, clips, np.array([1]))["rgb"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_nothing_speaks_for_the_class():
    system, variables = one_stream(0)
    head = variables["rgb"]["params"]["rgb"]["logits"]
    head["kernel"] = -jnp.abs(head["kernel"])  # the maps are above zero: no place has a positive share
    found = class_activations(system, variables, pictures(2, 32)[None, :, :, :32], np.array([0]))["rgb"]
    assert not np.asarray(found).any()


def test_every_stream_of_a_run(trained, tmp_path):
    predictor = hallujax.load(trained, STEP4)
    maps = predictor.activations(pictures(9, 40, 60))
    assert set(maps) == {"hallucination", "rgb"}
    for found in maps.values():
        assert found.shape[0] == 3 and found.dtype == np.float32
        assert found.min() >= 0 and found.max() in (0, pytest.approx(1))
    assert not np.array_equal(
        maps["rgb"], predictor.activations(pictures(9, 40, 60), predictor(pictures(9, 40, 60)).top(2)[1][0])["rgb"]
    )
    with pytest.raises(UsageError, match="no class 'nap'; known: jump"):
        predictor.activations(pictures(9), "nap")
    write_export(read_run(trained, STEP4), "stablehlo", tmp_path / "program")
    with pytest.raises(UsageError, match="need the weights"):
        hallujax.load(tmp_path / "program").activations(pictures(9))


def test_the_overlay():
    frames, maps = pictures(2, 32, 48), np.zeros((2, 2, 3), np.float32)
    maps[1, 1, 2] = 1
    shown = overlay(frames, maps)
    assert shown.shape == frames.shape and shown.dtype == np.uint8
    assert (shown[0] == shown[0, :, :, :1]).all(), "nothing there: grey"
    red, _, blue = shown[1, -1, -1].astype(int)
    assert red - blue > 100, "yellow where the map is 1"


def test_the_colours_are_cividis():
    matplotlib = pytest.importorskip("matplotlib")
    values = np.linspace(0, 1, 256)
    expected = matplotlib.colormaps["cividis"](values, bytes=True)[:, :3].astype(float)
    assert np.abs(colours(values) - expected).max() < 20, "nine colours of 256, the rest interpolated"
