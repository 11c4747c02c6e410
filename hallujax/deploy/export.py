"""Exports: one system in one folder, without the run, its data or its other modalities.

    config.json        classes, frames, sizes, transforms, architecture, and what the run says of the system
    model.safetensors  the weights, read back by `hallujax.load`; or
    model.stablehlo    the program and its weights, which jax runs without hallujax
    MODEL_CARD.md      for people
    SHA256SUMS         of the first two, as `sha256sum -c` reads it; `hallujax.load` checks it too

A folder of that name appears when all of it is on disk, and not before.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from hallujax.data.transforms import TransformOptions
from hallujax.deploy.card import model_card
from hallujax.deploy.system import FUSED, Bound, Member, RgbSystem, TrainedSystem, flatten
from hallujax.errors import CheckpointError, UsageError
from hallujax.models.layers import BatchNorm
from hallujax.models.streams import Variables

SUMS = "SHA256SUMS"
VERSION = 1  # of config.json and the names in model.safetensors
PLATFORMS = ("cpu", "cuda", "tpu")  # of one StableHLO file
MODEL_FILES = {"safetensors": "model.safetensors", "stablehlo": "model.stablehlo"}


def write_export(trained: TrainedSystem, to: str, out: pathlib.Path) -> None:
    """Writes a system as `safetensors` or `stablehlo` into the folder `out`.

    Raises:
      UsageError: if `out` holds something already, or jax lacks what StableHLO files need.
    """
    write = {"safetensors": _write_safetensors, "stablehlo": _write_stablehlo}[to]
    with _all_or_nothing(out) as folder:
        write(trained, folder / MODEL_FILES[to])
        config = {
            "format": "hallujax export",
            "version": VERSION,
            "to": to,
            "system": dataclasses.asdict(trained.system),
            "facts": trained.facts,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        sums = [f"{_digest(folder / name)}  {name}\n" for name in ("config.json", MODEL_FILES[to])]
        (folder / SUMS).write_text("".join(sums))
        size = (folder / MODEL_FILES[to]).stat().st_size
        (folder / "MODEL_CARD.md").write_text(model_card(trained, to, MODEL_FILES[to], size))


def read_export(folder: pathlib.Path, name: str | None) -> tuple[RgbSystem, Callable[[np.ndarray], Any]]:
    """The system of an export, and its logits `{name: [B, K]}` of clips uint8 `[B, T, H, W, 3]`.

    Those of a StableHLO export are `fused` alone, and log-probabilities.

    Raises:
      UsageError: if it is of another system than `name`.
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
        return system, _read_stablehlo(path)
    return system, Bound(system, _read_safetensors(path, system))


def fold_batch_norm(params: Variables, batch_stats: Variables) -> tuple[Variables, Variables]:
    """One network with the gain of each batch norm in the kernel of the convolution before it.

    With `g = scale / sqrt(var + epsilon)`, `norm(x * w) = x * (g w) + (bias - g mean)`: what is left of the norm is
    an addition. A norm is called as its convolution is (`conv1`, `bn1`); one that follows no convolution stays.
    """
    params, batch_stats = dict(params), dict(batch_stats)
    for name, statistics in batch_stats.items():
        convolution = name.replace("bn", "conv")
        if "mean" not in statistics:
            params[name], batch_stats[name] = fold_batch_norm(params[name], statistics)
        elif convolution != name and convolution in params:
            gain = params[name]["scale"] / np.sqrt(statistics["var"] + BatchNorm.epsilon)
            params[convolution] = jax.tree.map(lambda leaf, gain=gain: leaf * gain, params[convolution])
            shift = params[name]["bias"] - statistics["mean"] * gain
            params[name] = {"scale": np.ones_like(gain), "bias": shift}
            batch_stats[name] = {"mean": np.zeros_like(gain), "var": np.ones_like(gain) - BatchNorm.epsilon}
    return params, batch_stats


def _write_safetensors(trained: TrainedSystem, path: pathlib.Path) -> None:
    path.write_bytes(save({name: np.asarray(leaf) for name, leaf in flatten(trained.variables).items()}))


def _read_safetensors(path: pathlib.Path, system: RgbSystem) -> Variables:
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error})") from error
    system.check(tensors, str(path))
    leaves = [tensors[name] for name in flatten(system.shapes)]
    return jax.tree.unflatten(jax.tree.structure(system.shapes), leaves)


def _write_stablehlo(trained: TrainedSystem, path: pathlib.Path) -> None:
    """A program from uint8 `[b, T, H, W, 3]` to probabilities `[b, K]`, for any b, with the weights inside."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UsageError("jax writes StableHLO files with flatbuffers: pip install 'hallujax[export]'")
    system = trained.system
    variables = {}
    for stage, networks in trained.variables.items():
        folded = {
            network: fold_batch_norm(params, networks["batch_stats"][network])
            for network, params in networks["params"].items()
        }
        variables[stage] = {
            "params": {network: params for network, (params, _) in folded.items()},
            "batch_stats": {network: statistics for network, (_, statistics) in folded.items()},
        }

    def probabilities(rgb: jax.Array) -> jax.Array:
        return jax.nn.softmax(system.logits(variables, rgb)[FUSED])

    (clips,) = jax.export.symbolic_shape("b")
    clip = jax.ShapeDtypeStruct((clips, system.frames, *system.frame_size, 3), jnp.uint8)
    path.write_bytes(jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(clip).serialize())


def _read_stablehlo(path: pathlib.Path) -> Callable[[np.ndarray], Any]:
    try:
        program = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # jax raises many kinds, of which a later jax's file is the likeliest
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: jax {jax.__version__} cannot read it ({reason})") from error
    smallest = jnp.finfo(jnp.float32).tiny
    return jax.jit(lambda clips: {FUSED: jnp.log(jnp.maximum(program.call(clips), smallest))})


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
    if list(sums) not in [["config.json", model] for model in MODEL_FILES.values()]:
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
        for written in (*partial.iterdir(), partial):
            descriptor = os.open(written, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
