"""Records by their number, out of the ArrayRecord files of one modality.

array_record's own data source reads a batch in a pool of 64 threads and asks each file for a list of records, for which
array_record goes through all records of the file. From a warm file that costs several times the processor time of one
record after another, asked for as ranges of one. Where single reads are slow (a network file system), reading ahead
with more threads (`data.threads`) hides it.
"""

import bisect
import concurrent.futures
import contextlib
import itertools
import resource
import threading
from collections.abc import Sequence
from typing import Any

_OPENED_AT_ONCE = 64


class Shards:
    """Files of records, counted as one; may be read from several threads at once.

    Raises:
        RuntimeError, ValueError: of array_record, if a file cannot be opened.
    """

    def __init__(self, paths: Sequence[str]):
        _allow_open(len(paths))
        with concurrent.futures.ThreadPoolExecutor(min(len(paths), _OPENED_AT_ONCE)) as pool:
            self._ends = list(itertools.accumulate(pool.map(count_records, paths)))
        self._paths = paths
        self._readers: list[Any] = [None] * len(paths)
        self._opening = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> bytes:
        """A record's bytes.

        Raises:
            IndexError: there are fewer records.
            RuntimeError: of array_record, if the record does not fit its checksum.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        shard = bisect.bisect_right(self._ends, number)
        place = number - self._ends[shard - 1] if shard else number
        (record,) = self._reader(shard).read(place, place + 1)
        return record

    def _reader(self, shard: int) -> Any:
        """Files are opened when something is read of them, and stay open."""
        reader = self._readers[shard]
        if reader is None:
            with self._opening:
                reader = self._readers[shard]
                if reader is None:
                    reader = self._readers[shard] = _open(self._paths[shard])
        return reader


def _allow_open(files: int) -> None:
    """So many more: a process may mostly have 1,024 files open until it asks, and a large dataset is thousands."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + files if hard == resource.RLIM_INFINITY else min(soft + files, hard)
    with contextlib.suppress(ValueError, OSError):  # then reading says which file was one too many
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def count_records(path: str) -> int:
    """How many records a file holds; none in one that was cut, without an error.

    Raises:
        RuntimeError, ValueError: of array_record, for other damage.
    """
    reader = _open(path)
    records = reader.num_records()
    reader.close()
    return records


def _open(path: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader  # benchmarks of a GPU do without it

    # Nothing is read ahead: the records of a clip that are wanted do not lie side by side.
    options = "readahead_buffer_size:0,max_parallelism:0"
    return ArrayRecordReader(path, options=options, file_reader_buffer_size=1 << 15)
