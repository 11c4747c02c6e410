"""Which code is launched: one git tree, whatever happens to the checkout afterwards."""

import os
import pathlib
import subprocess
import tempfile
from typing import NamedTuple

from launch.commands import Failed

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Revision(NamedTuple):
    """A tree in git's store, and what `run.json` and image tags call it."""

    tree: str
    name: str

    def archive(self) -> list[str]:
        """The command that writes it to standard output as a tar file."""
        return ["git", "-C", str(ROOT), "archive", "--format=tar", self.tree]


def revision(wanted: str | None, with_changes: bool) -> Revision:
    """The commit `wanted`, by default HEAD; or, `with_changes`, what the checkout holds, new files included.

    Raises:
      Failed: if the checkout differs from HEAD and neither is said, or git fails.
    """
    commit = _git("rev-parse", "--short=12", "--verify", f"{wanted or 'HEAD'}^{{commit}}")
    changed = _git("status", "--porcelain").splitlines()
    if wanted or not changed:
        return Revision(commit, commit)
    if not with_changes:
        raise Failed(
            f"{len(changed)} files differ from commit {commit}, first {changed[0].split(maxsplit=1)[1]}: commit them, "
            "or say --with-changes, or name a commit by --revision",
            2,
        )
    with tempfile.TemporaryDirectory() as folder:  # an index of its own leaves the checkout's as it is
        index = {"GIT_INDEX_FILE": os.path.join(folder, "index")}
        _git("add", "--all", ":/", **index)
        tree = _git("write-tree", **index)
    return Revision(tree, f"{commit}-changes-{tree[:12]}")


def _git(*words: str, **environment: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    except FileNotFoundError:
        raise Failed("there is no git here, which copies the code", 2) from None
    if done.returncode:
        raise Failed(f"git {' '.join(words)}: {done.stderr.strip()}", 2)
    return done.stdout.strip()
