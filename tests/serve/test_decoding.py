"""Decoding processes end what takes too much time or memory, and come back after they were killed."""

import asyncio
import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from running import children
from videos import encode, noise, repeated

from hallujax.serve.decoder import Settings, decode
from hallujax.serve.decoding import DecodingPool
from hallujax.serve.limits import Refusal

USUAL = {"clip_seconds": 60.0, "frame_pixels": 2**24, "decode_seconds": 60.0, "decode_bytes": 2**30}
HEAVY = repeated(2000, 3000, 340)  # 18 MB a frame from 18 kB


def settings(**changed):
    return Settings(frames=3, frame_size=(32, 32), **(USUAL | changed))


def run(pool_settings, work):
    """`work(pool)` in a pool of one process; returns its result and the number of restarts."""
    restarts = []

    async def main():
        async with DecodingPool(pool_settings, 1, lambda: restarts.append(1)) as pool:
            return await work(pool)

    return asyncio.run(main()), len(restarts)


async def decode_bytes(pool, video):
    with tempfile.TemporaryFile() as file:
        file.write(video)
        file.flush()
        return await pool.decode(file.fileno())


async def refusal(pool, video):
    with pytest.raises(Refusal) as caught:
        await decode_bytes(pool, video)
    return caught.value


def test_frames_come_as_they_are():
    frames = noise(0)

    async def work(pool):
        return [await decode_bytes(pool, encode(each)) for each in (frames, frames[:1])]

    (found, single), restarts = run(settings(), work)
    np.testing.assert_array_equal(found.frames, frames[[0, 3, 6]])
    np.testing.assert_array_equal(single.frames, frames[[0, 0, 0]])
    assert (found.length, found.sampled, restarts) == (7, pytest.approx((0, 0.12, 0.24)), 0)


def test_too_much_time_and_too_much_memory():
    async def work(pool):
        first = await refusal(pool, HEAVY)
        return first, await decode_bytes(pool, encode(noise(1)))

    (slow, after), restarts = run(settings(decode_seconds=0.5), work)
    assert (slow.status, slow.kind) == (504, "decode_timeout") and after.length == 7
    assert restarts == 0, "the alarm ends the child alone"
    (large, after), restarts = run(settings(decode_bytes=2**23), work)
    assert (large.status, large.kind) == (422, "memory") and after.length == 7 and restarts == 0


def test_a_child_that_dies_costs_its_own_request_alone():
    async def work(pool):
        (decoder,) = pool.pids
        waiting = asyncio.create_task(refusal(pool, HEAVY))
        while not (found := children(decoder)):
            await asyncio.sleep(0.01)
        os.kill(found[0], signal.SIGSEGV)
        crashed = await waiting
        return crashed, await decode_bytes(pool, encode(noise(1)))

    (crashed, after), restarts = run(settings(), work)
    assert (crashed.status, crashed.kind, restarts) == (422, "crashed", 0) and after.length == 7


def test_a_decoder_that_dies_or_is_given_up_is_replaced():
    async def work(pool):
        (decoder,) = pool.pids
        os.kill(decoder, signal.SIGSTOP)  # so that it cannot have answered before it is killed
        lost = asyncio.create_task(refusal(pool, encode(noise(1))))
        await asyncio.sleep(0.1)
        os.kill(decoder, signal.SIGKILL)
        said = await lost
        (second,) = pool.pids
        assert second != decoder
        os.kill(second, signal.SIGSTOP)
        cancelled = asyncio.create_task(decode_bytes(pool, encode(noise(1))))
        await asyncio.sleep(0.1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        started.update((decoder, second, *pool.pids))
        return said, await decode_bytes(pool, encode(noise(1)))

    started = set()
    (said, after), restarts = run(settings(), work)
    assert (said.status, said.kind, restarts) == (503, "decoder_lost", 2) and after.length == 7
    assert len(started) == 3 and not any(b"serve.decoder" in _command(pid) for pid in started), "none outlives its pool"


def test_decoding_imports_no_jax():
    program = "import sys, hallujax.serve.decoder; print(sorted({'jax', 'flax', 'fastapi'} & set(sys.modules)))"
    root = str(pathlib.Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[]"


def test_what_a_container_refers_to_is_not_opened(tmp_path):
    (tmp_path / "frame.png").write_bytes(b"secret")
    playlist = f"ffconcat version 1.0\nfile '{tmp_path}/frame.png'\n".encode()
    with pytest.raises(Exception, match="not a video"):
        decode(io.BytesIO(playlist), settings())


def _command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""
