"""`hallujax serve`: load, warm up, listen, and stop when told."""

import pathlib
import socket
from collections.abc import Collection

import uvicorn

from hallujax.console import Console
from hallujax.errors import UsageError
from hallujax.serve.app import Capacity, Server, create_app
from hallujax.serve.benchmark import Benchmark
from hallujax.serve.failing import FailingDepth
from hallujax.serve.limits import Limits
from hallujax.serve.model import Model

SECONDS_TO_STOP = 20  # for requests under way, after SIGTERM
CONNECTIONS = 512


def serve(
    path: pathlib.Path,
    *,
    system: str | None,
    data: pathlib.Path | None,
    host: str,
    port: int,
    allowed: Collection[str],
    limits: Limits,
    capacity: Capacity,
) -> None:
    """Serves a run or an export until a signal; requests under way are then answered first.

    Args:
      path, system: as for `hallujax.load`.
      data: folder of the prepared datasets, to show the run's test clips with their depth.
      host, port: to listen at; port 0 is any that is free.
      allowed: further host names to answer to.

    Raises:
      UsageError, DataError, CheckpointError: if there is nothing to serve, or the address cannot be had.
    """
    console = Console()
    with _listening(host, port) as listener:  # first: an address that is taken is said before minutes of work
        model = Model(path, system, capacity.max_batch)
        if model.origin:
            console.say(model.origin)
        benchmark, failing, missing = _shown(model, data)
        console.say(f"{model.system.name}: compiling for up to {capacity.max_batch} clips at once")
        model.warm_up()
        if failing is not None:
            failing.warm_up()
        if not model.has_maps:
            missing.append("class-activation maps and the streams' own scores: the weights are inside a program")
        for line in missing:
            console.say(f"not shown: {line}")
        server = Server(model, benchmark, failing, missing, limits, capacity)
        app = create_app(server, (host, *allowed))
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=SECONDS_TO_STOP,
            limit_concurrency=CONNECTIONS,
        )
        _Announcing(config, console, f"http://{shown}:{listener.getsockname()[1]}").run(sockets=[listener])


class _Announcing(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, console: Console, address: str):
        super().__init__(config)
        self._console, self._address = console, address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._console.say(f"listening at {self._address}")


def _shown(model: Model, data: pathlib.Path | None) -> tuple[Benchmark | None, FailingDepth | None, list[str]]:
    """The benchmark's clips, their failing depth, and what of both is not there."""
    if data is None:
        return None, None, ["the benchmark's clips: start with --data FOLDER and a run's workdir to see them"]
    if model.workdir is None:
        raise UsageError("--data shows what a run's depth stream sees, and an export has none: give a run's workdir")
    benchmark = Benchmark(model.workdir, data, model.facts["dataset_fingerprint"])
    try:
        return benchmark, FailingDepth(benchmark, model.workdir), []
    except UsageError as error:
        return benchmark, None, [f"depth against hallucination: {error}"]


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen at {host} port {port}: {error.strerror}; choose another --port") from error
    return listener
