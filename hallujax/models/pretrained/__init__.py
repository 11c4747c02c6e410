"""Weights of an image ResNet as the start of a `VideoResNet`, read without the library that wrote them.

Formats: `.safetensors`; PyTorch's `.pth`, `.pt` and `.bin`; TensorFlow checkpoints, a single file (V1) or an index with
its data (V2); and the folders that `hallujax import-weights` makes. Names: torchvision's and timm's, HuggingFace's,
slim's; `names` has the table. No file is ever run: nothing here unpickles.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hallujax.errors import CheckpointError
from hallujax.models.pretrained import imported, safetensors_file, tensorflow_file, torch_file
from hallujax.models.pretrained.imported import Weights
from hallujax.models.pretrained.names import SLIM, Key, Naming, naming, our_axes, our_key, some, torch_name
from hallujax.models.resnet import VideoResNet

__all__ = ["Weights", "adapt_input", "describe", "load", "our_axes", "our_key", "read", "torch_name"]

RESNETS = {(3, 4, 6, 3): "ResNet-50", (3, 4, 23, 3): "ResNet-101", (3, 8, 36, 3): "ResNet-152"}
_LARGEST = 100_000  # units, channels or classes: beyond it a file lies
_MEAN_RGB = (123.68, 116.78, 103.94)  # the means that slim's ImageNet weights go with, and carry with them


_Values = dict[Key, tuple[str, np.ndarray]]  # {ours: (the file's name, the tensor in our order of axes)}


def load(path: str | PathLike, *, stage_sizes: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> dict:
    """The network of a file as `{"params": ..., "batch_stats": ...}` in float32.

    The keys are those of `VideoResNet(K, stage_sizes, width, layout=...)`, K being the file's and the layout its
    publisher's; the temporal convolutions, which an image network lacks, are absent.

    Raises CheckpointError as `read`, and if the file is another network: other stage sizes, or another width.
    """
    return read(path, stage_sizes=stage_sizes, width=width).variables


def read(path: str | PathLike, *, stage_sizes: Sequence[int] | None = None, width: int | None = None) -> Weights:
    """The network of a file, with what must be known to use it.

    Every tensor of the file is used, or is bookkeeping of its training and named in `Weights.left_over`.

    Args:
      path: a file of one of the formats above, a V2 checkpoint's prefix, or a folder of `hallujax import-weights`.
      stage_sizes, width: what it must be; whatever it is if None.

    Raises:
      CheckpointError: if the file is missing, damaged, of no known format, or not such a network: of other stage sizes,
        with tensors missing, left over, of another shape, not of floating-point numbers, or not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = path / imported.FILE
        scheme, left_before, written = imported.naming(path)
        tensors = _tensors(path)
        if written not in (None, imported.digest(tensors)):
            raise CheckpointError(f"{path}: its tensors are not those that were written: import it again")
    else:
        tensors, left_before = _tensors(path), ()
        try:
            scheme = naming(tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    left_over = {name for name in tensors if scheme.bookkeeping.search(name)}
    if scheme is SLIM:
        _check_mean(path, tensors)
    values: _Values = {}
    for name in sorted(tensors.keys() - left_over):
        key = scheme.key(name)
        if key in values:
            raise CheckpointError(f"{path}: {name} and {values[key][0]} are both {'/'.join(key)}")
        values[key] = name, scheme.axes(tensors[name])
    found, found_width = _size(path, values)
    _check_size(path, found, found_width, stage_sizes, width)
    return Weights(
        variables=_fitted(path, scheme, values, found, found_width),
        source=scheme.source,
        layout=scheme.layout,
        normalization=scheme.normalization,
        left_over=(*left_before, *sorted(left_over)),
    )


def describe(weights: Weights) -> str:
    """One line for people."""
    params = weights.variables["params"]
    stage_sizes = tuple(len(params[block]) for block in sorted(params) if block.startswith("block"))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(weights.variables))
    kinds = Counter(re.split(r"[./]", name)[-1] for name in weights.left_over)
    return (
        f"{RESNETS.get(stage_sizes, 'a ResNet')}, stage sizes {stage_sizes}, "
        f"width {params['conv1']['kernel'].shape[3]}, {params['logits']['bias'].size} classes, "
        f"{numbers:,} numbers, {weights.source}'s names; layout "
        f"{weights.layout}; RGB normalized as {weights.normalization}; left over: "
        + (", ".join(f"{kind} ({count})" for kind, count in kinds.items()) or "nothing")
    )


