"""Records by number: against what was written, over several files, from several threads, out of a damaged file."""

import concurrent.futures
import resource
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from hallujax.data.shards import Shards


@pytest.fixture
def files(tmp_path):
    """Three files of 5, 1 and 30 records, and the records."""
    rng = np.random.default_rng(0)
    records = [rng.bytes(rng.integers(1, 2000)) for _ in range(36)]
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    for path, part in zip(paths, (records[:5], records[5:6], records[6:]), strict=True):
        writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
        for record in part:
            writer.write(record)
        writer.close()
    return paths, records


def test_records_come_by_their_number(files):
    paths, records = files
    shards = Shards(paths)
    assert len(shards) == 36
    for number in (0, 4, 5, 6, 35, 20, 5, 0):
        assert shards[number] == records[number]
    for number in (-1, 36):
        with pytest.raises(IndexError, match=f"record {number} of 36"):
            shards[number]


def test_threads_read_the_same(files):
    paths, records = files
    shards = Shards(paths)
    numbers = np.random.default_rng(1).integers(36, size=2000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shards.__getitem__, numbers)) == [records[number] for number in numbers]


def test_a_changed_record_is_an_error_and_its_neighbours_are_not(files):
    paths, records = files
    data = bytearray(open(paths[2], "rb").read())
    data[data.index(records[20]) + len(records[20]) // 2] ^= 1
    with open(paths[2], "wb") as file:
        file.write(data)
    shards = Shards(paths)
    with pytest.raises(RuntimeError):
        shards[20]
    assert [shards[19], shards[21]] == [records[19], records[21]]


def test_more_files_than_a_process_may_open(tmp_path):
    """In a process of its own, which may at first have 50 files open."""
    paths = [str(tmp_path / f"{number}") for number in range(80)]
    for number, path in enumerate(paths):
        writer = ArrayRecordWriter(path, "group_size:1,uncompressed")
        writer.write(b"%d" % number)
        writer.close()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    script = f"""
import resource
from hallujax.data.shards import Shards
resource.setrlimit(resource.RLIMIT_NOFILE, (50, {hard}))
shards = Shards({paths})
assert [int(shards[number]) for number in range(80)] == list(range(80))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
