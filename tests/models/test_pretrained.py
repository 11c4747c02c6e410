"""Reading weights: where values go, what is refused, and how it says so. Activations are held by the parity tests."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resnet_tensors import SHAPE, huggingface, torchvision, values
from safetensors.numpy import load_file, save, save_file
from small_config import get_config

from hallujax.cli import main
from hallujax.errors import CheckpointError, UsageError
from hallujax.experiment import read_config
from hallujax.models import VideoResNet, pretrained
from hallujax.models.layers import Conv
from hallujax.models.pretrained import exported
from hallujax.training.stages import train
from hallujax.training.start import read_network


@pytest.fixture
def tensors():
    return torchvision(values())


@pytest.fixture
def write(tmp_path):
    def write(tensors):
        save_file(tensors, tmp_path / "resnet.safetensors")
        return tmp_path / "resnet.safetensors"

    return write


def test_every_tensor_lands_in_its_place(tensors, write):
    loaded = pretrained.load(write(tensors), **SHAPE)
    model = VideoResNet(6, **SHAPE)
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 1, 32, 32, 3), np.float32))
    expected = {k: v.shape for k, v in flatten_dict(variables).items() if "temporal" not in k}
    assert {k: v.shape for k, v in flatten_dict(loaded).items()} == expected
    unit = loaded["params"]["block1"]["unit2"]
    np.testing.assert_array_equal(unit["conv2"]["kernel"][2, 0, 1], tensors["layer1.1.conv2.weight"][:, 1, 2, 0])
    np.testing.assert_array_equal(
        loaded["batch_stats"]["block3"]["unit1"]["shortcut_bn"]["var"],
        tensors["layer3.0.downsample.1.running_var"],
    )
    np.testing.assert_array_equal(loaded["params"]["logits"]["kernel"], tensors["fc.weight"].T)


def test_half_precision_is_read_as_float32(tensors, write):
    halves = {k: v.astype(np.float16) for k, v in tensors.items()}
    loaded = pretrained.load(write(halves), **SHAPE)
    assert {v.dtype for v in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}


def test_huggingface_names_hold_the_same_network(tensors, write):
    expected = flatten_dict(pretrained.load(write(tensors), **SHAPE))
    found = pretrained.read(write(huggingface(values())))
    assert (found.source, found.layout, found.normalization) == ("HuggingFace", "torchvision", "imagenet")
    assert "resnet.embedder.embedder.normalization.num_batches_tracked" in found.left_over
    found = flatten_dict(found.variables)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def test_another_depth_is_named(tensors, write):
    with pytest.raises(CheckpointError, match=r"stage sizes \(2, 1, 1, 1\), not \(3, 4, 6, 3\)"):
        pretrained.load(write(tensors))


def test_missing_left_over_and_misshapen_tensors_are_named(tensors, write):
    with pytest.raises(CheckpointError, match=r"1 tensors missing: layer2\.0\.bn3\.running_var"):
        pretrained.load(write({k: v for k, v in tensors.items() if k != "layer2.0.bn3.running_var"}), **SHAPE)
    with pytest.raises(CheckpointError, match=r"1 tensors fit no layer: layer1\.0\.se\.fc\.weight"):
        pretrained.load(write(tensors | {"layer1.0.se.fc.weight": np.zeros((2, 2), np.float32)}), **SHAPE)
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(7, 7, 1, 4\) where .* \(7, 7, 3, 4\)"):
        pretrained.load(write(tensors | {"conv1.weight": np.zeros((4, 1, 7, 7), np.float32)}), **SHAPE)
    with pytest.raises(CheckpointError, match=r"no fc\.weight"):
        pretrained.load(write({k: v for k, v in tensors.items() if k != "fc.weight"}), **SHAPE)


def test_missing_and_damaged_files_say_what_to_do(tensors, write, tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file.*save_file"):
        pretrained.load(tmp_path / "none.safetensors")
    path = write(tensors)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable"):
        pretrained.load(path, **SHAPE)


def test_networks_that_a_stream_cannot_be_are_named(tensors, write):
    deeper = torchvision(values((3, 4, 23, 3), 1))
    with pytest.raises(CheckpointError, match=r"\(3, 4, 23, 3\) \(ResNet-101\), not \(3, 4, 6, 3\) \(ResNet-50\)"):
        pretrained.load(write(deeper))
    basic = {name: value for name, value in tensors.items() if "conv3" not in name and "bn3" not in name}
    with pytest.raises(CheckpointError, match="units of two convolutions"):
        pretrained.read(write(basic))
    with pytest.raises(CheckpointError, match="width 4, not 8"):
        pretrained.load(write(tensors), stage_sizes=SHAPE["stage_sizes"], width=8)
    with pytest.raises(CheckpointError, match=r"no ResNet with the names of .* its tensors: lstm"):
        pretrained.read(write({"lstm": np.zeros(3, np.float32)}))


def test_numbers_that_are_none_are_named(tensors, write):
    for value, said in ((np.nan, "NaN or infinity"), (np.inf, "NaN or infinity")):
        damaged = tensors["layer1.0.conv1.weight"].copy()
        damaged[0, 0] = value
        with pytest.raises(CheckpointError, match=rf"layer1\.0\.conv1\.weight holds {said}"):
            pretrained.load(write(tensors | {"layer1.0.conv1.weight": damaged}), **SHAPE)
    whole = tensors["fc.bias"].astype(np.int32)
    with pytest.raises(CheckpointError, match=r"fc\.bias is of int32, not of floating-point"):
        pretrained.load(write(tensors | {"fc.bias": whole}), **SHAPE)


def test_bfloat16_is_read(tensors, tmp_path):
    """Which NumPy alone has not: the file by its format, a length, a header in JSON, the numbers."""
    header, numbers = {}, b""
    for name, value in tensors.items():
        data = value.astype(ml_dtypes.bfloat16).tobytes()
        place = [len(numbers), len(numbers) + len(data)]
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": place}
        numbers += data
    text = json.dumps(header).encode()
    path = tmp_path / "half.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    loaded = pretrained.load(path, **SHAPE)
    expected = tensors["fc.bias"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(loaded["params"]["logits"]["bias"], expected)


HEADERS = (
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 400]}},  # beyond the end
    {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}},  # of another size
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
    {"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 8]}},
    {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"},  # overlapping
    {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}},
    {"a": {"dtype": "PYTHON", "shape": [8], "data_offsets": [0, 8]}},
    {"a": [1, 2]},
    {},
)


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_lies_is_refused(header, tmp_path):
    path = tmp_path / "lie.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError, match=r"^[^\n]*lie\.safetensors: [^\n]+$"):
        pretrained.read(path)
    path.write_bytes((1 << 60).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match=r"lie\.safetensors: not a readable"):
        pretrained.read(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_safetensors_file_is_read_or_refused(data, tmp_path):
    """Whatever bytes of the header or of the numbers change: a network of finite numbers, or one error of ours."""
    tensors = {"conv1.weight": np.ones((1, 3, 7, 7), np.float32), "fc.weight": np.ones((2, 4), np.float32)}
    whole = bytearray(save(tensors))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 140))
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    with pytest.raises(CheckpointError):  # it is no whole ResNet to begin with
        pretrained.read(path)


def test_one_channel_sees_what_three_equal_ones_would(tensors, write):
    """The documented choice: summed kernels, so the responses are those to the channel three times over."""
    loaded = pretrained.load(write(tensors), **SHAPE)
    one = pretrained.adapt_input(loaded, 1)
    depth = np.random.default_rng(3).random((2, 32, 32, 1)).astype(np.float32)
    stem = Conv(4, kernel_size=7, stride=2)
    expected = stem.apply({"params": loaded["params"]["conv1"]}, np.repeat(depth, 3, -1))
    np.testing.assert_allclose(stem.apply({"params": one["params"]["conv1"]}, depth), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    assert one["params"]["block1"] is loaded["params"]["block1"] and one["batch_stats"] is loaded["batch_stats"]
    assert pretrained.adapt_input(loaded, 3) is loaded
    with pytest.raises(CheckpointError, match="3 input channels cannot start a network of 2"):
        pretrained.adapt_input(loaded, 2)


def test_import_keeps_what_the_weights_expect_and_export_gives_torchvisions_names_back(
    tensors, write, tmp_path, capsys
):
    source, out = write(tensors), tmp_path / "imported"
    assert main(["import-weights", str(source), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "stage sizes (2, 1, 1, 1), width 4, 6 classes" in said and "num_batches_tracked (20)" in said
    assert [path.name for path in out.iterdir()] == ["weights.safetensors"]
    there, here = pretrained.read(source), pretrained.read(out)
    assert dataclasses.replace(here, variables={}, left_over=()) == dataclasses.replace(
        there, variables={}, left_over=()
    )
    assert set(here.left_over) == set(there.left_over)
    jax.tree.map(np.testing.assert_array_equal, here.variables, there.variables)
    named, left_out = exported.torchvision_tensors(here.variables, "torchvision")
    assert left_out == []
    assert named.keys() == {name for name in tensors if not name.endswith("num_batches_tracked")}
    for name, value in named.items():
        np.testing.assert_array_equal(value, tensors[name])
    with pytest.raises(UsageError, match="layout slim"):
        exported.torchvision_tensors(here.variables, "slim")


def test_blue_green_red_is_turned_around_at_import(tensors, write, tmp_path):
    out = tmp_path / "caffe"
    command = ["import-weights", str(write(tensors)), "--out", str(out), "--channels", "bgr", "--normalization", "vgg"]
    assert main(command) == 0
    weights = pretrained.read(out)
    assert weights.normalization == "vgg"
    kernel = weights.variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, 0], tensors["conv1.weight"][:, 2].transpose(1, 2, 0))


def test_a_folder_that_import_did_not_make_is_refused(tensors, write, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: no such file"):
        pretrained.read(tmp_path / "other")
    write(tensors).rename(tmp_path / "other" / "weights.safetensors")
    with pytest.raises(CheckpointError, match="not made by `hallujax import-weights`"):
        pretrained.read(tmp_path / "other")
    (tmp_path / "bad.pth").write_bytes(b"\x80\x02}q\x00.")
    assert main(["import-weights", str(tmp_path / "bad.pth"), "--out", str(tmp_path / "none")]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "bad.pth: a pickle, but not of torch.save" in error
    assert not (tmp_path / "none").exists()


@pytest.fixture
def imagenet_config(tensors, write, tiny):
    """The shipped configuration, shrunk: one RGB and one depth stream that start from the file, one step each at a
    learning rate of zero."""
    config = get_config(str(tiny.parent))
    for stage in list(config.stages):
        if stage not in ("rgb", "depth"):
            del config.stages[stage]
    config.systems = {}
    config.imagenet_weights = str(write(tensors))
    config.training.model.stage_sizes = SHAPE["stage_sizes"]
    config.training.epochs = 0.2
    config.training.optimizer.learning_rate = 0.0
    config.transforms.depth_encoding = "nearness"
    config.stages.rgb.init_from = {"rgb": ("imagenet", "")}
    config.stages.depth.init_from = {"depth": ("imagenet", "")}
    return config


def test_streams_that_start_from_the_file_have_its_backbone_and_keep_their_own_head(
    imagenet_config, tensors, tmp_path, capsys
):
    """By the command's own path: RGB, and depth in one channel; then the RGB stream is exported again."""
    train(read_config(imagenet_config), tmp_path / "run")
    taken = read_network(tmp_path / "run" / "rgb", "rgb")["params"]
    np.testing.assert_array_equal(
        taken["block1"]["unit2"]["conv2"]["kernel"], tensors["layer1.1.conv2.weight"].transpose(2, 3, 1, 0)
    )
    assert taken["logits"]["kernel"].shape == (8, 4), "the dataset's classes behind the bottleneck, not the file's"
    depth = read_network(tmp_path / "run" / "depth", "depth")["params"]
    np.testing.assert_allclose(
        depth["conv1"]["kernel"][:, :, 0], tensors["conv1.weight"].sum(1).transpose(1, 2, 0), rtol=1e-5
    )
    said = capsys.readouterr().out
    assert "rgb <- " in said and "logits/kernel" in said.partition("fresh: ")[2]
    assert "conv1 summed over red, green and blue" in said

    out = tmp_path / "rgb.safetensors"
    assert main(["export-weights", str(tmp_path / "run"), "--stage", "rgb", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "params/block1/unit2/temporal/kernel" in said and "params/bottleneck_conv/kernel" in said
    again = load_file(out)
    assert again.keys() == {name for name in tensors if not name.endswith("num_batches_tracked")}
    np.testing.assert_array_equal(again["layer1.1.conv2.weight"], tensors["layer1.1.conv2.weight"])
    np.testing.assert_array_equal(again["fc.weight"], taken["logits"]["kernel"].T)
    assert main(["export-weights", str(tmp_path / "run"), "--stage", "none", "--out", str(out)]) == 2


def test_a_pipeline_that_is_not_the_weights_own_is_an_error_before_anything_trains(imagenet_config, tmp_path):
    """The RGB normalization of another publisher, or the strides of another."""
    imagenet_config.transforms.rgb_normalization = "vgg"
    with pytest.raises(UsageError, match=r"rgb_normalization is vgg, but .* was trained on RGB normalized as imagenet"):
        train(read_config(imagenet_config), tmp_path / "run")
    assert not list(tmp_path.glob("run/*/checkpoints"))
    del imagenet_config.stages["rgb"]  # depth does not care
    imagenet_config.stages.depth.model.layout = "slim"
    with pytest.raises(UsageError, match=r"depth\.model\.layout is slim, but .* set it to torchvision"):
        train(read_config(imagenet_config), tmp_path / "run")
