"""Several processes, one run: how they come together, what they agree on, and how they leave.

A run of one process needs none of it, and every function here is then as good as absent: `agree` returns what it is
given, `wait` returns at once. What a process must know of the others is told through the key-value store of jax's
coordination service, never through the devices, so nothing here waits for a training step.
"""

import dataclasses
import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils

from hallujax.errors import HallujaxError, ProcessLost, UsageError
from hallujax.training.gathering import gather
from hallujax.training.peers import Peers

_FOR_EVER = 7 * 24 * 3600 * 1000  # milliseconds; who never comes is lost, and that `Peers` notices
_MARGIN = 30  # seconds that jax's own time-outs come after ours: its C++ aborts without saying which process it was


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a process belongs.

    Attributes:
      coordinator: HOST:PORT of process 0; empty to let jax find it out from SLURM, Open MPI, Cloud TPU or Kubernetes.
      processes, process: how many there are, and which this is, from 0; None as above.
      start_timeout: seconds in which all must have come.
      heartbeat_timeout: seconds without a sign of life after which a process is lost, and all leave.
      stall_timeout: seconds without progress after which all leave; 0 for never. Compilation is no progress.
    """

    coordinator: str = ""
    processes: int | None = None
    process: int | None = None
    start_timeout: float = 300.0
    heartbeat_timeout: float = 100.0
    stall_timeout: float = 1800.0


class _Company:
    """What is known once several processes have come together."""

    def __init__(self, client: Any, peers: Peers):
        self.client, self.peers = client, peers
        self.agreements, self.barriers, self.stops = itertools.count(), itertools.count(), itertools.count(1)


_company: _Company | None = None


def join(place: Place) -> None:
    """Brings this process together with the others; before anything touches a device.

    From then on the screen is process 0's: what the others print is lost, their errors name their number.

    Raises:
      UsageError: if nothing says where the others are, or as `gathering.gather`.
      ProcessLost: as `gathering.gather`.
    """
    global _company
    given = {
        "initialization_timeout": int(place.start_timeout) + _MARGIN,
        "heartbeat_timeout_seconds": int(1.5 * place.heartbeat_timeout) + _MARGIN,
    }
    if place.coordinator:
        gather(place.coordinator, place.processes, place.process, place.start_timeout)
        jax.distributed.initialize(
            place.coordinator, place.processes, place.process, cluster_detection_method="deactivate", **given
        )
    else:
        late = threading.Timer(place.start_timeout, _say_that_some_are_missing, [place.start_timeout])
        late.daemon = True
        late.start()
        try:
            jax.distributed.initialize(**given)
        except (ValueError, TypeError) as error:
            raise UsageError(
                "--distributed finds no cluster to join (SLURM, Open MPI, Cloud TPU, or Kubernetes with jax[k8s]); say "
                "--coordinator HOST:PORT --processes N --process I"
            ) from error
        finally:
            late.cancel()
    # jax has no public way to the client of its own coordination service; orbax takes the same one.
    from jax._src.distributed import global_state

    if jax.process_count() == 1:
        return
    if not is_first():
        sys.stdout = open(os.devnull, "w")
    client = global_state.client
    peers = Peers(
        client,
        jax.process_index(),
        jax.process_count(),
        heartbeat_timeout=place.heartbeat_timeout,
        stall_timeout=place.stall_timeout,
    )
    _company = _Company(client, peers)


def _say_that_some_are_missing(timeout: float) -> None:
    print(
        f"hallujax: not all processes came within {timeout:g} s; their own logs may say why",
        file=sys.stderr,
        flush=True,
    )
    os._exit(ProcessLost.exit_code)


def several() -> bool:
    """Whether this process is one of several."""
    return _company is not None


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def agree(find: Callable[[], Any]) -> Any:
    """What `find` returns in process 0, in every process; plain JSON. The others do not call it.

    All that decides what is done next and is read from files goes through here: file systems over a network show
    different processes different things at the same time.
    """
    if _company is None:
        return find()
    key = f"hallujax/agreed/{next(_company.agreements)}"
    if is_first():
        _company.client.key_value_set(key, json.dumps(find()))
    return json.loads(_company.client.blocking_key_value_get(key, _FOR_EVER))


def same(facts: dict[str, Any]) -> None:
    """Checks that `facts`, names and plain JSON, are the same in every process.

    Raises:
      UsageError: in a process in which one is another than in process 0, naming it.
    """
    mine = json.loads(json.dumps(facts))
    first = agree(lambda: mine)
    for name in sorted(first.keys() | mine.keys()):
        if first.get(name) != mine.get(name):
            raise UsageError(f"{name} is {mine.get(name)!r} here and {first.get(name)!r} in process 0")


def wait(what: str) -> None:
    """Returns when every process has come here."""
    if _company is not None:
        _company.client.wait_at_barrier(f"hallujax/{next(_company.barriers)}/{what}", _FOR_EVER)


def progress(doing: str) -> None:
    """Notes that this process has come one piece of work further; every process must come through the same ones."""
    if _company is not None:
        _company.peers.progress(doing)


def stop_together() -> bool:
    """Whether all processes are to stop here, because SIGTERM reached one of them; all must ask equally often.

    jax's preemption service agrees on the next asking that none has come to yet: a comparison of two integers, without
    a word between hosts or to the devices until there is a signal.
    """
    return multihost_utils.reached_preemption_sync_point(next(_company.stops))


def fail(error: BaseException) -> None:
    """Of several processes: says what went wrong, makes the others leave too, and ends this one. Else returns.

    To be called before anything is closed: closing waits for processes that may be gone.
    """
    if _company is None:
        return
    peers = _company.peers
    if isinstance(error, HallujaxError):
        peers.leave(str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        peers.leave("stopped from the keyboard", 130)
    first_line = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, jax.errors.JaxRuntimeError) and (lost := peers.lost()):
        peers.leave(f"{lost} ({first_line}); start all processes again, they continue", ProcessLost.exit_code)
    traceback.print_exception(error)
    peers.leave(f"{type(error).__name__}: {first_line}", 1)


def leave() -> None:
    """The orderly end: returns when all have come to it, and disconnects."""
    global _company
    if _company is None:
        return
    wait("the end")
    _company.peers.stop()
    _company = None
    jax.distributed.shutdown()
