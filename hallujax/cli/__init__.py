"""The command line: a module a group of commands. Errors for people are one line on stderr; a bug keeps its traceback.

A module's `add` declares its commands, `command(name, run, summary)` each; `run(options, rest)` imports what it needs
itself, so that `hallujax --help` stays quick.
"""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence

from hallujax import huge_pages
from hallujax.cli import claims, data, deploy, machine, serving, training, weights
from hallujax.cli.configuration import read_flags
from hallujax.cli.folders import reach_all
from hallujax.errors import DataError, HallujaxError

__all__ = ["entry", "main", "read_flags"]

_USERS_TO_MEND = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0 is done, 2 usage, 3 data, 4 numbers that are not finite, 5 checkpoint, 130 and 143 stopped by a signal.
    """
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and not known.takes_flags:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        reach_all(known)
        return known.run(known, rest) or 0
    except HallujaxError as error:
        print(f"hallujax: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that may not be written: what the user must mend
        if error.errno not in _USERS_TO_MEND:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"hallujax: {where}{error.strerror}; what is finished is kept", file=sys.stderr)
        return DataError.exit_code
    except KeyboardInterrupt:
        print("hallujax: stopped; the same command continues from what is finished", file=sys.stderr)
        return 130


def entry() -> None:
    """The console script.

    What fails in gcsfs, or in a background thread of orbax or tensorboardX, is raised here too and said in one line:
    their own log of it is off, and after a failure the process ends at once, before their exit handlers fail again.
    """
    huge_pages.restart()
    for name in ("absl", "gcsfs"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hallujax", description="Train with every modality you own; deploy with the one you will have."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, summary: str, takes_flags: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run, takes_flags=takes_flags)
        return sub

    for group in (training, claims, data, weights, deploy, serving, machine):
        group.add(command)
    return parser
