"""Concurrent requests share one call of the network."""

import asyncio
import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timed:
    """An answer, the seconds it waited for its turn, and those that its batch took."""

    answer: Any
    waited: float
    computed: float


class Batcher:
    """Gathers clips that come within `max_wait` seconds of each other, `max_batch` at most; used within `async with`.

    All work for the accelerator goes through its one thread.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[np.ndarray]], Sequence[Any]],
        *,
        max_batch: int,
        max_wait: float,
        on_batch: Callable[[int], None],
    ):
        """`answer` takes clips and returns as many answers; `on_batch` is told how many there were."""
        self._answer, self._on_batch = answer, on_batch
        self._max_batch, self._max_wait = max_batch, max_wait
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future, float]] = asyncio.Queue()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "network")

    async def __aenter__(self) -> "Batcher":
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def alive(self) -> bool:
        return not self._task.done()

    async def __call__(self, clip: np.ndarray) -> Timed:
        """The answer to one clip."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((clip, future, time.monotonic()))
        return await future

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Any other work for the same thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _serve(self) -> None:
        while True:
            batch = await self._gather()
            started = time.monotonic()
            try:
                answers = await self.run(self._answer, [clip for clip, _, _ in batch])
            except Exception as error:
                for _, future, _ in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            computed = time.monotonic() - started
            self._on_batch(len(batch))
            for (_, future, arrived), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(Timed(answer, started - arrived, computed))

    async def _gather(self) -> list[tuple[np.ndarray, asyncio.Future, float]]:
        batch = [await self._waiting.get()]
        deadline = asyncio.get_running_loop().time() + self._max_wait
        while len(batch) < self._max_batch:
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break
        return batch
