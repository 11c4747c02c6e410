"""Ctrl-C and SIGTERM: finish the step, save, leave."""

import signal

from hallujax.errors import HallujaxError


class Stopped(HallujaxError):
    """A signal asked the run to end; everything is saved. The exit code is the shell's for that signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """While entered, SIGINT and SIGTERM set `signal` instead of ending the process; a second one ends it at once."""

    def __init__(self):
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        del frame
        self.signal = number
        for other, handler in self._previous.items():
            signal.signal(other, handler)
