"""Every way in which data goes bad, in real files: named by file, modality, clip and frame, and counted."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from damage import cut, flip_chunk, spoil
from PIL import Image

from hallujax.cli import main
from hallujax.data.pipeline import ClipLoader, training_batches
from hallujax.data.records import PreparedDataset
from hallujax.data.verification import damaged_records
from hallujax.errors import DamagedRecordError, DataError, UsageError


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "mocap_rgbd")


def picture(array, kind):
    encoded = io.BytesIO()
    Image.fromarray(array).save(encoded, kind)
    return encoded.getvalue()


SPOILED = {
    "half a picture": ("rgb", cut, "truncated"),
    "half a depth map": ("depth", cut, ""),
    "no picture": ("rgb", lambda _: b"not a picture", "it is no picture"),
    "nothing": ("depth", lambda _: b"", "it is no picture"),
    "another size": ("rgb", lambda _: picture(np.zeros((16, 48, 3), np.uint8), "JPEG"), "it is 48x16, not 32x32"),
    "one pixel": ("depth", lambda _: picture(np.zeros((1, 1), np.uint16), "PNG"), "it is 1x1, not 32x32"),
    "grey": (
        "rgb",
        lambda _: picture(np.zeros((32, 32), np.uint8), "JPEG"),
        r"it is uint8\[32, 32\], not uint8\[32, 32, 3\]",
    ),
    "8 bits of depth": ("depth", lambda _: picture(np.zeros((32, 32), np.uint8), "PNG"), "it is uint8.* not uint16"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_record_that_does_not_decode_is_named(copy, what):
    modality, edit, reason = SPOILED[what]
    spoil(copy, modality, {(7, 3): edit})
    dataset = PreparedDataset.open(copy)
    where = f"{modality} of clip {dataset.clip_id(7)}, frame 3: damaged record .*(?i:{reason})"
    with pytest.raises(DamagedRecordError, match=rf"mocap_rgbd-frames.array_record-00\d+-of-\d+, {where}"):
        dataset.read(modality, [6, 7], [[3], [3]])
    assert dataset.read(modality, [6, 7], [[3], [2]]).shape[:2] == (2, 1)


@pytest.mark.parametrize(("spoiler", "reason"), [("truncate", "is truncated"), ("unlink", "is missing")])
def test_all_bad_shards_are_counted_at_opening(copy, spoiler, reason):
    shards = sorted((copy / "depth" / "1.0.0").glob("*array_record*"))
    assert len(shards) > 1
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-100]) if spoiler == "truncate" else shard.unlink()
    with pytest.raises(DataError, match=rf"{shards[0].name} {reason}.*\({len(shards)} shards are missing or damaged\)"):
        PreparedDataset.open(copy)


def test_a_shard_of_the_right_size_without_records_is_named(copy):
    """array_record opens zeros without a word, and says that they hold no record."""
    shard = sorted((copy / "rgb" / "1.0.0").glob("*array_record*"))[-1]
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(DataError, match=rf"{shard.name}: (0 records, dataset.json says \d+|unreadable)"):
        PreparedDataset.open(copy)


def test_skipped_clips_are_masked_and_stood_in_for(copy, tiny):
    """Rows 4 and 7 of four are bad, one in its RGB and one in its depth; the whole ones stand in, in order."""
    spoil(copy, "rgb", {(4, f): cut for f in range(5)})
    flip_chunk(copy, "depth", 7, 2)
    rows = np.array([4, 5, 6, 7])
    options = dict(frames=5, sampling="uniform", seed=0)
    loader = ClipLoader(PreparedDataset.open(copy), ("rgb", "depth"), **options, bad_records="skip")
    batch = loader(np.arange(4), rows)
    np.testing.assert_array_equal(batch["mask"], [0, 1, 1, 0])
    np.testing.assert_array_equal(batch["sample"], np.arange(4))
    whole = ClipLoader(PreparedDataset.open(tiny), ("rgb", "depth"), **options)(np.arange(4), np.array([5, 5, 6, 5]))
    for name in ("rgb", "depth", "label"):
        np.testing.assert_array_equal(batch[name], whole[name])
    names = [loader._dataset.clip_id(row) for row in (4, 7)]
    assert [name in line for name, line in zip(names, loader.noticed, strict=True)] == [True, True]
    loader(np.arange(4), rows)
    assert len(loader.noticed) == 2, "told once, not once an epoch"
    with pytest.raises(DamagedRecordError, match=f"rgb of clip {names[0]}"):
        loader(np.arange(2), np.array([4, 7]))
    with pytest.raises(DamagedRecordError, match=rf"rgb of clip {names[0]}, frame 0"):
        ClipLoader(PreparedDataset.open(copy), ("rgb",), **options)(np.arange(4), rows)
    with pytest.raises(UsageError, match=r"data\.bad_records is 'drop'; known: stop, skip"):
        ClipLoader(PreparedDataset.open(copy), ("rgb",), **options, bad_records="drop")


def test_the_error_comes_out_of_the_pipeline_as_it_is(copy):
    spoil(copy, "rgb", {(7, frame): cut for frame in range(5)})
    loader = ClipLoader(PreparedDataset.open(copy), ("rgb",), frames=3, sampling="mixed", seed=0)
    batches = training_batches(loader, np.arange(8), batch_size=8, seed=0)
    with pytest.raises(DamagedRecordError, match=f"rgb of clip {loader._dataset.clip_id(7)}"):
        next(batches)


def test_verify_names_every_damaged_record(copy, tmp_path, capsys):
    spoil(copy, "rgb", {(3, 1): cut, (40, 4): lambda _: b"", (40, 0): cut})
    shard = flip_chunk(copy, "joints", 11, 2)
    dataset = PreparedDataset.open(copy)
    told = []
    found = damaged_records(dataset, threads=2, advance=told.append)
    expected = [("rgb", 3, 1), ("rgb", 40, 0), ("rgb", 40, 4), ("joints", 11, 2)]
    assert len(found) == 4 and sum(told) == 3 * 48 * 5
    for line, (modality, row, frame) in zip(found, expected, strict=True):
        assert f"{modality} of clip {dataset.clip_id(row)}, frame {frame}: " in line
    assert main(["inspect", str(copy), "--verify"]) == 1
    said = capsys.readouterr().out
    for line in found:
        assert line in said
    assert f"{shard}: its bytes have changed" in said and "5 things are damaged" in said
    assert not (copy / "contact_sheet.png").exists()


def test_verify_of_a_whole_dataset(tiny, tmp_path, capsys):
    assert main(["inspect", str(tiny), "--verify", f"--sheet={tmp_path}/sheet.png"]) == 0
    said = capsys.readouterr().out
    assert "records of mocap_rgbd" in said and "suspicious: nothing found" in said and "damaged" not in said


@pytest.mark.parametrize("mutations", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_mutated_shards_are_never_read_for_what_they_are_not(tiny, tmp_path, mutations):
    """R6: after a flip, a cut, zeros or a swap either it is named or every record is what it was."""
    whole = PreparedDataset.open(tiny)
    rows = np.arange(len(whole))
    frames = np.tile(np.arange(5), (len(whole), 1))
    truth = {name: whole.read(name, rows, frames) for name in whole.modalities}
    rng = np.random.default_rng(6)
    named = 0
    copy = shutil.copytree(tiny, tmp_path / "mocap_rgbd")
    shards = sorted(copy.glob("*/1.0.0/*array_record*"))
    for number in range(mutations):
        shard = shards[rng.integers(len(shards))]
        data = bytearray(shard.read_bytes())
        place, kind = int(rng.integers(len(data))), ("flip", "zeros", "cut", "swap", "garbage")[number % 5]
        if kind == "flip":
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == "zeros":
            data[place : place + 64] = bytes(len(data[place : place + 64]))
        elif kind == "cut":
            del data[place:]
        elif kind == "garbage":
            data[place : place + 512] = rng.bytes(len(data[place : place + 512]))
        else:
            data = bytearray(shards[(shards.index(shard) + 1) % len(shards)].read_bytes())
        before = shard.read_bytes()
        shard.write_bytes(data)
        try:
            damaged = PreparedDataset.open(copy)
            lines = damaged_records(damaged, threads=1)
        except DataError as error:
            lines = [str(error)]
            assert shard.name in lines[0] and str(copy) in lines[0]
        if lines:
            named += 1
            assert re.search(r"array_record-\d+-of-\d+", lines[0]), lines
        else:
            for name, values in truth.items():
                np.testing.assert_array_equal(damaged.read(name, rows, frames), values)
            assert damaged.verify() == [] if bytes(data) == before else shard.name in damaged.verify()[0]
        shard.write_bytes(before)
    print(f"{named} of {mutations} named, the others changed no record")
    assert named > 0.6 * mutations


def test_a_dataset_that_changes_is_noticed_and_one_that_is_touched_is_not(copy):
    dataset = PreparedDataset.open(copy)
    assert dataset.changed() == ""
    for path in copy.rglob("*"):
        path.touch()
    shutil.copytree(copy, copy.parent / "again")
    shutil.rmtree(copy)
    (copy.parent / "again").rename(copy)
    assert dataset.changed() == "", "other inodes and times, the same bytes"
    shard = flip_chunk(copy, "depth", 0, 0)
    assert dataset.changed() == f"{shard} is no longer what it was"
    shard.unlink()
    assert dataset.changed() == f"{shard} can no longer be read (No such file or directory)"


def test_an_index_that_changes_is_noticed(copy):
    dataset = PreparedDataset.open(copy)
    info = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(info | {"classes": info["classes"][::-1]}))
    assert "dataset.json is no longer what it was" in dataset.changed()
