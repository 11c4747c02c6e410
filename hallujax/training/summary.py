"""`stage.json`, what a finished stage says of itself: written last, so that it says too that the stage is finished."""

import pathlib
from collections.abc import Mapping
from typing import Any

from hallujax import sealed
from hallujax.errors import CheckpointError

FILE = "stage.json"


def is_done(directory: pathlib.Path) -> bool:
    """Whether a stage's folder holds a finished stage."""
    return (directory / FILE).exists()


def write_summary(folder: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes it, whole or not at all."""
    sealed.write(folder / FILE, values)


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """What `write_summary` wrote into a stage's folder.

    Raises:
      CheckpointError: if it is damaged, or of another stage.
    """
    remedy = f"remove the folder {folder} to train that stage again"
    found = sealed.read(folder / FILE, remedy)
    if "test_modalities" not in found or found.get("name", folder.name) != folder.name:
        raise CheckpointError(f"{folder / FILE} is damaged: it is not of this stage; {remedy}")
    return found
