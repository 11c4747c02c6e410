"""Requests that come together go together, and each gets its own."""

import asyncio

import numpy as np
import pytest

from hallujax.serve.batching import Batcher


def gather(count, *, answer=None, max_batch=4, max_wait=10.0):
    """The results of `count` clips at once, and the sizes of their batches."""
    sizes = []

    def double(clips):
        return [2 * int(clip) for clip in clips]

    async def main():
        batcher = Batcher(answer or double, max_batch=max_batch, max_wait=max_wait, on_batch=sizes.append)
        async with batcher:
            asked = [batcher(np.array(i)) for i in range(count)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            assert batcher.alive
        return results

    return asyncio.run(main()), sizes


def test_a_full_batch_waits_for_nobody():
    results, sizes = gather(8, max_wait=1e6)
    assert [result.answer for result in results] == [2 * i for i in range(8)] and sizes == [4, 4]


def test_the_last_ones_go_when_their_time_is_over():
    results, sizes = gather(6, max_wait=0.2)
    assert [result.answer for result in results] == [2 * i for i in range(6)] and sizes == [4, 2]


def test_a_failure_is_of_its_batch():
    def fail_on_five(clips):
        if 5 in [int(clip) for clip in clips]:
            raise FloatingPointError("five")
        return [int(clip) for clip in clips]

    results, sizes = gather(8, answer=fail_on_five, max_wait=1e6)
    assert [result.answer for result in results[:4]] == [0, 1, 2, 3] and sizes == [4]
    assert all(isinstance(result, FloatingPointError) for result in results[4:])


def test_every_batch_size_is_compiled_before(trained):
    import jax

    from hallujax.serve.model import Model

    model = Model(trained, "RGB", max_batch=6)
    model.warm_up()
    assert model.streams == ("fused", "rgb")
    clips = list(np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32, 3), np.uint8))
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("jax._src.compiler.backend_compile_and_load", lambda *a, **k: compiled.append(1), raising=False)
        answers = {count: model.answer(clips[:count]) for count in range(1, 7)}
    assert not compiled
    for count, found in answers.items():
        assert len(found) == count
        for i, answer in enumerate(found):
            alone = model.answer([clips[i]])[0]
            np.testing.assert_allclose(answer.scores["fused"].logits, alone.scores["fused"].logits, atol=1e-5)
            np.testing.assert_allclose(answer.maps["rgb"], alone.maps["rgb"], atol=1e-4)
