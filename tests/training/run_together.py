"""The command line in several real processes of simulated devices, on this machine; for the tests beside it."""

import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """import small_config


def get_config(folder):
    config = small_config.get_config(folder)
    config.training.model.stage_sizes = (1,)
    for name in list(config.stages):
        if name not in ("depth", "control"):
            del config.stages[name]
    for name, row in list(config.systems.items()):
        if not {"depth", "control"}.issuperset(row.stages):
            del config.systems[name]
    return config
"""
# What goes wrong in process 1, once `wrong` exists in the folder of the configuration.
WRONG = """
import os
import pathlib
import time

from hallujax.data import pipeline
from hallujax.errors import DataError

if os.environ.get("GOES_WRONG"):
    read = pipeline.ClipLoader.__call__

    def wrong(self, samples, rows):
        if (pathlib.Path(__file__).parent / "wrong").exists():
            if os.environ["GOES_WRONG"] == "hangs":
                time.sleep(10_000)
            raise DataError("clip a017 cannot be read")
        return read(self, samples, rows)

    pipeline.ClipLoader.__call__ = wrong
"""


@dataclasses.dataclass
class Run:
    """Processes of one command; `lines(i)` is what process i said on stderr."""

    processes: list[subprocess.Popen]
    logs: list[pathlib.Path]

    def wait(self, seconds: float = 400.0) -> list[int]:
        """The exit codes."""
        end = time.monotonic() + seconds
        return [process.wait(max(end - time.monotonic(), 0.1)) for process in self.processes]

    def lines(self, i: int) -> list[str]:
        return self.logs[i].with_suffix(".err").read_text().strip().splitlines()

    def until(self, condition, seconds: float = 300.0) -> None:
        """Waits for a moment in the middle of the run."""
        end = time.monotonic() + seconds
        while not condition():
            assert all(process.poll() is None for process in self.processes), [self.lines(i) for i in range(2)]
            assert time.monotonic() < end, "the moment never came"
            time.sleep(0.02)


@contextlib.contextmanager
def start(config, cache, *arguments, processes=2, devices=2, join=True, flags=(), own=(), wrong=""):
    """Starts `hallujax ARGUMENTS` in so many processes, each with so many devices; kills what is left at the end.

    Args:
      config: file of CONFIG or the like; its folder takes the logs.
      cache: of compiled programs.
      join: whether they are told of each other.
      flags: of the command.
      own: further flags of process 1.
      wrong: what process 1 does when it reads a clip, see WRONG.
    """
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "JAX_COMPILATION_CACHE_DIR": str(cache)}
    environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    run = Run([], [])
    try:
        for i in range(processes):
            place = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(processes), "--process", str(i)]
            log = config.parent / f"{port}.{i}.out"
            with log.open("w") as out, log.with_suffix(".err").open("w") as err:
                run.processes.append(
                    subprocess.Popen(
                        [
                            sys.executable,
                            "-m",
                            "hallujax.cli",
                            *arguments,
                            *(place if join else ()),
                            *flags,
                            *(own if i == 1 else ()),
                        ],
                        cwd=ROOT,
                        env=environment | ({"GOES_WRONG": wrong} if i == 1 else {}),
                        stdout=out,
                        stderr=err,
                    )
                )
            run.logs.append(log)
        yield run
    finally:
        for process in run.processes:
            process.kill()
            process.wait()
