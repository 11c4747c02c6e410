"""The metrics of a stage: JSON lines, the source of truth, and TensorBoard files beside them."""

import contextlib
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from hallujax.errors import CheckpointError
from hallujax.training.summary import FILE as SUMMARY
from hallujax.training.summary import read_summary

CLOCK = ("seconds", "input/waited")  # the values that differ from run to run


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """PyTorch seems not to be there, unless it is loaded already.

    tensorboardX loads it wherever it is installed, for its type hints alone, and that takes longer than to load all
    that training needs.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # to import it is an ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


with _without_torch():
    from tensorboardX import SummaryWriter


class MetricsLog:
    """Appends to `metrics.jsonl` and to `tensorboard/` in a stage's folder.

    A resumed run continues at the length that its checkpoint recorded; what a killed run wrote after it is cut off, so
    no step appears twice.
    """

    def __init__(self, directory: pathlib.Path, *, position: int = 0, digest: str = "", step: int = 0):
        path = directory / "metrics.jsonl"
        path.touch()
        self._file = path.open("r+b")
        before = self._file.read(position)
        self._hash = hashlib.sha256(before)
        if len(before) < position:
            raise CheckpointError(f"{path} is shorter than its checkpoint says; remove {directory} to start over")
        if digest not in ("", self.digest):
            raise CheckpointError(f"{path} is not what its checkpoint says; remove {directory} to start over")
        self._file.truncate(position)
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line `{"step": step, ...}`; of `values`, plain JSON, TensorBoard gets the numbers."""
        line = f"{json.dumps({'step': step, **values})}\n".encode()
        self._file.write(line)
        self._hash.update(line)
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    @property
    def position(self) -> int:
        """Bytes written and flushed: what a checkpoint records."""
        self._file.flush()
        return self._file.tell()

    @property
    def digest(self) -> str:
        """SHA-256 of what was written, and flushed."""
        self._file.flush()
        return self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()
        self._board.close()


class NoLog:
    """Of several processes, what all but the first have for a log."""

    position, digest = 0, ""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing: the first process has the same numbers."""

    def note(self, step: int, **facts: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(directory: pathlib.Path) -> list[dict[str, Any]]:
    """All lines of a stage's `metrics.jsonl`; a last line cut off by a kill is left out.

    Raises:
      CheckpointError: if it is damaged, or is not what the finished stage says.
    """
    path = directory / "metrics.jsonl"
    written = path.read_bytes()
    if (directory / SUMMARY).exists():
        digest = read_summary(directory).get("metrics_sha256")
        if digest not in (None, hashlib.sha256(written).hexdigest()):
            raise CheckpointError(f"{path} is damaged: it is not what was written")
    lines = written.split(b"\n")[:-1]
    metrics = []
    for number, line in enumerate(lines, 1):
        try:
            metrics.append(json.loads(line))
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged in line {number} ({error})") from error
    return metrics
