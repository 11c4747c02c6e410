"""Commands that are run, or only printed: what every launcher is made of."""

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

# After these the same command goes on: another process was lost (42, or 134 if jax noticed it first), bus error, killed
# (memory, or the machine), segmentation fault; and 143, stopped by SIGTERM with everything saved. Others are failures.
RESTARTED = (42, 134, 135, 137, 139, 143)


class Failed(Exception):
    """What ends a launch, in one line; `code` becomes its exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP: raised in the main thread, wherever it is."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class Commands:
    """Runs commands one after the other, or, on a dry run, prints them as a shell takes them."""

    def __init__(self, dry_run: bool, poll: float):
        self.dry_run = dry_run
        self.poll = poll  # seconds between two looks at something, and between two attempts
        self.made = False

    def run(self, *words: str, stdin: str | None = None, attempts: int = 1, check: bool = True) -> int:
        """Runs a command to its end and returns its exit code.

        Args:
          words: the command.
          stdin: what it reads, if anything.
          attempts: how often it is tried, for what may fail on the way (a machine that has only just booted).
          check: whether a failure ends the launch.

        Raises:
          Failed: if it fails, for the last time, and `check`.
        """
        self._say(words, stdin)
        if self.dry_run:
            return 0
        for attempt in range(1, attempts + 1):
            code = _finished(words, stdin)
            if code == 0:
                return 0
            if attempt < attempts:
                say(f"exit code {code}; trying again in {self.poll:g} s")
                self.wait()
        if check:
            raise Failed(f"{shlex.join(words)}: exit code {code}", code)
        return code

    def make(self, *words: str, stdin: str | None = None) -> None:
        """Runs, once, the command that makes what is to be cleaned up: `made` says whether it has, or may have.

        Raises:
          Failed: if it fails; then what is there, of the same name perhaps, is another's.
        """
        self.made = True  # also if a signal ends it half way
        try:
            self.run(*words, stdin=stdin)
        except Failed:
            self.made = False
            raise

    def read(self, *words: str, dry: str) -> str | None:
        """The output of a command that only looks, or None if it fails; `dry` on a dry run."""
        if self.dry_run:
            self._say(words)
            return dry
        found = subprocess.run(words, capture_output=True, text=True)
        if found.returncode:
            say(f"{shlex.join(words)}: {found.stderr.strip() or f'exit code {found.returncode}'}")
            return None
        return found.stdout.strip()

    def pipe(self, first: Sequence[str], second: Sequence[str]) -> None:
        """Runs `first | second`; either's failure ends the launch."""
        line = f"{shlex.join(first)} | {shlex.join(second)}"
        print(line if self.dry_run else f"+ {line}", file=sys.stdout if self.dry_run else sys.stderr, flush=True)
        if self.dry_run:
            return
        with subprocess.Popen(first, stdout=subprocess.PIPE) as source:
            code = subprocess.run(second, stdin=source.stdout).returncode
            source.stdout.close()
        if code or source.returncode:
            raise Failed(f"{line}: exit code {code or source.returncode}", code or source.returncode)

    def wait(self) -> None:
        """Lets `poll` seconds pass."""
        if not self.dry_run:
            time.sleep(self.poll)

    def _say(self, words: Sequence[str], stdin: str | None = None) -> None:
        line = shlex.join(words)
        if self.dry_run:
            print(f"{line} <<'END'\n{stdin}\nEND" if stdin else line, flush=True)
        else:
            say(f"+ {line}")


def say(line: str) -> None:
    """To the person who launches; standard output is for what the job prints."""
    print(line, file=sys.stderr, flush=True)


def carried_out(work: Callable[[], int], clean_up: Callable[[], object]) -> int:
    """Does `work`, and `clean_up` whatever ends it; returns the exit code.

    While cleaning up, signals are ignored here and, as they inherit that, in the commands: a second Ctrl-C cannot leave
    machines behind that cost money.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, _stop)
    try:
        return work()
    except Stopped as stopped:
        say(f"{stopped}: stopping, and cleaning up")
        return 128 + stopped.number
    except Failed as failure:
        say(f"launch: {failure}")
        return failure.code
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        clean_up()


def _stop(number: int, frame) -> None:
    raise Stopped(number)


def _finished(words: Sequence[str], stdin: str | None) -> int:
    with subprocess.Popen(words, stdin=subprocess.PIPE if stdin else None, text=True) as process:
        try:
            process.communicate(stdin)
        except BaseException:
            process.terminate()
            raise
    return process.returncode if process.returncode >= 0 else 128 - process.returncode
