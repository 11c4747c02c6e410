"""What the tensors of an image ResNet are called by those who publish them, and where they go in a `VideoResNet`.

    ours                        torchvision, timm         HuggingFace (resnet.encoder.stages...)     slim
    conv1/kernel                conv1.weight              resnet.embedder.embedder.convolution       conv1/weights
    bn1/{scale, bias}           bn1.{weight, bias}        resnet.embedder.embedder.normalization     {gamma, beta}
    bn1/{mean, var}             bn1.running_{mean, var}   the same                    moving_{mean, variance}
    block2/unit1/conv3          layer2.0.conv3            .1.layers.0.layer.2         block2/unit_1/bottleneck_v1/conv3
    block2/unit1/shortcut_conv  layer2.0.downsample.0     .1.layers.0.shortcut.convolution           .../shortcut
    block2/unit1/shortcut_bn    layer2.0.downsample.1     .1.layers.0.shortcut.normalization         .../BatchNorm
    logits                      fc                        classifier.1                               logits

PyTorch's kernels are [out, in, h, w] and its classifier [out, in]; ours and slim's are [h, w, in, out] and [in, out],
slim's classifier a 1x1 convolution. Slim's names start with the network's, `resnet_v1_50/`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable

import numpy as np

from hallujax.errors import CheckpointError

Key = tuple[str, ...]  # ("params" | "batch_stats", module, ..., leaf)

_TORCH_FIELDS = {"running_mean": ("batch_stats", "mean"), "running_var": ("batch_stats", "var")}
_SLIM_FIELDS = {
    "weights": ("params", "kernel"),
    "biases": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}


@dataclasses.dataclass(frozen=True)
class Naming:
    """One publisher's conventions.

    Attributes:
      source: for people.
      layout: of `VideoResNet`: where the strides are.
      normalization: of RGB, a key of `data.transforms.NORMALIZATIONS`: what the published ImageNet weights expect.
      key: from a tensor's name to ours; a name that is not of this network gives a key that fits no layer.
      spelled: from our key to what a message calls a tensor that is missing.
      axes: from a tensor to ours.
      bookkeeping: names of what belongs to the training, not to the network: left over without complaint.
    """

    source: str
    layout: str
    normalization: str
    key: Callable[[str], Key]
    spelled: Callable[[Key], str]
    axes: Callable[[np.ndarray], np.ndarray]
    bookkeeping: re.Pattern


def our_key(name: str) -> Key:
    """Of a torchvision name."""
    *modules, field = name.split(".")
    if field == "weight":
        batch_norm = "".join(modules[-1:]).startswith("bn") or modules[-2:] == ["downsample", "1"]
        collection, leaf = "params", "scale" if batch_norm else "kernel"
    else:
        collection, leaf = _TORCH_FIELDS.get(field, ("params", field))
    where = ".".join(modules)
    where = re.sub(r"^layer(\d{1,9})\.(\d{1,9})", lambda m: f"block{m[1]}.unit{int(m[2]) + 1}", where)
    where = where.replace("downsample.0", "shortcut_conv").replace("downsample.1", "shortcut_bn")
    where = "logits" if where == "fc" else where
    return (collection, *where.split("."), leaf)


def torch_name(key: Key) -> str:
    """The inverse of `our_key`."""
    _, *modules, leaf = key
    where = ".".join(modules).replace("shortcut_conv", "downsample.0").replace("shortcut_bn", "downsample.1")
    where = re.sub(r"^block(\d+)\.unit(\d+)", lambda m: f"layer{m[1]}.{int(m[2]) - 1}", where)
    where = "fc" if where == "logits" else where
    fields = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{where}.{fields.get(leaf, leaf)}"


def our_axes(value: np.ndarray) -> np.ndarray:
    """A PyTorch tensor's axes in our order."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def torch_axes(value: np.ndarray) -> np.ndarray:
    """The inverse of `our_axes`."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _huggingface_key(name: str) -> Key:
    name = re.sub(r"^resnet\.embedder\.embedder\.", "", name)
    name = re.sub(
        r"^resnet\.encoder\.stages\.(\d{1,9})\.layers\.",
        lambda m: f"layer{int(m[1]) + 1}.",
        name,
    )
    name = re.sub(r"(^|\.)shortcut\.convolution\.", r"\1downsample.0.", name)
    name = re.sub(r"(^|\.)shortcut\.normalization\.", r"\1downsample.1.", name)
    name = re.sub(r"\.layer\.([012])\.convolution\.", lambda m: f".conv{int(m[1]) + 1}.", name)
    name = re.sub(r"\.layer\.([012])\.normalization\.", lambda m: f".bn{int(m[1]) + 1}.", name)
    name = re.sub(r"^convolution\.", "conv1.", name)
    name = re.sub(r"^normalization\.", "bn1.", name)
    return our_key(re.sub(r"^classifier\.1\.", "fc.", name))


def _slim_key(name: str) -> Key:
    _, _, where = name.partition("/")
    *modules, field = where.split("/")
    collection, leaf = _SLIM_FIELDS.get(field, ("params", field))
    batch_norm = modules[-1:] == ["BatchNorm"]
    modules = [re.sub(r"^unit_", "unit", m) for m in modules if m not in ("BatchNorm", "bottleneck_v1")]
    if modules[-1:] == ["shortcut"]:
        modules[-1] = "shortcut_bn" if batch_norm else "shortcut_conv"
    elif batch_norm and modules:
        modules[-1] = re.sub(r"^conv", "bn", modules[-1])
    return (collection, *modules, leaf)


def _as_it_is(value: np.ndarray) -> np.ndarray:
    return value


def _path(key: Key) -> str:
    return "/".join(key)


TORCHVISION = Naming(
    "torchvision", "torchvision", "imagenet", our_key, torch_name, our_axes, re.compile(r"(^|\.)num_batches_tracked$")
)
HUGGINGFACE = dataclasses.replace(TORCHVISION, source="HuggingFace", key=_huggingface_key, spelled=_path)
SLIM = Naming(
    "slim",
    "slim",
    "vgg",
    _slim_key,
    _path,
    _as_it_is,
    re.compile(
        r"^global_step$|^beta[12]_power$|/mean_rgb$|/(Momentum|RMSProp(_1)?|Adam(_1)?|Adagrad|ExponentialMovingAverage)$"
    ),
)


OURS = Naming("hallujax", "", "", lambda name: tuple(name.split("/")), _path, _as_it_is, re.compile(r"(?!)"))


def naming(names: Iterable[str]) -> Naming:
    """Whose names these are.

    Raises:
      CheckpointError: if they are of no ResNet v1 that is known.
    """
    names = sorted(names)
    if any(name.startswith("resnet_v2_") for name in names):
        raise CheckpointError(
            "holds slim's ResNet v2, which normalizes before its convolutions; VideoResNet is a ResNet v1: take "
            "resnet_v1_50"
        )
    if any(re.match(r"resnet_v1_\d+/", name) for name in names):
        return SLIM
    if any(name.startswith("resnet.embedder.") for name in names):
        return HUGGINGFACE
    if "conv1.weight" in names:
        return TORCHVISION
    raise CheckpointError(
        f"holds no ResNet with the names of torchvision, timm, HuggingFace or slim; its tensors: {some(names)}"
    )


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few, for one line."""
    names = sorted(names)
    return (", ".join(name[:80] for name in names[:most]) or "none") + (", ..." if len(names) > most else "")