def adapt_input(variables: dict, channels: int) -> dict:
    """The same network for inputs of so many channels: 3, or 1.

    For one channel the first kernel is summed over its inputs: the network then computes what it would of that
    channel three times over. (A mean would shrink every response by three, against the batch norm's statistics.)

    Raises CheckpointError for another number.
    """
    kernel = variables["params"]["conv1"]["kernel"]
    if kernel.shape[2] == channels:
        return variables
    if channels != 1:
        raise CheckpointError(f"weights for {kernel.shape[2]} input channels cannot start a network of {channels}")
    params = variables["params"] | {"conv1": {"kernel": kernel.sum(2, keepdims=True)}}
    return variables | {"params": params}


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file, by the names in it."""
    if prefix := tensorflow_file.bundle_prefix(path):
        return tensorflow_file.read_bundle(prefix)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file. Make one where torchvision is installed: safetensors.torch.save_file("
            f"torchvision.models.resnet50(weights='DEFAULT').state_dict(), {path.name!r})"
        )
    if path.suffix == ".safetensors":
        return safetensors_file.read(path)
    if torch_file.is_one(path):
        return torch_file.read(path)
    if tensorflow_file.is_table(path):
        return tensorflow_file.read_v1(path)
    raise CheckpointError(
        f"{path}: neither a .safetensors file, nor a PyTorch file, nor a TensorFlow checkpoint; or cut short"
    )


def _size(path: Path, values: _Values) -> tuple[tuple[int, ...], int]:
    """Stage sizes, by the names that are there, and width."""
    stem = values.get(("params", "conv1", "kernel"))
    if stem is None or stem[1].ndim != 4:
        raise CheckpointError(f"{path}: no first convolution of four axes (conv1.weight)")
    if ("params", "logits", "kernel") not in values:
        raise CheckpointError(f"{path}: no fc.weight or its like; give a file with its classifier")
    if ("params", "block1", "unit1", "conv1", "kernel") in values and (
        ("params", "block1", "unit1", "conv3", "kernel") not in values
    ):
        raise CheckpointError(
            f"{path}: units of two convolutions (ResNet-18 or 34); VideoResNet's have three: ResNet-50, 101, 152"
        )
    units: dict[int, set[str]] = {}
    for key in values:
        if len(key) == 5 and (block := re.fullmatch(r"block(\d{1,4})", key[1])) and re.fullmatch(r"unit\d+", key[2]):
            units.setdefault(int(block[1]), set()).add(key[2])
    return tuple(len(units[block]) for block in sorted(units)), stem[1].shape[3]


def _check_size(
    path: Path, found: tuple[int, ...], found_width: int, stage_sizes: Sequence[int] | None, width: int | None
) -> None:
    if stage_sizes is not None and found != tuple(stage_sizes):
        raise CheckpointError(
            f"{path}: holds a network of stage sizes {_known(found)}, not {_known(tuple(stage_sizes))}"
        )
    if width is not None and found_width != width:
        raise CheckpointError(f"{path}: holds a network of width {found_width}, not {width}")


def _known(stage_sizes: tuple[int, ...]) -> str:
    return f"{stage_sizes}" + (f" ({RESNETS[stage_sizes]})" if stage_sizes in RESNETS else "")


def _fitted(path: Path, scheme: Naming, values: _Values, stage_sizes: tuple[int, ...], width: int) -> dict:
    """The values in their places, each checked."""
    classes = values[("params", "logits", "kernel")][1].shape[-1:]
    expected = _shapes(path, classes, stage_sizes, width)
    missing = [scheme.spelled(key) for key in expected if key not in values]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} tensors missing: {some(missing)}")
    strangers = [name for key, (name, _) in values.items() if key not in expected]
    if strangers:
        raise CheckpointError(f"{path}: {len(strangers)} tensors fit no layer: {some(strangers)}")
    fitted = {}
    for key, shape in expected.items():
        name, array = values[key]
        if key == ("params", "logits", "kernel") and array.shape[:-2] == (1, 1):
            array = array[0, 0]  # slim's classifier is a convolution
        if array.shape != shape:
            raise CheckpointError(f"{path}: {name} is {array.shape} where {'/'.join(key)} needs {shape}")
        if not jax.numpy.issubdtype(array.dtype, np.floating):
            raise CheckpointError(f"{path}: {name} is of {array.dtype}, not of floating-point numbers")
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity")
        fitted[key] = array
    return unflatten_dict(fitted)


def _shapes(
    path: Path, classes: tuple[int, ...], stage_sizes: tuple[int, ...], width: int
) -> dict[Key, tuple[int, ...]]:
    sizes = (*classes, *stage_sizes, width)
    if not classes or not stage_sizes or min(sizes) < 1 or max(sizes) > _LARGEST or len(stage_sizes) > 4:
        raise CheckpointError(
            f"{path}: no ResNet of stage sizes {stage_sizes}, width {width} and {(*classes, 'no')[0]} classes"
        )
    return _network_shapes(classes[0], stage_sizes, width)


@functools.lru_cache(4)
def _network_shapes(classes: int, stage_sizes: tuple[int, ...], width: int) -> dict[Key, tuple[int, ...]]:
    model = VideoResNet(classes, stage_sizes, width)
    clip = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), clip)
    return {k: v.shape for k, v in flatten_dict(variables).items() if "temporal" not in k}


def _check_mean(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Slim's checkpoints carry the mean of RGB that they were trained with: it must be the one that is assumed."""
    for name, value in tensors.items():
        if name.endswith("/mean_rgb") and not (
            np.shape(value) == (3,) and np.allclose(np.asarray(value, np.float64), _MEAN_RGB, atol=0.01)
        ):
            raise CheckpointError(f"{path}: {name} is {value.tolist()}, where slim's is {list(_MEAN_RGB)}")
