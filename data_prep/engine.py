"""Writes a dataset's shards in parallel: resumable, atomic, the same bytes whatever the number of workers.

A dataset is a `Job`: so many shards, each written by one call in a worker process. A shard that is written leaves a
receipt, and only shards without one are written by the next start. Everything lies in a hidden folder until the last
file is there, and is renamed then.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from data_prep import writer
from hallujax.console import Console
from hallujax.errors import DataError, UsageError

_RECEIPTS = "receipts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A dataset to write.

    Attributes:
      name: of the dataset and of its folder.
      title: what the progress line calls it.
      identity: everything the bytes depend on, as JSON; kept in dataset.json under that name.
      modalities: what each record holds.
      tasks: one a shard, picklable, called in a worker as `task(directory, shard)`. It writes the shard by
        `writer.write_shard` and returns what `finish` must know of it, as JSON.
      clips: how many each shard has, for the progress.
      estimated_bytes: on disk, all shards together.
      finish: called with the hidden folder, the target and what the tasks returned, in order; it adds index and
        description and renames the folder (`writer.finish`).
    """

    name: str
    title: str
    identity: Mapping[str, Any]
    modalities: Mapping[str, writer.Modality]
    tasks: Sequence[Callable[[pathlib.Path, int], Any]]
    clips: Sequence[int]
    estimated_bytes: int
    finish: Callable[[pathlib.Path, pathlib.Path, list[Any]], None]


def is_complete(out: pathlib.Path, job: Job) -> bool:
    """Whether `out` holds exactly this dataset already.

    Raises:
      UsageError: it holds another one under that name.
    """
    target = out / job.name
    if not target.exists():
        return False
    with contextlib.suppress(OSError, ValueError):
        if json.loads((target / "dataset.json").read_text()).get("identity") == _as_json(job.identity):
            return True
    raise UsageError(f"{target} holds something else than {job.title}: choose another folder, or delete it")


# (hidden folder, job, shards, workers): writes the shards and yields each as it is done.
Runner = Callable[[pathlib.Path, Job, Sequence[int], int], Iterator[int]]


def write(
    out: pathlib.Path, job: Job, workers: int | None = None, progress: bool = True, run: Runner | None = None
) -> pathlib.Path:
    """Writes the dataset to `out`/NAME, going on behind the last finished shard, and returns that path.

    `run` is `processes` unless it is said, for example by `beam.runner`.

    Raises:
      DataError: there is too little space, the disk is full, or a worker died.
    """
    partial = _partial(out, job)
    todo = [shard for shard in range(len(job.tasks)) if not is_finished(partial, job, shard)]
    share = sum(job.clips[shard] for shard in todo) / max(sum(job.clips), 1)
    _check_space(out, int(job.estimated_bytes * share))
    workers = max(1, min(workers or os.cpu_count() or 1, len(todo) or 1))
    total = sum(job.clips)
    done = total - sum(job.clips[shard] for shard in todo)
    try:
        with Console(total, done=done) if progress else contextlib.nullcontext() as console:
            # Closed at once on Ctrl-C: the workers are gone before their half-written files are swept up.
            with contextlib.closing((run or processes)(partial, job, todo, workers)) as finished:
                for shard in finished:
                    done += job.clips[shard]
                    if console:
                        console.advance(job.clips[shard], f"{job.title}: {done} of {total} clips")
    finally:
        writer.sweep(partial)
    results = [json.loads(_receipt(partial, shard).read_text()) for shard in range(len(job.tasks))]
    job.finish(partial, out / job.name, results)
    return out / job.name


def forget(out: pathlib.Path, job: Job, shards: Sequence[int]) -> None:
    """Lets the next start write these shards again."""
    for shard in shards:
        _receipt(_partial(out, job), shard).unlink(missing_ok=True)


def clean(directory: pathlib.Path) -> None:
    """Removes what only an unfinished dataset needs; part of a job's `finish`."""
    shutil.rmtree(directory / _RECEIPTS)


def _as_json(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))


def _partial(out: pathlib.Path, job: Job) -> pathlib.Path:
    """The hidden folder of the unfinished dataset; what another job left half-done is removed."""
    key = hashlib.sha256(json.dumps(_as_json(job.identity), sort_keys=True).encode()).hexdigest()[:12]
    partial = out / f".{job.name}-{key}.partial"
    try:
        for other in out.glob(f".{job.name}-*.partial"):
            if other != partial:
                shutil.rmtree(other)
        (partial / _RECEIPTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}") from error
    return partial


def _receipt(partial: pathlib.Path, shard: int) -> pathlib.Path:
    return partial / _RECEIPTS / f"{shard:05}.json"


def is_finished(partial: pathlib.Path, job: Job, shard: int) -> bool:
    """Whether a shard of the unfinished dataset has its receipt and its files."""
    return _receipt(partial, shard).exists() and writer.finished(
        partial, job.name, job.modalities, shard, len(job.tasks)
    )


def _check_space(out: pathlib.Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"{out} has {free / 2**30:.1f} GiB free, about {needed / 2**30:.1f} GiB are needed: "
            "free some, or choose another folder"
        )


def _write_shard(task: Callable[[pathlib.Path, int], Any], partial: pathlib.Path, shard: int) -> int:
    """In a worker: writes a shard, then its receipt."""
    leave_receipt(partial, shard, task(partial, shard))
    return shard


def leave_receipt(partial: pathlib.Path, shard: int, result: Any) -> None:
    """Marks a shard as finished, with what its task returned."""
    receipt = _receipt(partial, shard)
    half = receipt.with_suffix(f".{os.getpid()}.partial")
    with writer.explain_full_disk(partial):
        half.write_text(json.dumps(result))
        os.replace(half, receipt)


def processes(partial: pathlib.Path, job: Job, shards: Sequence[int], workers: int) -> Iterator[int]:
    """Writes `shards` in spawned processes and yields each as it is done; on an error or Ctrl-C they are stopped.

    One worker needs no process of its own.
    """
    if workers == 1:
        for shard in shards:
            yield _write_shard(job.tasks[shard], partial, shard)
        return
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_die_with_parent,
            initargs=(os.getpid(),),
        )
        try:
            futures = [pool.submit(_write_shard, job.tasks[shard], partial, shard) for shard in shards]
            for future in as_completed(futures):
                yield future.result()
            pool.shutdown()
        except BrokenProcessPool as error:
            raise DataError(f"a worker process died (out of memory?); start again to go on: {partial}") from error
        finally:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent(parent: int) -> None:
    """Workers leave Ctrl-C to the parent and, on Linux, are killed when it dies however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """NumPy's BLAS would start as many threads in every worker as there are cores; children inherit the
    limit."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
