"""Reads and decodes every record of a prepared dataset, and names those that are damaged."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator

import numpy as np

from hallujax.data.records import PreparedDataset
from hallujax.errors import DamagedRecordError

_AT_ONCE = 64  # records that a thread reads in one go


def damaged_records(
    dataset: PreparedDataset, *, threads: int | None = None, advance: Callable[[int], None] = lambda records: None
) -> list[str]:
    """Every record that cannot be read or decoded, or is not what the index says, a line each, in order.

    Args:
      dataset: as it was opened: frames that are kept are not read again.
      threads: that read and decode; as many as cores if not said.
      advance: told, in this thread, how many more records were read.

    Raises:
      DataError: if a modality cannot be read for another reason.
    """

    def damaged(name: str, rows: np.ndarray, frames: np.ndarray) -> list[str]:
        try:
            dataset.read(name, rows, frames[:, None])
        except DamagedRecordError as error:
            if len(rows) == 1:
                return [str(error)]
            return [line for i in range(len(rows)) for line in damaged(name, rows[i : i + 1], frames[i : i + 1])]
        return []

    found: list[str] = []
    parts = list(_parts(dataset))
    with concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for part, lines in zip(parts, pool.map(lambda part: damaged(*part), parts), strict=True):
            found += lines
            advance(len(part[1]))
    return found


def _parts(dataset: PreparedDataset) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """All records as (modality, rows, frames) of a few."""
    for name in dataset.modalities:
        lengths = dataset.length(name)
        ends = np.cumsum(lengths)
        rows = np.repeat(np.arange(len(dataset)), lengths)
        frames = np.arange(len(rows)) - np.repeat(ends - lengths, lengths)
        for start in range(0, len(rows), _AT_ONCE):
            yield name, rows[start : start + _AT_ONCE], frames[start : start + _AT_ONCE]
