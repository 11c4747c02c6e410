"""The types of flags that name a folder."""

import argparse
import pathlib

from hallujax import paths
from hallujax.errors import UsageError


def folder(text: str) -> pathlib.Path:
    """On a disk, or in a bucket that can be reached: gs://BUCKET/FOLDER."""
    try:
        return paths.reach(paths.as_path(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_folder(text: str) -> pathlib.Path:
    """On a disk; an address such as gs://BUCKET/DATA would be made a folder `gs:` here."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is an address; name a folder of this machine, and copy it then")
    return pathlib.Path(text)
