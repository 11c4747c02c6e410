"""Runs a conversion on Apache Beam (extra `beam`), for raw data that outgrows one machine: the shards of the same job.

Raw folder and output must be on a file system that every worker sees under the same path, and `hallujax` must be
installed on the workers. A runner may start a shard twice: each attempt writes to a folder of its own, and the last one
to finish leaves its files, which are the same bytes. Receipts are those of `engine`, so a run goes on where another was
killed, whoever started it.
"""

import functools
import os
import pathlib
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_prep import engine
from hallujax.errors import DataError, HallujaxError, UsageError

_ATTEMPTS = "attempts"
_SECONDS = 0.5  # between two looks at the receipts


def runner(flags: Sequence[str]) -> engine.Runner:
    """What `engine.write` takes to run on Beam; `flags` as `PipelineOptions` takes them, `--runner=...` among them.

    Raises:
      UsageError: Beam is missing, or a flag is unknown to it.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    except ImportError as error:
        raise UsageError("--beam needs Apache Beam: pip install 'hallujax[beam]'") from error
    options = PipelineOptions(list(flags))
    known = options.get_all_options()
    if unread := [flag for flag in flags if flag.lstrip("-").partition("=")[0].replace("-", "_") not in known]:
        raise UsageError(f"--beam: {unread[0]} is no option of Beam's; give them as --name=value")
    if options.view_as(StandardOptions).streaming:
        raise UsageError("--beam: a conversion is no stream")
    return functools.partial(_run, flags=tuple(flags))


def _run(
    partial: pathlib.Path, job: engine.Job, shards: Sequence[int], workers: int, *, flags: Sequence[str]
) -> Iterator[int]:
    """Yields each shard once its receipt is there; as `engine.processes`."""
    del workers  # a flag of the runner's
    shutil.rmtree(partial / _ATTEMPTS, ignore_errors=True)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _pipeline(partial, job, shards, flags)
        except BaseException as error:
            failures.append(error)

    # A daemon: Ctrl-C must not wait for it.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    waiting = set(shards)
    try:
        while waiting:
            thread.join(_SECONDS)
            over = not thread.is_alive()
            for shard in [shard for shard in sorted(waiting) if engine.is_finished(partial, job, shard)]:
                waiting.remove(shard)
                yield shard
            if over and waiting:
                raise _explained(failures, partial)
        thread.join()
    finally:
        shutil.rmtree(partial / _ATTEMPTS, ignore_errors=True)


def _pipeline(partial: pathlib.Path, job: engine.Job, shards: Sequence[int], flags: Sequence[str]) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    partial = partial.absolute()  # a worker may start elsewhere
    tasks = [(shard, job.tasks[shard]) for shard in shards]
    with beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
        _ = (
            pipeline
            | "Shards" >> beam.Create(tasks)
            | "Spread" >> beam.Reshuffle()
            | "Convert" >> beam.MapTuple(functools.partial(attempt, partial=str(partial)))
        )


def attempt(shard: int, task: Callable[[pathlib.Path, int], Any], *, partial: str) -> int:
    """In a worker: writes a shard in a folder of its own, moves its files to their place, and leaves the receipt."""
    folder = pathlib.Path(partial, _ATTEMPTS, uuid.uuid4().hex)
    folder.mkdir(parents=True)
    try:
        result = task(folder, shard)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = pathlib.Path(partial, path.relative_to(folder))
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
        engine.leave_receipt(pathlib.Path(partial), shard, result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return shard


def _explained(failures: Sequence[BaseException], partial: pathlib.Path) -> BaseException:
    """One line; Beam hands on what a worker raised with its traceback as the text."""
    if failures and isinstance(failures[0], HallujaxError):
        return type(failures[0])(str(failures[0]).splitlines()[0])
    lines = str(failures[0]).strip().splitlines() if failures else ["no reason given"]
    said = next((line for line in reversed(lines) if "Error" in line), lines[-1])
    error = DataError(f"Beam gave up: {said.strip()[:300]}; start again to go on: {partial}")
    error.__cause__ = failures[0] if failures else None
    return error
