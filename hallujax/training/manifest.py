"""Checksums of a checkpoint's files: orbax has none, and restores most flipped bits without a word.

`MANIFEST.json` is written into a checkpoint's folder before the rename that makes it visible (in a bucket: before the
`commit_success.txt` that does), and compared before anything is read from it.
"""

import hashlib
import json
import pathlib

from hallujax import paths

NAME = "MANIFEST.json"
ORBAXS_OWN = ("commit_success.txt", "_CHECKPOINT_METADATA")  # finished after the manifest; no state is in them


def write_manifest(folder: pathlib.Path) -> None:
    """Writes size and SHA-256 of every file under `folder`."""
    files = {name: _entry(folder / name) for name in _files(folder)}
    paths.write(folder / NAME, json.dumps(files, indent=1) + "\n")


def damage(folder: pathlib.Path) -> str | None:
    """What differs from the manifest, the first file in order; None if nothing does, or there is none.

    Checkpoints of earlier versions have none, but in a bucket, where earlier versions did not write: there it is gone.
    """
    path = folder / NAME
    if not path.exists():
        return f"{NAME} is missing" if paths.in_bucket(folder) else None
    try:
        expected = json.loads(paths.read(path))
        there = set(_files(folder))
        for name in sorted(expected.keys() | there):
            if name not in there:
                return f"{name} is missing"
            if name not in expected:
                return f"{name} was not written with it"
            if _entry(folder / name) != expected[name]:
                return f"{name} is not what was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"{NAME} cannot be read ({error})"
    return None


def _files(folder: pathlib.Path) -> list[str]:
    return [name for name in paths.files(folder) if name.rpartition("/")[2] not in (NAME, *ORBAXS_OWN)]


def _entry(path: pathlib.Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}
