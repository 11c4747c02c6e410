"""A prepared dataset in a bucket, copied to this machine's disk once: ArrayRecord is read from there alone, and faster.

The copy lies in `FINGERPRINT/NAME` under `HALLUJAX_DATA_CACHE` (`~/.cache/hallujax/data`), so that a dataset that has
changed gets another one. Old copies are for people to remove.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hallujax import paths, sealed
from hallujax.data.fingerprint import PREPARE, fingerprint
from hallujax.errors import DataError

_AT_ONCE = 8  # files: a bucket answers many questions as quickly as one
_BLOCK = 2**23  # bytes


class _File(NamedTuple):
    """A file of a dataset; of `clips.npy`, `dataset.json` says neither."""

    name: str
    size: int | None
    sha256: str | None


def local_copy(source: pathlib.Path) -> pathlib.Path:
    """The folder of this disk where the dataset `source`, in a bucket, is now.

    File by file, each whole or not there, so that a copy that was interrupted goes on; what is there with the right
    size stays. Each host has a copy of its own; of several processes on one host, one copies and the others wait.

    Raises:
      UsageError: if the bucket cannot be reached.
      DataError: if there is no dataset, it is not what it says, or the disk has no room for it.
    """
    paths.reach(source)
    described, info = _described(source)
    folder = _place(source, info)
    shards = [shard for entry in info["modalities"].values() for shard in entry["shards"]]
    with _alone(folder):
        missing = [_File(s["file"], s["bytes"], s["sha256"]) for s in shards if not _has(folder, s)]
        if not _is_index(folder / "clips.npy", info):
            missing.append(_File("clips.npy", None, None))
        if missing:
            _check_room(folder, missing)
            with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                copied = sum(pool.map(lambda file: _copy(source, folder, file), missing))
            print(f"{source}: {copied / 2**20:,.1f} MiB copied to {folder}", flush=True)
        if not (folder / "dataset.json").exists() or (folder / "dataset.json").read_bytes() != described:
            paths.write(folder / "dataset.json", described)
    return folder


def is_here(source: pathlib.Path) -> bool:
    """Whether the dataset `source`, in a bucket, has been copied to this disk; raises as `local_copy`."""
    return (_place(source, _described(source)[1]) / "dataset.json").exists()


def copies() -> pathlib.Path:
    """The folder that all copies are made in."""
    return pathlib.Path(os.environ.get("HALLUJAX_DATA_CACHE") or paths.cache("data"))


def _described(source: pathlib.Path) -> tuple[bytes, dict[str, Any]]:
    """`dataset.json`, as it is and as it reads."""
    try:
        described = paths.read(source / "dataset.json")
    except FileNotFoundError as error:
        raise DataError(f"no prepared dataset at {source} (dataset.json is missing): {PREPARE} and copy it") from error
    try:
        info = json.loads(described)
        if not (sealed.is_whole(info) and {"fingerprint", "classes", "modalities"} <= info.keys()):
            raise ValueError("it is not what was written")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{source}/dataset.json is damaged ({error}): {PREPARE} again and copy it") from error
    return described, info


def _place(source: pathlib.Path, info: Mapping[str, Any]) -> pathlib.Path:
    return copies() / info["fingerprint"][:16] / source.name


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """No other process of this host works on the same copy meanwhile; who is killed lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _has(folder: pathlib.Path, shard: Mapping[str, Any]) -> bool:
    try:
        return (folder / shard["file"]).stat().st_size == shard["bytes"]
    except FileNotFoundError:
        return False


def _is_index(path: pathlib.Path, info: dict[str, Any]) -> bool:
    return path.exists() and fingerprint(info, hashlib.sha256(path.read_bytes()).hexdigest()) == info["fingerprint"]


def _check_room(folder: pathlib.Path, missing: list[_File]) -> None:
    needed, free = sum(file.size or 0 for file in missing), shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder} needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB free: make room, or name another folder "
            "by HALLUJAX_DATA_CACHE"
        )


def _copy(source: pathlib.Path, folder: pathlib.Path, file: _File) -> int:
    """Copies a file, whole or not at all; its bytes."""
    target, digest = folder / file.name, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    try:
        with (source / file.name).open("rb") as there, partial.open("wb") as here:
            while block := there.read(_BLOCK):
                digest.update(block)
                here.write(block)
            size = here.tell()
        if file.sha256 not in (None, digest.hexdigest()):
            raise DataError(f"{source / file.name} is not what dataset.json says ({size} bytes): {PREPARE} and copy it")
        partial.replace(target)
    except FileNotFoundError as error:
        raise DataError(f"{source / file.name} is missing: {PREPARE} and copy it") from error
    finally:
        partial.unlink(missing_ok=True)
    return size
