"""The server's side of decoding: a few processes, each with one file at a time, replaced when they die or hang."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from hallujax.serve.decoder import LENGTH, Settings
from hallujax.serve.limits import Refusal

GRACE = 5.0  # seconds beyond the limit, after which a decoder that did not end its child is ended itself
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A video's frames uint8 `[T, H, W, 3]`, its length in seconds and in frames, and when those T appear in it."""

    frames: np.ndarray
    seconds: float
    length: int
    sampled: tuple[float, ...]


class DecodingPool:
    """Decodes up to `processes` files at once; used within `async with`."""

    def __init__(self, settings: Settings, processes: int, on_restart: Callable[[], None]):
        """`on_restart` is called whenever a process had to be replaced."""
        self._settings, self._count, self._on_restart = settings, processes, on_restart
        self._idle: asyncio.Queue[_Process | None] = asyncio.Queue()  # None is one that is still to be started
        self._processes: set[_Process] = set()

    async def __aenter__(self) -> "DecodingPool":
        for _ in range(self._count):
            self._idle.put_nowait(self._start())
        return self

    async def __aexit__(self, *exception: object) -> None:
        for process in self._processes:
            process.kill()

    @property
    def pids(self) -> list[int]:
        """Of the decoding processes."""
        return [process.pid for process in self._processes]

    async def decode(self, descriptor: int) -> Decoded:
        """The frames of the video in an open file.

        Raises:
          Refusal: 415 for what is no video; 422 for one that is damaged, too large or too long, or breaks its decoder;
            504 if it takes too long; 503 if the decoder was ended by somebody else.
        """
        process = await self._idle.get()
        try:
            process = process or self._start()
            async with asyncio.timeout(self._settings.decode_seconds + GRACE):
                header, pixels = await process.decode(descriptor)
        except BaseException as error:  # cancelled too: what it would say now belongs to nobody
            self._idle.put_nowait(self._replaced(process))
            if isinstance(error, TimeoutError):
                raise self._too_slow() from error
            if isinstance(error, OSError | EOFError | ValueError):
                raise Refusal(503, "decoder_lost", "the decoder stopped; try again") from error
            raise
        self._idle.put_nowait(process)
        return self._read(header, pixels)

    def _read(self, header: dict, pixels: bytes) -> Decoded:
        kind = header["kind"]
        if kind == "unsupported":
            raise Refusal(415, "unsupported", header["message"])
        if kind == "unreadable":
            raise Refusal(422, "unreadable", header["message"])
        if kind == "memory":
            size = self._settings.decode_bytes / 2**20
            raise Refusal(422, "memory", f"decoding this video takes more than {size:.0f} MiB of memory")
        if kind == "killed" and header["signal"] == signal.SIGALRM:
            raise self._too_slow()
        if kind == "killed":
            raise Refusal(422, "crashed", f"this video broke its decoder (signal {header['signal']})")
        frames = np.frombuffer(pixels, np.uint8).reshape(header["shape"])
        return Decoded(frames, header["seconds"], header["length"], tuple(header["sampled"]))

    def _too_slow(self) -> Refusal:
        limit = f"{self._settings.decode_seconds:g} seconds"
        return Refusal(504, "decode_timeout", f"decoding this video takes more than {limit}; send a shorter one")

    def _start(self) -> "_Process":
        process = _Process(self._settings)
        self._processes.add(process)
        return process

    def _replaced(self, process: "_Process | None") -> "_Process | None":
        """Another one, at once if the system has room for it, so that the next request does not wait for its start."""
        self._on_restart()
        if process is not None:
            process.kill()
            self._processes.discard(process)
        try:
            return self._start()
        except OSError:
            return None


class _Process:
    """One decoder and the socket to it."""

    def __init__(self, settings: Settings):
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "hallujax.serve.decoder",
                    str(theirs.fileno()),
                    json.dumps(dataclasses.asdict(settings)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own, to end its children with it; and deaf to our Ctrl-C
                env=_environment(),
            )
        self._socket.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def decode(self, descriptor: int) -> tuple[dict, bytes]:
        socket.send_fds(self._socket, [b"."], [descriptor])
        (length,) = LENGTH.unpack(await self._receive(LENGTH.size))
        header = json.loads(await self._receive(length))
        return header, await self._receive(header["bytes"])

    def kill(self) -> None:
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    async def _receive(self, count: int) -> bytes:
        loop, found = asyncio.get_running_loop(), bytearray()
        while len(found) < count:
            part = await loop.sock_recv(self._socket, min(count - len(found), 1 << 20))
            if not part:
                raise EOFError
            found += part
        return bytes(found)


def _environment() -> dict[str, str]:
    """Ours, without the huge pages that serve JAX and are a waste here, and without threads, which forks lose."""
    kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    return kept | dict.fromkeys(THREADS, "1")
