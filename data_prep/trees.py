"""What all raw trees have in common: folders of known names, and paths that must not lead out of them."""

import pathlib
from collections.abc import Sequence

from hallujax.errors import UsageError


def root(path: pathlib.Path) -> pathlib.Path:
    """The raw folder, links resolved.

    Raises:
      UsageError: it is a file, an archive for example.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder; unpack archives first")
    return path.resolve()


def folders(root: pathlib.Path, known: Sequence[str]) -> list[pathlib.Path]:
    """All folders of the first of these names that there is, in `root` or one folder deeper."""
    for name in known:
        found = [path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_dir()]
        if found:
            return found
    return []


def leaves(root: pathlib.Path, path: str) -> str:
    """Why a path in the raw tree must not be read: it, or a link in it, leads out, or is none; or nothing."""
    try:
        (root / path).exists()
        inside = (root / path).resolve().is_relative_to(root)
    except (OSError, ValueError):  # too long, or with a zero byte
        return f"{path[:40]!r} cannot be a path"
    return "" if inside else f"{path} leaves the raw folder"
