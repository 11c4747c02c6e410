"""Checkpoints in a bucket: whole or not there, and nothing that differs from what was written is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hallujax import paths
from hallujax.errors import CheckpointError
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.manifest import NAME, damage
from hallujax.training.state import TrainState

PLACE = "run/depth/checkpoints"
COMMITTED = "commit_success.txt"


def state_of(step):
    values = jax.random.normal(jax.random.key(step), (40, 50))
    return TrainState(jnp.int32(step), {"rgb": {"w": values}}, {"rgb": {"mean": values[0]}}, {"rgb": {"m": -values}})


def open_checkpoints():
    return Checkpoints(paths.as_path(f"gs://bucket/{PLACE}"))


@pytest.fixture
def bucket(store):
    """`latest` of steps 2 and 3 (1 is forgotten), `best` of step 3; the bucket's objects."""
    objects = store.buckets["bucket"]
    objects.clear()
    checkpoints = open_checkpoints()
    for step in (1, 2, 3):
        checkpoints.save(step, state_of(step), {"position": 16 * step})
    checkpoints.save_best(3, {"params": state_of(3).params, "batch_stats": state_of(3).batch_stats})
    checkpoints.close()
    return objects


def restored():
    checkpoints = open_checkpoints()
    try:
        state, progress = checkpoints.restore(state_of(0))
        np.testing.assert_array_equal(state.params["rgb"]["w"], state_of(state.step).params["rgb"]["w"])
        np.testing.assert_array_equal(state.opt_state["rgb"]["m"], state_of(state.step).opt_state["rgb"]["m"])
        assert progress == {"position": 16 * state.step}
        return int(state.step), checkpoints.noticed
    finally:
        checkpoints.close()


def files(bucket, folder):
    names = [name.removeprefix(f"{PLACE}/{folder}/") for name in bucket if name.startswith(f"{PLACE}/{folder}/")]
    return sorted(name for name in names if not name.endswith((COMMITTED, "_CHECKPOINT_METADATA")))


def flip_a_bit(store, name):
    content = bytearray(store.buckets["bucket"][name].content)
    content[len(content) // 2] ^= 4
    store.put("bucket", name, bytes(content))


def test_they_are_read_back_and_the_manifest_is_there_before_they_are_visible(store, bucket):
    assert restored() == (3, [])
    assert {name.split("/")[4] for name in bucket if name.startswith(f"{PLACE}/latest/")} == {"2", "3"}
    for step in (2, 3):
        written = {name: bucket[f"{PLACE}/latest/{step}/{name}"].generation for name in (NAME, COMMITTED)}
        assert written[NAME] < written[COMMITTED]
        others = [bucket[f"{PLACE}/latest/{step}/{name}"].generation for name in files(bucket, f"latest/{step}")]
        assert max(others) <= written[NAME]
        assert damage(paths.as_path(f"gs://bucket/{PLACE}/latest/{step}")) is None
    checkpoints = open_checkpoints()
    networks = checkpoints.restore_best()
    checkpoints.close()
    np.testing.assert_array_equal(networks["params"]["rgb"]["w"], state_of(3).params["rgb"]["w"])


def test_after_one_flipped_bit_anywhere_the_one_before_is_read(store, bucket):
    """In every file of the newest, in turn: its manifest too. It is set aside, file by file."""
    tried, before = files(bucket, "latest/3"), dict(bucket)
    assert len(tried) > 5 and NAME in tried
    for name in tried:
        bucket.clear()
        bucket.update(before)
        flip_a_bit(store, f"{PLACE}/latest/3/{name}")
        step, (line,) = restored()
        assert step == 2 and "the checkpoint of step 3 is damaged" in line and "damaged/3" in line
        assert files(bucket, "latest/3") == [] and files(bucket, "damaged/3") == tried
    assert restored() == (2, [])


@pytest.mark.parametrize("lost", [NAME, "progress/metadata"])
def test_one_that_lost_a_file_is_damaged(bucket, lost):
    del bucket[f"{PLACE}/latest/3/{lost}"]
    step, (line,) = restored()
    assert step == 2 and f"{lost} is missing" in line


def test_one_that_was_cut_off_is_not_seen(bucket):
    """As a kill before the last file leaves it: it is removed when the folder is opened again."""
    del bucket[f"{PLACE}/latest/3/{COMMITTED}"]
    assert restored() == (2, [])
    assert not any(name.startswith(f"{PLACE}/latest/3/") for name in bucket)


def test_without_a_whole_one_nothing_is_read(store, bucket):
    for step in (2, 3):
        flip_a_bit(store, f"{PLACE}/latest/{step}/progress/metadata")
    with pytest.raises(CheckpointError, match=r"gs://bucket/run/depth/checkpoints/latest/3 is damaged: progress/meta"):
        restored()
    flip_a_bit(store, f"{PLACE}/best/3/networks/_METADATA")
    checkpoints = open_checkpoints()
    with pytest.raises(CheckpointError, match="best/3 is damaged: networks/_METADATA is not what was written"):
        checkpoints.restore_best()
    checkpoints.close()
