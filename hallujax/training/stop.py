"""Ctrl-C and SIGTERM: finish the step, save, leave."""

import os
import signal

from hallujax.errors import HallujaxError
from hallujax.training import processes


class Stopped(HallujaxError):
    """A signal asked the run to end; everything is saved. The exit code is the shell's for that signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """While entered, SIGINT and SIGTERM ask for a stop instead of ending the process; a second one ends it at once.

    In several processes SIGTERM is jax's, whose preemption service tells the others, from the moment they have met;
    SIGINT is passed on to it.
    """

    def __init__(self):
        self._signal: int | None = None
        self._together = processes.several()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def reached(self) -> int | None:
        """The signal, if it is time to stop: several processes, which must ask equally often, stop at the same time."""
        if self._together and processes.stop_together():
            return self._signal or signal.SIGTERM
        return None if self._together else self._signal

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        del frame
        self._signal = number
        for other, handler in self._previous.items():
            signal.signal(other, handler)
        if self._together:
            os.kill(os.getpid(), signal.SIGTERM)
