"""Checkpoints under damage: nothing that differs from what was written is ever read as if it did not."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from hallujax.errors import CheckpointError
from hallujax.training import checkpoint, manifest
from hallujax.training.checkpoint import Checkpoints
from hallujax.training.state import TrainState


def state_of(step):
    values = jax.random.normal(jax.random.key(step), (40, 50))
    return TrainState(jnp.int32(step), {"rgb": {"w": values}}, {"rgb": {"mean": values[0]}}, {"rgb": {"m": -values}})


@pytest.fixture
def saved(tmp_path):
    """`latest` of steps 1 and 2, `best` of step 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(step, state_of(step), {"position": 16 * step})
        state = state_of(step)
        checkpoints.save_best(step, {"params": state.params, "batch_stats": state.batch_stats})
    checkpoints.close()
    return tmp_path / "checkpoints"


def flip_a_bit(path, rng):
    data = bytearray(path.read_bytes())
    place = int(rng.integers(8 * len(data)))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in manifest.ORBAXS_OWN]


def restored(directory):
    checkpoints = Checkpoints(directory)
    try:
        return *checkpoints.restore(state_of(0)), checkpoints.noticed
    finally:
        checkpoints.close()


def test_a_manifest_names_every_file_and_appears_with_the_checkpoint(saved):
    folder = saved / "latest" / "2"
    named = json.loads((folder / manifest.NAME).read_text())
    assert set(named) == {path.relative_to(folder).as_posix() for path in files(folder)} - {manifest.NAME}
    assert any("state/" in name for name in named) and any("progress/" in name for name in named)
    assert manifest.damage(folder) is None


def test_nothing_is_written_that_nobody_reads(saved):
    """How arrays lay on devices, and orbax's own account of them: half of the processor time of a save."""
    names = {path.name for path in files(saved)}
    assert not [name for name in names if "sharding" in name or "array_metadata" in name]


def test_what_orbaxs_standard_handler_wrote_is_read(tmp_path):
    """As all checkpoints were written once; with it come files that are no longer."""
    state = state_of(3)
    tree = {name: getattr(state, name) for name in ("step", "params", "batch_stats", "opt_state")}
    items = {"latest": {"state": tree}, "best": {"networks": {n: tree[n] for n in ("params", "batch_stats")}}}
    for kind, item in items.items():
        with ocp.CheckpointManager(tmp_path / kind) as manager:
            arguments = {name: ocp.args.StandardSave(value) for name, value in item.items()}
            if kind == "latest":
                arguments["progress"] = ocp.args.JsonSave({"position": 48})
            manager.save(3, args=ocp.args.Composite(**arguments))
    assert any(path.name == "_sharding" for path in files(tmp_path))
    read, progress, noticed = restored(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, read, state)
    assert progress == {"position": 48} and noticed == []
    checkpoints = Checkpoints(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, checkpoints.restore_best(), items["best"]["networks"])
    checkpoints.close()


def test_whole_checkpoints_are_read(saved):
    state, progress, noticed = restored(saved)
    np.testing.assert_array_equal(state.params["rgb"]["w"], state_of(2).params["rgb"]["w"])
    assert progress == {"position": 32} and noticed == []


def test_after_one_flipped_bit_anywhere_the_checkpoint_before_is_read(saved, tmp_path_factory):
    """In every file of the newest, in turn: its manifest too."""
    rng, tried = np.random.default_rng(0), files(saved / "latest" / "2")
    assert len(tried) > 5
    for path in tried:
        copy = tmp_path_factory.mktemp("copy") / "checkpoints"
        shutil.copytree(saved, copy)
        flip_a_bit(copy / path.relative_to(saved), rng)
        state, progress, noticed = restored(copy)
        np.testing.assert_array_equal(state.params["rgb"]["w"], state_of(1).params["rgb"]["w"])
        assert progress == {"position": 16}
        (line,) = noticed
        assert "step 2 is damaged" in line
        if path.name != manifest.NAME:
            assert path.relative_to(saved / "latest" / "2").as_posix() in line


@pytest.mark.parametrize("name", manifest.ORBAXS_OWN)
def test_orbaxs_own_files_change_no_value(saved, name):
    for seed in range(5):
        flip_a_bit(saved / "latest" / "2" / name, np.random.default_rng(seed))
        try:
            state, progress, _ = restored(saved)
        except CheckpointError:
            continue
        np.testing.assert_array_equal(state.params["rgb"]["w"], state_of(2).params["rgb"]["w"])
        assert progress == {"position": 32}


@pytest.mark.parametrize("kind", ["latest", "best"])
@pytest.mark.parametrize("step", ["1", "2"])
def test_over_a_damaged_account_of_orbaxs_nothing_is_lost(saved, kind, step):
    """A key that it does not know: it would not open the folder."""
    account = saved / kind / step / "_CHECKPOINT_METADATA"
    account.write_text(account.read_text().replace("metrics", "me4rics"))
    state, progress, noticed = restored(saved)
    assert (int(state.step), progress, noticed) == (2, {"position": 32}, [])


def test_the_account_of_a_checkpoint_that_is_being_written_is_left_alone(saved):
    """It was taken for a damaged one, as its folder's name is no number."""
    account = saved / "latest" / "3.orbax-checkpoint-tmp" / "_CHECKPOINT_METADATA"
    account.parent.mkdir()
    account.write_text("{")
    checkpoint._drop_unreadable_accounts(saved)
    assert account.read_text() == "{"


@pytest.mark.parametrize("harm", ["truncated", "removed", "added"])
def test_other_damage_is_seen_too(saved, harm):
    folder = saved / "latest" / "2"
    largest = max(files(folder), key=lambda path: path.stat().st_size)
    if harm == "truncated":
        largest.write_bytes(largest.read_bytes()[:-1])
    elif harm == "removed":
        largest.unlink()
    else:
        (folder / "state" / "more").write_bytes(b"1")
    state, _, (line,) = restored(saved)
    assert int(state.step) == 1 and str(saved / "damaged" / "2") in line
    assert (saved / "damaged" / "2").exists(), "nobody's file is thrown away"


def test_training_goes_on_after_the_damage(saved):
    flip_a_bit(max(files(saved / "latest" / "2"), key=lambda path: path.stat().st_size), np.random.default_rng(1))
    checkpoints = Checkpoints(saved)
    checkpoints.restore(state_of(0))
    checkpoints.save(2, state_of(2), {"position": 32})
    checkpoints.close()
    state, _, noticed = restored(saved)
    assert int(state.step) == 2 and noticed == []


def test_where_none_is_whole_that_is_said(saved):
    for step in "12":
        flip_a_bit(max(files(saved / "latest" / step), key=lambda path: path.stat().st_size), np.random.default_rng(2))
    with pytest.raises(CheckpointError, match=r"latest/2 is damaged: .* is not what was written. None before it"):
        restored(saved)
    assert (saved / "latest" / "2").exists()


def test_damaged_best_networks_are_refused(saved):
    flip_a_bit(max(files(saved / "best" / "2"), key=lambda path: path.stat().st_size), np.random.default_rng(3))
    checkpoints = Checkpoints(saved)
    with pytest.raises(CheckpointError, match=r"best/2 is damaged: networks/.* is not what was written"):
        checkpoints.restore_best()
    checkpoints.close()


def test_checkpoints_of_before_there_were_manifests_are_read(saved):
    for path in saved.rglob(manifest.NAME):
        path.unlink()
    state, _, noticed = restored(saved)
    assert int(state.step) == 2 and noticed == []
