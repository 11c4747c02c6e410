"""A trained stream back under torchvision's names, for those who go on in PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from hallujax.errors import UsageError
from hallujax.models.pretrained.names import torch_axes, torch_name

_OURS_ALONE = ("temporal", "bottleneck_conv", "bottleneck_bn")


def torchvision_tensors(variables: dict, layout: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """A stream's variables as torchvision names and orders them, and what has no place among them.

    Left out are temporal convolutions and the bottleneck; the classifier is `fc`, of another size behind a bottleneck.
    At the identity initialisation, without a bottleneck, torchvision's ResNet then computes what the stream does of
    each frame; after training the temporal convolutions are part of what the stream learned.

    Args:
      variables: `{"params", "batch_stats"}` of a `VideoResNet`.
      layout: the stream's.

    Returns:
      `{name: array}` float32, and the paths left out.

    Raises:
      UsageError: if the layout is slim's, whose strides are where torchvision's names do not put them.
    """
    if layout != "torchvision":
        raise UsageError(f"a stream of layout {layout} has its strides elsewhere than torchvision's ResNets")
    tensors, left_out = {}, []
    for key, value in flatten_dict(variables).items():
        if any(name in _OURS_ALONE for name in key):
            left_out.append("/".join(key))
        else:
            tensors[torch_name(key)] = np.ascontiguousarray(torch_axes(np.asarray(value, np.float32)))
    return tensors, sorted(left_out)


def write_torchvision(variables: dict, layout: str, out: Path) -> list[str]:
    """Writes `torchvision_tensors` to `out`, whole or not at all; returns what was left out.

    Raises:
      UsageError: as there, or if `out` exists already.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; remove it or choose another --out")
    tensors, left_out = torchvision_tensors(variables, layout)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(save(tensors, {"format": "pt"}))
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return left_out
