"""A network's weights as `hallujax import-weights` leaves them: one `.safetensors` file that says what it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save

from hallujax.errors import CheckpointError
from hallujax.models.pretrained import safetensors_file
from hallujax.models.pretrained.names import OURS, Naming

FILE = "weights.safetensors"
_METADATA = "hallujax"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """An image ResNet and what must be known to use it.

    Attributes:
      variables: `{"params", "batch_stats"}` of a `VideoResNet` without its temporal convolutions, float32. The first
        convolution takes red, green, blue, in this order.
      source: whose names the file had.
      layout: `VideoResNet`'s, which the weights were trained in.
      normalization: of RGB, a key of `data.transforms.NORMALIZATIONS`.
      left_over: names of the file's tensors that are no part of the network.
    """

    variables: dict
    source: str
    layout: str
    normalization: str
    left_over: tuple[str, ...]


def from_blue_green_red(weights: Weights) -> Weights:
    """Weights whose first convolution takes blue, green, red (OpenCV's order, Caffe's), for red, green, blue."""
    params = weights.variables["params"]
    kernel = params["conv1"]["kernel"]
    turned = params | {"conv1": {"kernel": np.ascontiguousarray(kernel[:, :, ::-1])}}
    return dataclasses.replace(weights, variables=weights.variables | {"params": turned})


def write(weights: Weights, folder: Path, origin: Path) -> Path:
    """Writes `folder/weights.safetensors`, whole or not at all; `origin` is the file it was read from.

    Returns its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"/".join(key): value for key, value in flatten_dict(weights.variables).items()}
    record = {
        "tensors_sha256": digest(tensors),
        "source": weights.source,
        "layout": weights.layout,
        "normalization": weights.normalization,
        "channels": "rgb",
        "left_over": list(weights.left_over),
        "file": origin.name,
        "sha256": _digest(origin),
    }
    partial = folder / f".{FILE}.{os.getpid()}.partial"
    try:
        partial.write_bytes(save(tensors, {_METADATA: json.dumps(record)}))
        os.replace(partial, folder / FILE)
    finally:
        partial.unlink(missing_ok=True)
    return folder / FILE


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of tensors and their names: the format has none, and a flipped bit is another weight."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        found.update(np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()


def naming(path: Path) -> tuple[Naming, tuple[str, ...], str | None]:
    """How the tensors of a file that `write` wrote are called, what was left over when it did, and their `digest`.

    Raises:
      CheckpointError: if the file is missing, damaged or was not written by it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give weights, or a folder that `hallujax import-weights` made")
    try:
        record = json.loads(safetensors_file.metadata(path)[_METADATA])
        names = dataclasses.replace(
            OURS, source=record["source"], layout=record["layout"], normalization=record["normalization"]
        )
        return names, tuple(record["left_over"]), record.get("tensors_sha256")
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: not made by `hallujax import-weights` ({error!r}): import it again") from error


def _digest(path: Path) -> str | None:
    """Of a single file; a V2 checkpoint has several."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
