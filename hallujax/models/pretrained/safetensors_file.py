"""Tensors of a `.safetensors` file."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from hallujax.errors import CheckpointError

_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype(bool),
}


def read(path: Path) -> dict[str, np.ndarray]:
    """All tensors by name; safetensors checks that the header is true of the bytes behind it.

    Raises:
      CheckpointError: if it is not, or a tensor is of a type that no weights have.
    """
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({_line(error)})") from error
    tensors = {}
    for name, entry in entries:
        kind = _TYPES.get(entry["dtype"])
        if kind is None:
            raise CheckpointError(f"{path}: {name[:80]} is of type {entry['dtype']}; weights are F32, F64, F16 or BF16")
        tensors[name] = np.frombuffer(entry["data"], kind).reshape(entry["shape"])
    return tensors


def metadata(path: Path) -> dict[str, str]:
    """What the header says beside the tensors.

    Raises:
      CheckpointError: if the file is not readable.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
