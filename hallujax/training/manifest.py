"""Checksums of a checkpoint's files: orbax has none, and restores most flipped bits without a word.

`MANIFEST.json` is written into a checkpoint's folder before the rename that makes it visible, and compared before
anything is read from it.
"""

import hashlib
import json
import pathlib

NAME = "MANIFEST.json"
ORBAXS_OWN = ("commit_success.txt", "_CHECKPOINT_METADATA")  # finished after the manifest; no state is in them


def write_manifest(folder: pathlib.Path) -> None:
    """Writes size and SHA-256 of every file under `folder`."""
    files = {path.relative_to(folder).as_posix(): _entry(path) for path in _files(folder)}
    (folder / NAME).write_text(json.dumps(files, indent=1) + "\n")


def damage(folder: pathlib.Path) -> str | None:
    """What differs from the manifest, the first file in order; None if nothing does, or there is none.

    Checkpoints of earlier versions have none.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        expected = json.loads(path.read_text())
        there = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
        for name in sorted(expected.keys() | there.keys()):
            if name not in there:
                return f"{name} is missing"
            if name not in expected:
                return f"{name} was not written with it"
            if _entry(there[name]) != expected[name]:
                return f"{name} is not what was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"{NAME} cannot be read ({error})"
    return None


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (NAME, *ORBAXS_OWN))


def _entry(path: pathlib.Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
