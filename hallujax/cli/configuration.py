"""`--config=FILE[:ARGUMENTS] --config.KEY=VALUE ...` read into an experiment."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator, Sequence

from hallujax.errors import UsageError


def read_flags(arguments: Sequence[str]):
    """`--config=FILE[:ARGUMENTS] --config.KEY=VALUE ...` as an `Experiment`.

    Raises:
      UsageError: for a missing file, an unknown key, or a value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    from hallujax.experiment import read_config

    files = [argument for argument in arguments if argument.startswith("--config=")]
    if not files:
        raise UsageError(
            "write --config=FILE.py:DATASET,PROTOCOL, say --config=configs/admd.py:mocap_rgbd,cross_subject"
        )
    path = files[-1].removeprefix("--config=").partition(":")[0]
    if not pathlib.Path(path).exists():
        raise UsageError(f"no configuration file {path}; those that come with hallujax are in configs/")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        with _importable(pathlib.Path(path).resolve().parent.parent), _arguments(arguments):
            left_over = values(["hallujax", *arguments])[1:]
            config = values.config
    except (AttributeError, KeyError) as error:
        raise UsageError(
            f"unknown configuration key {_unknown(error)}; configs/base.py lists what all have, {path} its stages"
        ) from error
    except (flags.Error, ValueError, TypeError, SyntaxError, ImportError) as error:
        raise UsageError(f"configuration: {_last_line(error)}") from error
    if left_over:
        raise UsageError(f"unrecognized arguments: {' '.join(left_over)}")
    return read_config(config)


def _unknown(error: BaseException) -> str:
    """The key and what ml_collections takes it for, out of the errors that it wraps it in."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    key, _, meant = str(error.args[0] if error.args else error).partition("\n")
    return f"{key} ({meant})" if meant else key


def _last_line(error: Exception) -> str:
    """Of a configuration file that fails, the reason comes last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


@contextlib.contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """ml_collections looks for overrides in `sys.argv`, whatever it is given to parse."""
    before, sys.argv = sys.argv, ["hallujax", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
    """Configuration files import their neighbours as `configs.NAME`, whatever folder the command is run from."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
