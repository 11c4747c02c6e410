"""JSON files that say when they are damaged: their last key is a checksum of all the others.

A flipped bit in a run's settings or a stage's summary is still JSON more often than not, and nothing else would tell.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from hallujax import paths
from hallujax.errors import CheckpointError

SEAL = "sha256"


def write(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes `values` and their checksum, whole or not at all."""
    paths.write(path, json.dumps({**values, SEAL: _digest(values)}, indent=1) + "\n")


def read(path: pathlib.Path, remedy: str) -> dict[str, Any]:
    """What was written. Files of before there were checksums have none, and are taken as they are.

    `remedy` ends the message for people.

    Raises:
      FileNotFoundError: if there is no such file.
      CheckpointError: if it is not what was written.
    """
    try:
        values = json.loads(paths.read(path))
        whole = is_whole(values)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); {remedy}") from error
    if not whole:
        raise CheckpointError(f"{path} is damaged: it is not what was written; {remedy}")
    values.pop(SEAL, None)
    return values


def is_whole(values: Mapping[str, Any]) -> bool:
    """Whether the checksum among `values`, if there is one, is that of the others."""
    return values.get(SEAL) in (None, _digest({key: value for key, value in values.items() if key != SEAL}))


def _digest(values: Mapping[str, Any]) -> str:
    # As it will be read: tuples as lists, numbers as keys as strings.
    plain = json.loads(json.dumps(values))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
