"""The types of flags that name a folder."""

import argparse
import os
import pathlib

from hallujax import paths
from hallujax.errors import UsageError


def folder(text: str) -> pathlib.Path:
    """On a disk, or in a bucket: gs://BUCKET/FOLDER, which `reach_all` looks for."""
    try:
        return paths.as_path(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def reach_all(options: argparse.Namespace) -> None:
    """Raises UsageError if the bucket of an address among the flags is not there, or may not be looked at."""
    for value in vars(options).values():
        if isinstance(value, os.PathLike):
            paths.reach(value)


def local_folder(text: str) -> pathlib.Path:
    """On a disk; an address such as gs://BUCKET/DATA would be made a folder `gs:` here."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is an address; name a folder of this machine, and copy it then")
    return pathlib.Path(text)
