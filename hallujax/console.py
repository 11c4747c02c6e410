"""Progress for people: a bar with the time left on a terminal, plain lines anywhere else."""

import time

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


class Console:
    """Counts the work of a whole command, in clip-passes or any other unit, and says how long the rest takes.

    The time left is extrapolated from the work done since the start of this process, so that what an earlier start
    had finished does not make it look faster.
    """

    def __init__(self, total: float = 0.0, *, done: float = 0.0):
        self._rich = RichConsole(highlight=False)
        self._total, self._done, self._done_at_start = total, done, done
        self._started = self._spoke = time.monotonic()
        self._text = ""
        self._bar: Progress | None = None
        if total and self._rich.is_terminal:
            self._bar = Progress(
                TextColumn("{task.percentage:>3.0f} %"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                TextColumn("{task.description}"),
                console=self._rich,
            )
            self._task = self._bar.add_task("", total=total, completed=done)
            self._bar.start()

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line that stays on the screen."""
        self._rich.print(text, markup=False, soft_wrap=True)

    def skip(self, work: float) -> None:
        """Counts work that an earlier start did, or that need not be done: it says nothing about speed."""
        self._done += work
        self._done_at_start += work
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def advance(self, work: float, text: str) -> None:
        """Counts `work` and shows `text`, what is going on."""
        self._done += work
        if self._bar is not None:
            self._bar.update(self._task, advance=work, description=text)
            return
        now = time.monotonic()
        if now - self._spoke >= SECONDS_BETWEEN_LINES or self._done >= self._total:
            self._spoke = now
            share = self._done / self._total if self._total else 1.0
            self.say(f"{share:4.0%}  {now - self._started:4.0f} s  left {self._time_left(now)}  {text}")

    def _time_left(self, now: float) -> str:
        worked = self._done - self._done_at_start
        if worked <= 0:
            return "?"
        return f"{(now - self._started) * max(self._total - self._done, 0.0) / worked:.0f} s"
