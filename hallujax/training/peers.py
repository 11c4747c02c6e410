"""What the processes of a run know of each other: that they live, how far they are, and why one has left.

Each says so to the key-value store of jax's coordination service, which lives in process 0, every few seconds from a
thread of its own. jax's own heartbeat comes from C++: it goes on while Python hangs, and where it does notice a loss it
aborts without naming what happened. This one is looked at a little sooner, so that jax's is the last resort.
"""

import json
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

import jax
from rich.console import Console as RichConsole

from hallujax.errors import ProcessLost

LONGEST_BEAT = 2.0  # seconds between two signs of life
_BEATS, _FAILURE = "hallujax/alive/", "hallujax/failed/"


class Peers:
    """Speaks for this process and listens to the others, from two threads, until `stop`.

    Two, because a question to a process 0 that is stopped has no answer: one thread asks, the other looks at the clock.
    What is wrong ends the process from there, with `os._exit`: the main thread may wait for the lost one for ever.

    Args:
      client: of jax's coordination service.
      process, processes: the number of this one, and how many there are.
      heartbeat_timeout: seconds without a sign of life after which a process counts as lost.
      stall_timeout: seconds in which this process may do the same thing; 0 for ever.
    """

    def __init__(self, client: Any, process: int, processes: int, *, heartbeat_timeout: float, stall_timeout: float):
        self._client, self._process, self._processes = client, process, processes
        self._heartbeat_timeout, self._stall_timeout = heartbeat_timeout, stall_timeout
        self._interval = min(LONGEST_BEAT, heartbeat_timeout / 10)
        self._stopped, self._leaving = threading.Event(), threading.Lock()
        self._beat, self._done, self._doing = 0, 0, "starting"
        now = time.monotonic()
        self._moved = self._answered = now
        self._heard = dict.fromkeys(range(processes), (0, now))  # {process: (its last beat, when that was new)}
        self._failure: dict[str, Any] | None = None
        for work in (self._talk, self._look):
            threading.Thread(target=work, name=f"peers{work.__name__}", daemon=True).start()

    def progress(self, doing: str) -> None:
        """Notes that this process has come one piece of work further; every process counts the same pieces."""
        self._done, self._doing, self._moved = self._done + 1, doing, time.monotonic()

    def stop(self) -> None:
        """From now on the others may end when they like."""
        self._stopped.set()

    def lost(self) -> str | None:
        """Who has given no sign of life for a few beats, in words; None if all did. Takes these few beats."""
        try:
            before = self._beats()
            time.sleep(4 * self._interval)
            after = self._beats()
        except jax.errors.JaxRuntimeError:
            return "process 0, the coordinator, is gone"
        silent = [p for p in range(self._processes) if p != self._process and after.get(p) == before.get(p)]
        return f"{self._named(silent, after)} gone" if silent else None

    def leave(self, text: str, code: int, *, tell: bool = True) -> NoReturn:
        """Says why on the screen, and to the others unless they know, and ends this process at once."""
        if not self._leaving.acquire(blocking=False):
            threading.Event().wait()  # another thread is leaving
        RichConsole().show_cursor()  # of a progress bar that nobody will close
        print(f"hallujax: process {self._process}: {text}", file=sys.stderr, flush=True)
        if tell:
            teller = threading.Thread(target=self._tell, args=(text, code), daemon=True)
            teller.start()
            teller.join(2 * LONGEST_BEAT)
        if self._process == 0:
            time.sleep(3 * self._interval)  # the others hear it through this process, and have no more if it is gone
        os._exit(code)

    def _tell(self, text: str, code: int) -> None:
        failure = {"process": self._process, "host": socket.gethostname(), "text": text, "code": code}
        try:
            self._client.key_value_set(f"{_FAILURE}first", json.dumps(failure))
        except jax.errors.JaxRuntimeError:
            pass  # another process was quicker, or process 0 is gone

    def _talk(self) -> None:
        while not self._stopped.is_set():
            self._beat += 1
            sign = {"beat": self._beat, "done": self._done, "doing": self._doing, "host": socket.gethostname()}
            try:
                self._client.key_value_set(f"{_BEATS}{self._process}", json.dumps(sign), allow_overwrite=True)
                for _, failure in self._client.key_value_dir_get(_FAILURE):
                    self._failure = json.loads(failure)
                if self._process == 0:  # alone, or n processes would read n^2 signs
                    for process, there in self._beats().items():
                        if there["beat"] != self._heard[process][0]:
                            self._heard[process] = there["beat"], time.monotonic()
                self._answered = time.monotonic()
            except jax.errors.JaxRuntimeError:
                pass  # how long that may last is for the other thread to say
            self._stopped.wait(self._interval)

    def _look(self) -> None:
        woke = time.monotonic()
        while not self._stopped.wait(self._interval):
            now = time.monotonic()
            if (pause := now - woke - self._interval) > self._interval:  # it was this process that stood still
                self._answered += pause
                self._heard = {process: (beat, since + pause) for process, (beat, since) in self._heard.items()}
            woke = now
            if self._failure is not None and self._failure["process"] != self._process:
                where = f"process {self._failure['process']} on {self._failure['host']}"
                self.leave(f"{where} has left: {self._failure['text']}", self._failure["code"], tell=False)
            if now - self._answered > self._heartbeat_timeout:
                self._lose(f"process 0, the coordinator, has not answered for {now - self._answered:.0f} s")
            silent = [p for p, (_, since) in self._heard.items() if now - since > self._heartbeat_timeout]
            if self._process == 0 and silent:
                self._lose(
                    f"no sign of life for {self._heartbeat_timeout:g} s: {self._named(silent, self._beats())} gone"
                )
            if self._stall_timeout and now - self._moved > self._stall_timeout:
                self._lose(f"nothing has gone on for {self._stall_timeout:g} s: {self._behind()}")

    def _lose(self, text: str) -> NoReturn:
        self.leave(f"{text}; start all processes again, they continue", ProcessLost.exit_code)

    def _beats(self) -> dict[int, dict[str, Any]]:
        found = self._client.key_value_dir_get(_BEATS)
        return {int(key.rpartition("/")[2]): json.loads(value) for key, value in found}

    def _named(self, processes: list[int], signs: dict[int, dict[str, Any]]) -> str:
        hosts = [f"process {p} on {signs[p]['host'] if p in signs else 'a host unknown'}" for p in processes[:8]]
        more = f" and {len(processes) - 8} more" if processes[8:] else ""
        return f"{', '.join(hosts)}{more} {'are' if processes[1:] else 'is'}"

    def _behind(self) -> str:
        try:
            signs = self._beats()
        except jax.errors.JaxRuntimeError:
            return "process 0, the coordinator, does not answer"
        done = {process: sign["done"] for process, sign in signs.items()}
        last = [process for process, count in done.items() if count == min(done.values())]
        if len(last) == len(done):
            return f"all processes are at {self._doing!r}: the devices, or the network between them"
        doing = signs[last[0]]["doing"]
        return f"{self._named(last, signs)} behind, after {doing!r}, when others are at {self._doing!r}"
