"""`--distributed`, `--coordinator`, `--processes`, `--process`: a command that runs in several processes."""

import argparse
import os
from collections.abc import Callable, Sequence

from hallujax.errors import UsageError

Run = Callable[[argparse.Namespace, Sequence[str]], int | None]
# The names that jax reads itself, and those that its examples and launchers give to what it does not.
ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def add_flags(sub: argparse.ArgumentParser) -> None:
    """The flags that say where a process belongs."""
    group = sub.add_argument_group("several processes", "one a host or one a GPU, all with the same command")
    group.add_argument(
        "--distributed", action="store_true", help="join the others that SLURM, Open MPI, Cloud TPU or Kubernetes know"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help=f"where process 0 is found ({ADDRESS})")
    group.add_argument("--processes", type=int, metavar="N", help=f"how many there are ({COUNT})")
    group.add_argument("--process", type=int, metavar="I", help=f"which one this is, from 0 ({NUMBER})")
    for flag, default, summary in (
        ("--start-timeout", 300.0, "within which all must have come"),
        ("--heartbeat-timeout", 100.0, "without a sign of life after which one is lost and all leave"),
        ("--stall-timeout", 1800.0, "without progress, compilation included, after which all leave; 0 for never"),
    ):
        group.add_argument(flag, type=float, default=default, metavar="SECONDS", help=f"{summary} (%(default)g)")


def in_processes(run: Run) -> Run:
    """The command `run`, in the company of other processes if flags or the environment say so."""

    def joined(options: argparse.Namespace, rest: Sequence[str]) -> int | None:
        place = _place(options)
        if place is None:
            return run(options, rest)
        from hallujax.training import processes
        from hallujax.training.stop import Stopped

        processes.join(place)
        try:
            code = run(options, rest)
        except Stopped as stopped:
            silent = not processes.is_first()
            processes.leave()
            if silent:
                return stopped.exit_code
            raise
        except BaseException as error:
            processes.fail(error)
            raise
        processes.leave()
        return code

    return joined


def _place(options: argparse.Namespace):
    """Where this process belongs; None if it is alone."""
    given = {
        "--coordinator": options.coordinator or os.environ.get(ADDRESS),
        "--processes": options.processes if options.processes is not None else _number(COUNT),
        "--process": options.process if options.process is not None else _number(NUMBER),
    }
    timeouts = {name: getattr(options, name) for name in ("start_timeout", "heartbeat_timeout", "stall_timeout")}
    for name, seconds in timeouts.items():
        if seconds < 0 or (seconds < 1 and name != "stall_timeout"):
            raise UsageError(f"--{name.replace('_', '-')} is {seconds:g} s; it must be at least 1")
    missing = [flag for flag, value in given.items() if value is None]
    if options.distributed and missing:
        wanted = (options.coordinator, options.processes, options.process)
        if wanted != (None, None, None):
            raise UsageError(f"--distributed finds everything out itself; without it, {missing[0]} is missing too")
    elif len(missing) == 3:
        return None
    elif missing:
        variables = dict(zip(given, (ADDRESS, COUNT, NUMBER), strict=True))
        raise UsageError(
            f"one of several processes needs --coordinator, --processes and --process; {missing[0]} (or "
            f"{variables[missing[0]]}) is missing"
        )
    from hallujax.training.processes import Place

    if missing:
        return Place(**timeouts)
    address, count, number = given.values()
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator is {address!r}; it must be HOST:PORT")
    if count < 1:
        raise UsageError(f"--processes is {count}; at least one is needed")
    if not 0 <= number < count:
        raise UsageError(f"--process is {number}; of {count} processes the numbers are 0 to {count - 1}")
    return Place(coordinator=address, processes=count, process=number, **timeouts)


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"{variable} is {text!r}; it must be a number") from error
