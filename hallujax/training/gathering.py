"""Before jax: the processes of a run meet where their coordinator will listen, so that what is wrong is one line.

Left to itself, `jax.distributed` aborts in C++ with a stack of frames, and the same one, whether nobody listens at the
coordinator's address, a process is missing, or two have the same number.
"""

import contextlib
import json
import platform
import socket
import time
from importlib import metadata
from typing import Any

from hallujax.errors import ProcessLost, UsageError

_LONGEST_HELLO = 4096  # bytes; what is longer comes from somebody else
_PATIENCE = 5.0  # seconds for a line of a connection that stands
_PAUSE = 0.2  # seconds between two attempts to connect


def gather(coordinator: str, processes: int, process: int, timeout: float) -> None:
    """Returns, in every process, when all of them have come.

    Args:
      coordinator: HOST:PORT, where process 0 is found.
      processes: how many there are.
      process: the number of this one, from 0.
      timeout: seconds, of waiting for the others.

    Raises:
      UsageError: in every process, if two have the same number, or they differ in how many they are, or in the version
        of Python, jax or hallujax; also if process 0 may not listen at that port.
      ProcessLost: if the coordinator cannot be reached, or some never come; those are named.
    """
    host, _, port = coordinator.rpartition(":")
    hello = {
        "processes": processes,
        "process": process,
        "host": socket.gethostname(),
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in ("jax", "hallujax")}},
    }
    deadline = time.monotonic() + timeout
    if process == 0:
        _receive(int(port), hello, deadline, timeout)
    else:
        _report(host.strip("[]"), int(port), hello, deadline, timeout)


def _receive(port: int, own: dict[str, Any], deadline: float, timeout: float) -> None:
    """Process 0's part: takes down who comes, until all have or something is wrong, and tells them."""
    try:
        dual = socket.has_dualstack_ipv6()
        server = socket.create_server(
            ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, backlog=128, dualstack_ipv6=dual
        )
    except OSError as error:
        raise UsageError(
            f"process 0 cannot listen at port {port} ({error.strerror}); is another one, or another run's, there?"
        ) from error
    came: dict[int, tuple[socket.socket, dict[str, Any]]] = {}
    wrong = None
    with server:
        while wrong is None:
            for number in [n for n, (connection, _) in came.items() if _is_gone(connection)]:
                came.pop(number)[0].close()  # killed since; it may be started again before all have come
            if len(came) == own["processes"] - 1:
                break
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            hello = _read_line(connection)
            if not _is_hello(hello):  # somebody who looks which ports are open
                connection.close()
                continue
            number = hello["process"]
            if number in came and _is_gone(came[number][0]):
                came.pop(number)[0].close()
            other = own if number == 0 else came[number][1] if number in came else None
            wrong = _difference(own, hello, other)
            came[number if other is None else -1] = connection, hello
        missing = sorted(set(range(1, own["processes"])) - came.keys())
        error = wrong
        if wrong is None and missing:
            error = (
                f"{_several(missing)} of {own['processes']} did not come within {timeout:g} s: not started, or "
                "without a way to the coordinator"
            )
        for connection, _ in came.values():
            with contextlib.suppress(OSError), connection:
                connection.sendall(
                    json.dumps({"error": error, "missing": bool(missing and not wrong)}).encode() + b"\n"
                )
                connection.settimeout(_PATIENCE)
                connection.recv(1)  # until it has closed: the port is then free for jax at once
    if error is not None:
        raise (UsageError if wrong else ProcessLost)(error)


def _report(host: str, port: int, hello: dict[str, Any], deadline: float, timeout: float) -> None:
    """The others' part: says hello to process 0 until it answers."""
    reason = "no answer"
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProcessLost(
                f"the coordinator at {host}:{port} cannot be reached within {timeout:g} s ({reason}); is process 0 "
                "started, is this its host's address, and may this port be used?"
            )
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(json.dumps(hello).encode() + b"\n")
                # Whether all have come process 0 decides, so it is waited for a little longer than it waits itself.
                answer = _read_line(connection, left + _PATIENCE)
        except OSError as error:
            reason, answer = error.strerror or str(error), None
        if isinstance(answer, dict) and "error" in answer:
            if answer["error"] is None:
                return
            raise (ProcessLost if answer["missing"] else UsageError)(answer["error"])
        if answer is not None:
            reason = "what listens there is not process 0 of a run that starts"
        time.sleep(_PAUSE)


def _read_line(connection: socket.socket, patience: float = _PATIENCE) -> Any:
    """A line of JSON; None if none comes, and the empty string if it is something else."""
    connection.settimeout(patience)
    received = b""
    try:
        while not received.endswith(b"\n") and len(received) < _LONGEST_HELLO:
            more = connection.recv(_LONGEST_HELLO)
            if not more:
                break
            received += more
        return json.loads(received) if received else None
    except ValueError:
        return ""
    except OSError:
        return None


def _is_hello(hello: Any) -> bool:
    return isinstance(hello, dict) and hello.keys() == {"processes", "process", "host", "versions"}


def _is_gone(connection: socket.socket) -> bool:
    connection.settimeout(0.0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _difference(own: dict[str, Any], hello: dict[str, Any], other: dict[str, Any] | None) -> str | None:
    """What is wrong with one that came; `other` has the same number."""
    who = f"process {hello['process']} on {hello['host']}"
    if hello["processes"] != own["processes"]:
        return f"{who} says there are {hello['processes']} processes, process 0 says {own['processes']}"
    if other is not None:
        return f"two processes say that they are number {hello['process']}, on {other['host']} and {hello['host']}"
    for package, version in own["versions"].items():
        if hello["versions"].get(package) != version:
            return f"{who} has {package} {hello['versions'].get(package)}, process 0 has {version}"
    return None


def _several(numbers: list[int]) -> str:
    return f"process{'es' if numbers[1:] else ''} {', '.join(map(str, numbers[:20]))}{', ...' if numbers[20:] else ''}"
