"""TensorBoard's files, written without TensorFlow and without torch."""

import contextlib
import pathlib
import sys
from typing import Any

from hallujax import paths
from hallujax.errors import DataError


def summary_writer(folder: pathlib.Path, *, purge_step: int) -> Any:
    """tensorboardX's `SummaryWriter`.

    It imports torch wherever it is installed, to take its tensors too, which nobody gives it here: that was half of the
    processor time of all imports of a training.
    """
    torch = sys.modules.setdefault("torch", None)  # to import it fails now, which tensorboardX expects
    try:
        from tensorboardX import SummaryWriter
        from tensorboardX.record_writer import register_writer_factory
    finally:
        if torch is None:
            del sys.modules["torch"]
    register_writer_factory("gs", _Buckets)
    return SummaryWriter(str(folder), purge_step=purge_step)


class _Buckets:
    """What tensorboardX asks for a file in a bucket."""

    @staticmethod
    def directory_check(path: str) -> None:
        """Nothing: a bucket has no folders to make."""

    @staticmethod
    def open(path: str) -> "_Events":
        return _Events(path)


class _Events:
    """A file of events in a bucket, put there whole each time.

    Where a bucket does not answer, tensorboardX's own ends the thread that writes, on which the training then waits for
    ever, and tries for two minutes more when the process ends. This one leaves the events for the next time: the same
    numbers are lines of `metrics.jsonl`, and that they cannot be written is an error.
    """

    def __init__(self, path: str):
        self._path, self._events, self._put = paths.as_path(path), bytearray(), 0

    def write(self, events: bytes) -> None:
        self._events += events

    def flush(self) -> None:
        if self._put < len(self._events):
            with contextlib.suppress(DataError):
                paths.write(self._path, bytes(self._events))
                self._put = len(self._events)

    close = flush
