"""Where runs and datasets lie: in a folder, or in a bucket of Google Cloud Storage.

`as_path` makes a `pathlib.Path` of a folder's name and, of an address `gs://BUCKET/FOLDER`, an `etils.epath.Path`,
which has nearly the same methods. What a bucket does otherwise than a disk stands here: it has no folders but those
that hold something, and knows no renaming, appending and linking; but an object is there when all of it is, not before.
"""

import functools
import importlib.util
import os
import pathlib

from hallujax.errors import DataError, UsageError

_BUCKETS = "gs://"


def as_path(place: str | os.PathLike) -> pathlib.Path:
    """A folder or an address as a path.

    Raises:
      UsageError: for an address of another kind, or if what reads buckets is not installed.
    """
    text = os.fspath(place)
    if "://" not in text:
        return pathlib.Path(text)
    if not text.removeprefix(_BUCKETS).partition("/")[0] or not text.startswith(_BUCKETS):
        raise UsageError(f"{text} is neither a folder nor gs://BUCKET/FOLDER")
    _ready()
    from etils import epath

    return epath.Path(text)


def in_bucket(path: os.PathLike) -> bool:
    """Whether it is an address."""
    return os.fspath(path).startswith(_BUCKETS)


def reach(path: pathlib.Path) -> pathlib.Path:
    """`path`, after a look whether its bucket is there.

    Raises:
      UsageError: if it is not, or it may not be looked at.
    """
    if not in_bucket(path):
        return path
    bucket = _BUCKETS + os.fspath(path).removeprefix(_BUCKETS).partition("/")[0]
    try:
        _storage().info(bucket)
    except FileNotFoundError as error:
        raise UsageError(f"there is no bucket {bucket}, or no right to see it") from error
    except Exception as error:  # gcsfs, aiohttp and google.auth raise many kinds
        raise UsageError(
            f"{bucket} cannot be reached ({_one_line(error)}); `gcloud auth application-default login` or "
            "GOOGLE_APPLICATION_CREDENTIALS says who you are"
        ) from error
    return path


def absolute(path: pathlib.Path) -> pathlib.Path:
    """`path.absolute()`; that of an address would have the working directory before it."""
    return path if in_bucket(path) else path.absolute()


def read(path: pathlib.Path) -> bytes:
    """All of a file, in one question to a bucket instead of three.

    Raises:
      FileNotFoundError: if there is none.
    """
    return _storage().cat_file(os.fspath(path)) if in_bucket(path) else path.read_bytes()


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
      OSError: if it cannot be written.
      DataError: the same, in a bucket.
    """
    content = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        try:
            _storage().pipe_file(os.fspath(path), content)
        except Exception as error:  # as in `reach`
            raise DataError(f"{path} cannot be written ({_one_line(error)}); what is finished is kept") from error
        return
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def files(folder: pathlib.Path) -> list[str]:
    """All files under a folder, in order, by their names from there; one question to a bucket."""
    if not in_bucket(folder):
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    root = os.fspath(folder).removeprefix(_BUCKETS).rstrip("/") + "/"
    return sorted(name.removeprefix(root) for name in _storage().find(os.fspath(folder)) if not name.endswith("/"))


def move(folder: pathlib.Path, to: pathlib.Path) -> None:
    """Moves a folder in place of what is at `to`: at once on a disk, file by file in a bucket."""
    from etils import epath

    epath.Path(to).rmtree(missing_ok=True)
    if in_bucket(folder):
        _storage().mv(os.fspath(folder), os.fspath(to), recursive=True)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(to)


def cache(name: str) -> pathlib.Path:
    """The folder of this user's disk where something that can be made again is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "hallujax" / name


@functools.cache
def _ready() -> None:
    if importlib.util.find_spec("gcsfs") is None:
        raise UsageError("gs:// needs gcsfs: pip install 'hallujax[gcs]'")
    import fsspec

    # Others write there too: what was not there a moment ago may be now.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    os.environ.setdefault("EPATH_USE_TF", "false")  # the same client, whether or not TensorFlow is installed


def _storage():
    """The client that `epath` uses too, for what it has no method for."""
    import fsspec

    return fsspec.filesystem("gcs")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
