"""Exports: one system in one folder, without the run, its data or its other modalities.

    config.json        classes, frames, sizes, transforms, architecture, and what the run says of the system
    model.safetensors  the weights, read back by `hallujax.load`; or
    model.stablehlo    the program and its weights, which jax runs without hallujax; or
    model.onnx         the same for ONNX Runtime and its like; or
    saved_model/       the same for TensorFlow Serving and its like
    MODEL_CARD.md      for people
    SHA256SUMS         of config.json and the model, as `sha256sum -c` reads it; `hallujax.load` checks it too

A folder of that name appears when all of it is on disk, and not before.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np
import safetensors
from safetensors.flax import load_file  # NumPy's has no bfloat16
from safetensors.numpy import save

from hallujax.data.transforms import TransformOptions
from hallujax.deploy.card import model_card
from hallujax.deploy.stablehlo import read_stablehlo, write_stablehlo
from hallujax.deploy.system import Bound, Member, RgbSystem, TrainedSystem
from hallujax.deploy.weights import HALVES, folded, halved
from hallujax.errors import CheckpointError, UsageError
from hallujax.models.streams import Variables
from hallujax.trees import by_name

SUMS = "SHA256SUMS"
VERSION = 1  # of config.json and the names in model.safetensors
MODEL_FILES = {
    "safetensors": "model.safetensors",
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
    "saved_model": "saved_model",
}
PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "safetensors": ("fp32", "bf16", "fp16"),
    "stablehlo": ("fp32", "bf16", "fp16"),
    "onnx": ("fp32", "fp16", "int8"),
    "saved_model": ("fp32", "bf16", "fp16"),
}


def write_export(trained: TrainedSystem, to: str, out: pathlib.Path, precision: str = "fp32") -> None:
    """Writes a system as one of `MODEL_FILES` into the folder `out`, batch norm folded.

    Args:
      precision: of weights and convolutions, one of `PRECISIONS[to]`; `int8` is ONNX's dynamic quantization.

    Raises:
      UsageError: if `out` holds something already, the format has no such precision, or a package that writes it is
        missing.
    """
    if precision not in PRECISIONS[to]:
        raise UsageError(f"{to} has no precision {precision}; it has {', '.join(PRECISIONS[to])}")
    written = folded(trained)
    if to != "onnx" and precision in HALVES:
        written = halved(written, HALVES[precision])
    with _all_or_nothing(out) as folder:
        path = folder / MODEL_FILES[to]
        if to == "safetensors":
            _write_safetensors(written, path)
        elif to == "stablehlo":
            write_stablehlo(written, path)
        elif to == "onnx":
            _optional("onnx_model", "onnx").write_onnx(written, path, precision)
        else:
            _optional("saved_model", "saved_model").write_saved_model(written, path)
        config = {
            "format": "hallujax export",
            "version": VERSION,
            "to": to,
            "precision": precision,
            "system": dataclasses.asdict(written.system),
            "facts": trained.facts,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        sums = [
            f"{_digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in (folder / "config.json", *files)
        ]
        (folder / SUMS).write_text("".join(sums))
        size = sum(file.stat().st_size for file in files)
        (folder / "MODEL_CARD.md").write_text(model_card(trained, to, precision, path.name, size))


def read_export(folder: pathlib.Path, name: str | None) -> tuple[RgbSystem, Callable[[np.ndarray], Any]]:
    """The system of an export, and its logits `{name: [B, K]}` of clips uint8 `[B, T, H, W, 3]`.

    Those of a StableHLO or ONNX export are `fused` alone, and log-probabilities.

    Raises:
      UsageError: if it is of another system than `name`, ONNX Runtime is missing, or it is for TensorFlow alone.
      CheckpointError: if a file is missing, damaged or of a later hallujax.
    """
    _verify(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["version"] != VERSION:
        raise CheckpointError(f"{folder} is an export of version {config['version']}; this hallujax reads {VERSION}")
    system = _read_system(config["system"])
    if name not in (None, system.name):
        raise UsageError(f"{folder} holds the system {system.name!r}, not {name!r}")
    path = folder / MODEL_FILES[config["to"]]
    if config["to"] == "stablehlo":
        return system, read_stablehlo(path, system)
    if config["to"] == "onnx":
        return system, _optional("onnx_model", "onnx").read_onnx(path, system)
    if config["to"] == "saved_model":
        raise UsageError(f"{path} is TensorFlow's to load; hallujax loads {', '.join(list(MODEL_FILES)[:-1])}")
    return system, Bound(system, _read_safetensors(path, system))


def _optional(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(f"hallujax.deploy.{module}")
    except ImportError as error:
        raise UsageError(f"this export needs {error.name}: pip install 'hallujax[{extra}]'") from error


def _write_safetensors(trained: TrainedSystem, path: pathlib.Path) -> None:
    path.write_bytes(save({name: np.asarray(leaf) for name, leaf in by_name(trained.variables).items()}))


def _read_safetensors(path: pathlib.Path, system: RgbSystem) -> Variables:
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error})") from error
    tensors = {
        name: tensor.astype(np.float32) if tensor.dtype in HALVES.values() else tensor
        for name, tensor in tensors.items()
    }
    system.check(tensors, str(path))
    leaves = [tensors[name] for name in by_name(system.shapes)]
    return jax.tree.unflatten(jax.tree.structure(system.shapes), leaves)


def _read_system(raw: dict[str, Any]) -> RgbSystem:
    return RgbSystem(
        name=raw["name"],
        classes=tuple(raw["classes"]),
        frames=raw["frames"],
        frame_size=tuple(raw["frame_size"]),
        transforms=TransformOptions(**raw["transforms"]),
        members=tuple(Member(**member) for member in raw["members"]),
    )


def _verify(folder: pathlib.Path) -> None:
    """Raises CheckpointError for a file that is missing or not what was written."""
    lines = (folder / SUMS).read_text(errors="replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    first, *models = sums or [""]
    known = [models == [model] for model in MODEL_FILES.values()]
    if first != "config.json" or not (any(known) or "saved_model/saved_model.pb" in models):
        raise CheckpointError(
            f"{folder / SUMS} is damaged or of a later hallujax: it names {', '.join(sums) or 'nothing'}"
        )
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing: the export is not whole")
        if _digest(folder / name) != digest:
            raise CheckpointError(f"{folder / name} is not what was written: its SHA-256 differs; export it again")


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _all_or_nothing(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write into, which becomes `out` in one rename if nothing was raised."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists already; remove it or choose another --out")
    partial = out.absolute().with_name(f".{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        for written in (*partial.rglob("*"), partial):
            descriptor = os.open(written, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
