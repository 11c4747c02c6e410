"""Weights of an image ResNet as the start of a `VideoResNet`.

The file is a `.safetensors` with torchvision's names (timm's ResNets share them). They map one to one:

    conv1.weight                          conv1/kernel
    bn1.{weight, bias}                    bn1/{scale, bias}
    bn1.running_{mean, var}               bn1/{mean, var}, in batch_stats
    layer2.0.conv3.weight                 block2/unit1/conv3/kernel
    layer2.0.bn3.*                        block2/unit1/bn3/*
    layer2.0.downsample.0.weight          block2/unit1/shortcut_conv/kernel
    layer2.0.downsample.1.*               block2/unit1/shortcut_bn/*
    fc.{weight, bias}                     logits/{kernel, bias}

Convolution kernels turn from [out, in, h, w] into [h, w, in, out], the classifier from [out, in] into [in,
out].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import jax
import numpy as np
import safetensors
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from hallujax.errors import CheckpointError
from hallujax.models.resnet import VideoResNet


def load(path: str | PathLike, *, stage_sizes: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> dict:
    """Reads a torchvision-named ResNet and returns `{"params": ..., "batch_stats": ...}` in float32.

    The keys are those of `VideoResNet(K, stage_sizes, width, layout="torchvision")`, K being the file's;
    the temporal convolutions, which an image network lacks, are absent. Every tensor of the file is used,
    except torch's step counters `num_batches_tracked`. torchvision's ImageNet weights expect RGB in [0, 1],
    less the mean (0.485, 0.456, 0.406), over the deviation (0.229, 0.224, 0.225).

    Raises CheckpointError if the file is missing or unreadable, or is not this network: other stage sizes,
    tensors missing, left over or of another shape.
    """
    tensors = _read(Path(path))
    found = _stage_sizes(tensors)
    if found != tuple(stage_sizes):
        raise CheckpointError(f"{path}: holds a network of stage sizes {found}, not {tuple(stage_sizes)}")
    if "fc.weight" not in tensors:
        raise CheckpointError(f"{path}: no fc.weight; give a file with its classifier")

    expected = _expected(len(tensors["fc.weight"]), stage_sizes, width)
    values = {our_key(name): (name, value) for name, value in tensors.items()}
    missing = [torch_name(key) for key in expected if key not in values]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} tensors missing: {_some(missing)}")
    left_over = [name for key, (name, _) in values.items() if key not in expected]
    if left_over:
        raise CheckpointError(f"{path}: {len(left_over)} tensors fit no layer: {_some(left_over)}")
    result = {}
    for key, shape in expected.items():
        name, value = values[key]
        array = our_axes(value).astype(np.float32)
        if array.shape != shape:
            raise CheckpointError(f"{path}: {name} is {array.shape} where {'/'.join(key)} needs {shape}")
        result[key] = array
    return unflatten_dict(result)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file. Make one where torchvision is installed: safetensors.torch.save_file("
            f"torchvision.models.resnet50(weights='DEFAULT').state_dict(), {path.name!r})"
        )
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file of numbers ({error})") from error
    return {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}


def _stage_sizes(tensors: dict[str, np.ndarray]) -> tuple[int, ...]:
    units = {m.groups() for name in tensors if (m := re.match(r"layer(\d+)\.(\d+)\.", name))}
    stages = sorted({int(stage) for stage, _ in units})
    return tuple(sum(int(stage) == i for stage, _ in units) for i in stages)


def _expected(num_classes: int, stage_sizes: Sequence[int], width: int) -> dict[tuple[str, ...], tuple[int, ...]]:
    model = VideoResNet(num_classes, tuple(stage_sizes), width, layout="torchvision")
    clip = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), clip)
    return {k: v.shape for k, v in flatten_dict(variables).items() if "temporal" not in k}


_FIELDS = {
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
    "bias": ("params", "bias"),
}


def our_key(name: str) -> tuple[str, ...]:
    *modules, field = name.split(".")
    if field == "weight":
        batch_norm = modules[-1].startswith("bn") or modules[-2:] == ["downsample", "1"]
        collection, leaf = "params", "scale" if batch_norm else "kernel"
    else:
        collection, leaf = _FIELDS.get(field, ("params", field))
    where = ".".join(modules)
    where = re.sub(r"^layer(\d+)\.(\d+)", lambda m: f"block{m[1]}.unit{int(m[2]) + 1}", where)
    where = where.replace("downsample.0", "shortcut_conv").replace("downsample.1", "shortcut_bn")
    where = "logits" if where == "fc" else where
    return (collection, *where.split("."), leaf)


def torch_name(key: tuple[str, ...]) -> str:
    _, *modules, leaf = key
    where = ".".join(modules).replace("shortcut_conv", "downsample.0").replace("shortcut_bn", "downsample.1")
    where = re.sub(r"^block(\d+)\.unit(\d+)", lambda m: f"layer{m[1]}.{int(m[2]) - 1}", where)
    where = "fc" if where == "logits" else where
    fields = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{where}.{fields.get(leaf, leaf)}"


def our_axes(value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(sorted(names)[:most]) + (", ..." if len(names) > most else "")
