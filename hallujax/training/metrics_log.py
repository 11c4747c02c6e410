"""The metrics of a stage: JSON lines, the source of truth, and TensorBoard files beside them."""

import json
import pathlib
from collections.abc import Mapping

from tensorboardX import SummaryWriter

from hallujax.errors import CheckpointError


class MetricsLog:
    """Appends to `metrics.jsonl` and to `tensorboard/` in a stage's folder.

    A resumed run continues at the length that its checkpoint recorded; what a killed run wrote after it is cut off, so
    no step appears twice.
    """

    def __init__(self, directory: pathlib.Path, *, position: int = 0, step: int = 0):
        path = directory / "metrics.jsonl"
        path.touch()
        if path.stat().st_size < position:
            raise CheckpointError(f"{path} is shorter than its checkpoint says; remove {directory} to start over")
        self._file = path.open("r+")
        self._file.truncate(position)
        self._file.seek(position)
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line `{"step": step, ...}`; `values` are plain numbers."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    @property
    def position(self) -> int:
        """Bytes written and flushed: what a checkpoint records."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        self._board.close()


class NoLog:
    """Of several processes, what all but the first have for a log."""

    position = 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing: the first process has the same numbers."""

    def close(self) -> None:
        """Nothing."""


def read_metrics(directory: pathlib.Path) -> list[dict[str, float]]:
    """All lines of a stage's `metrics.jsonl`; a last line cut off by a kill is left out."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    metrics = []
    for number, line in enumerate(lines):
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError:
            if number != len(lines) - 1:
                raise
    return metrics
