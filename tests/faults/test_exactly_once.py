"""R2: over kills, threads and processes every clip comes once an epoch, in the same batches."""

import collections
import itertools

import numpy as np
import pytest

from hallujax.data.pipeline import training_batches

CLIPS, BATCH, EPOCHS = 41, 8, 30  # an epoch ends within a batch


class Rows:
    """A loader that shows which rows it is asked for."""

    def __call__(self, samples, rows):
        return {"sample": samples.astype(np.uint32), "row": rows.astype(np.int32)}


def batches(position, process, processes, threads):
    return training_batches(
        Rows(),
        np.arange(CLIPS),
        batch_size=BATCH,
        seed=3,
        position=position,
        part=np.array_split(np.arange(BATCH), processes)[process],
        threads=threads,
    )


@pytest.mark.parametrize("kills", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_every_clip_comes_once_an_epoch(figures, kills):
    """At every drawn moment all processes are gone, and another number of them with other threads goes on."""
    rng, steps = np.random.default_rng(kills), CLIPS * EPOCHS // BATCH
    straight = [batch["row"] for batch in itertools.islice(batches(0, 0, 1, 1), steps)]
    moments = np.sort(rng.choice(np.arange(1, steps), min(kills, steps - 1), replace=False))
    seen, ways = [], collections.Counter()
    for first, last in itertools.pairwise([0, *moments.tolist(), steps]):
        processes, threads = int(rng.choice([1, 2, 4])), int(rng.choice([1, 2, 8]))
        ways[f"{processes} processes, {threads} threads"] += 1
        readers = [batches(first * BATCH, process, processes, threads) for process in range(processes)]
        for _ in range(first, last):
            parts = [next(reader) for reader in readers]
            order = np.argsort(np.concatenate([part["sample"] for part in parts]))
            seen.append(np.concatenate([part["row"] for part in parts])[order])
        for reader in readers:
            next(reader)  # read ahead, and lost with its process
            reader.close()
    np.testing.assert_array_equal(seen, straight)
    epochs = np.concatenate(seen)[: CLIPS * (steps * BATCH // CLIPS)].reshape(-1, CLIPS)
    twice = sum(CLIPS - len(set(epoch.tolist())) for epoch in epochs)
    assert twice == 0 and len({tuple(epoch) for epoch in epochs}) == len(epochs)
    figures(
        "every clip once an epoch, whatever is killed and goes on with other processes and threads",
        kills=len(moments),
        epochs=len(epochs),
        ways=ways,
        duplicates=twice,
        missing=twice,
    )
