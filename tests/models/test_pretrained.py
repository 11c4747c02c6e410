"""Reading a torchvision-named file: what is refused, and how it says so. The values are held by the parity tests."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file
from small_config import get_config

from hallujax.errors import CheckpointError
from hallujax.experiment import read_config
from hallujax.models import VideoResNet, pretrained
from hallujax.training.stages import train
from hallujax.training.start import read_network

SHAPE = {"stage_sizes": (2, 1, 1, 1), "width": 4}


@pytest.fixture
def tensors():
    """A small torchvision ResNet's state, written out by hand: {name: array}."""
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (4, 3, 7, 7), "fc.weight": (6, 128), "fc.bias": (6,)}

    def batch_norm(name, channels):
        shapes.update({f"{name}.{f}": (channels,) for f in ("weight", "bias", "running_mean", "running_var")})

    batch_norm("bn1", 4)
    cin = 4
    for stage, units in enumerate((2, 1, 1, 1)):
        width = 4 * 2**stage
        for unit in range(units):
            name = f"layer{stage + 1}.{unit}"
            shapes[f"{name}.conv1.weight"] = (width, cin, 1, 1)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * width, width, 1, 1)
            for i, channels in enumerate((width, width, 4 * width), start=1):
                batch_norm(f"{name}.bn{i}", channels)
            if unit == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * width, cin, 1, 1)
                batch_norm(f"{name}.downsample.1", 4 * width)
            cin = 4 * width
    named = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    return named | {"bn1.num_batches_tracked": np.array(7)}


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


def test_a_stream_that_starts_from_the_file_has_its_backbone_and_keeps_its_own_head(
    tensors, write, tiny, tmp_path, capsys
):
    """One step at learning rate zero, by the command's own path: what the file holds is what is trained on."""
    config = get_config(str(tiny.parent))
    for stage in list(config.stages):
        if stage != "rgb":
            del config.stages[stage]
    config.systems = {}
    config.imagenet_weights = str(write(tensors))
    config.training.model.stage_sizes = SHAPE["stage_sizes"]
    config.training.epochs = 0.2
    config.training.optimizer.learning_rate = 0.0
    config.stages.rgb.init_from = {"rgb": ("imagenet", "")}
    train(read_config(config), tmp_path / "run")
    taken = read_network(tmp_path / "run" / "rgb", "rgb")["params"]
    np.testing.assert_array_equal(
        taken["block1"]["unit2"]["conv2"]["kernel"], tensors["layer1.1.conv2.weight"].transpose(2, 3, 1, 0)
    )
    assert taken["logits"]["kernel"].shape == (8, 4), "the dataset's classes behind the bottleneck, not the file's"
    said = capsys.readouterr().out
    assert "rgb <- " in said and "logits/kernel" in said.partition("fresh: ")[2]
