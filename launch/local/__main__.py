"""One machine: one process on its accelerators (the usual), or several that meet on localhost.

    python -m launch.local --gpus 0 -- train --config=... --workdir=...  # one GPU
    python -m launch.local -- train --config=... --workdir=...           # all of them, one process
    python -m launch.local --processes 2 --gpus 0,1 -- train ...         # a process a GPU
    python -m launch.local --processes 2 --cpu-devices 2 -- train ...    # on the CPU, simulated devices

After a crash or a SIGTERM the same command is started again and continues; after any other failure it is not.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from launch.commands import RESTARTED, carried_out, say
from launch.options import Parser, main


def command(
    options: argparse.Namespace, job: Sequence[str], port: int, process: int
) -> tuple[dict[str, str], list[str]]:
    """The environment that process number `process` gets on top, and its command."""
    words = [sys.executable, "-m", "hallujax.cli", *job]
    if options.processes > 1:
        meeting = f"127.0.0.1:{port}"
        words += ["--coordinator", meeting, "--processes", str(options.processes), "--process", str(process)]
    extra = {}
    if options.cpu_devices:
        flag = f"--xla_force_host_platform_device_count={options.cpu_devices}"
        extra = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    elif options.gpus:
        share = options.gpus[process :: options.processes]
        extra = {"CUDA_VISIBLE_DEVICES": ",".join(share)}
    return extra, words


class Gang:
    """The processes of one start, which live and die together."""

    def __init__(self, commands: Sequence[tuple[dict[str, str], list[str]]], grace: float):
        self._grace = grace
        self._readers = []
        # A session of their own: Ctrl-C reaches them through `stop` alone, once, so that it is no second signal.
        several = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if len(commands) > 1 else {}
        self._processes = [
            subprocess.Popen(words, env=os.environ | extra, start_new_session=True, **several)
            for extra, words in commands
        ]
        for number, process in enumerate(self._processes if several else []):
            self._readers.append(threading.Thread(target=_relay, args=(number, process), daemon=True))
            self._readers[-1].start()

    def finished(self) -> int:
        """Waits for all; after a failure the others have `grace` seconds to say what they miss, and are killed then.

        Returns:
          0, or the exit code of the process that failed first.
        """
        first, deadline = 0, float("inf")
        while any(process.poll() is None for process in self._processes):
            if not first and (first := self._failure()):
                deadline = time.monotonic() + self._grace
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.1)
        for reader in self._readers:
            reader.join()
        return first or self._failure()

    def stop(self) -> None:
        """Asks all to save and leave, once, as a second SIGTERM ends a process at once; kills what stays too long."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while any(process.poll() is None for process in self._processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.kill()

    def kill(self) -> None:
        """Ends what is left."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _failure(self) -> int:
        codes = [process.poll() or 0 for process in self._processes]
        return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _relay(number: int, process: subprocess.Popen) -> None:
    for line in process.stdout:
        sys.stdout.buffer.write(b"[%d] %s" % (number, line))
        sys.stdout.flush()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch() -> int:
    """Reads the command line and runs it; returns the job's exit code."""
    parser = Parser("local", "Trains on this machine, in one process or several, and starts again after a crash.")
    parser.add_argument("--processes", type=int, default=1, help="that share the work (%(default)s)")
    devices = parser.add_mutually_exclusive_group()
    devices.add_argument("--gpus", type=lambda text: text.split(","), help="0,1,...: dealt out to the processes (all)")
    devices.add_argument("--cpu-devices", type=int, help="simulated devices a process, on the CPU")
    parser.add_argument("--port", type=int, help="where the processes meet (a free one)")
    parser.add_argument("--grace", type=float, default=150, help="seconds to save and leave in (%(default)s)")
    parser.add_argument("--max-restarts", type=int, default=5, help="after crashes and SIGTERM (%(default)s)")
    options, job = parser.read()
    if options.processes < 1 or (options.gpus and len(options.gpus) % options.processes):
        parser.error("--gpus must be dealt out evenly to one process or more")

    def commands() -> list[tuple[dict[str, str], list[str]]]:
        port = options.port or _free_port()
        return [command(options, job, port, process) for process in range(options.processes)]

    if options.dry_run:
        for extra, words in commands():
            print(shlex.join([*(["env"] if extra else []), *(f"{k}={v}" for k, v in extra.items()), *words]))
        return 0
    gang = None

    def work() -> int:
        nonlocal gang
        for restarts in range(options.max_restarts + 1):
            gang = Gang(commands(), options.grace)
            code = gang.finished()
            if code not in RESTARTED:
                return code
            say(f"launch: exit code {code}; restart {restarts + 1} of {options.max_restarts}")
        return code

    return carried_out(work, lambda: gang and gang.stop())


if __name__ == "__main__":
    main(launch)
