"""Datasets in a bucket: copied once, whole, and anew when they change."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from hallujax import paths
from hallujax.data.fingerprint import fingerprint
from hallujax.data.local_copy import copies
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def fresh(store, data, monkeypatch, tmp_path):
    """The dataset's address, no copy on this disk yet, and no request counted."""
    monkeypatch.setenv("HALLUJAX_DATA_CACHE", str(tmp_path / "copies"))
    before = dict(store.buckets["bucket"])
    store.asked.clear()
    yield paths.as_path(data) / "mocap_rgbd"
    store.buckets["bucket"].clear()
    store.buckets["bucket"].update(before)


def fetched(store):
    """What was read of the dataset, in order; the description is always."""
    names = [re.fullmatch(r"GET /download/storage/v1/b/bucket/o/data/mocap_rgbd/(.*)", line) for line in store.asked]
    store.asked.clear()
    return sorted(match[1] for match in names if match and match[1] != "dataset.json")


def files(info):
    return sorted(["clips.npy", *(s["file"] for entry in info["modalities"].values() for s in entry["shards"])])


def test_a_dataset_is_copied_once(store, fresh, tiny, capsys):
    there, here = PreparedDataset.open(fresh), PreparedDataset.open(tiny)
    assert there.fingerprint == here.fingerprint and there.verify() == []
    for modality in here.modalities:
        rows = np.arange(len(here))
        frames = np.tile([0, 2], (len(here), 1))
        np.testing.assert_array_equal(there.read(modality, rows, frames), here.read(modality, rows, frames))
    assert fetched(store) == files(here.info)
    size = sum((tiny / name).stat().st_size for name in files(here.info))
    said = capsys.readouterr().out
    assert said == f"gs://bucket/data/mocap_rgbd: {size / 2**20:,.1f} MiB copied to {there.directory}\n"
    assert there.directory == copies() / here.fingerprint[:16] / "mocap_rgbd"
    PreparedDataset.open(fresh)
    assert fetched(store) == [] and capsys.readouterr().out == ""
    assert not list(copies().rglob("*.partial"))


def test_what_is_truncated_or_gone_is_copied_again(store, fresh):
    copy = PreparedDataset.open(fresh).directory
    shards = sorted(copy.glob("*/*/*array_record*"))
    fetched(store)
    os.truncate(shards[1], shards[1].stat().st_size // 2)
    shards[-1].unlink()
    os.truncate(copy / "clips.npy", 200)
    dataset = PreparedDataset.open(fresh)
    assert dataset.verify() == []
    wanted = [path.relative_to(copy).as_posix() for path in (shards[1], shards[-1], copy / "clips.npy")]
    assert fetched(store) == sorted(wanted)


def test_another_dataset_at_the_same_address_is_another_copy(store, fresh, tiny):
    first = PreparedDataset.open(fresh)
    described = json.loads((tiny / "dataset.json").read_text())
    described["classes"][0], described["classes"][1] = described["classes"][1], described["classes"][0]
    described.pop("sha256", None)
    described["fingerprint"] = fingerprint(described, hashlib.sha256((tiny / "clips.npy").read_bytes()).hexdigest())
    store.put("bucket", "data/mocap_rgbd/dataset.json", json.dumps(described).encode())
    second = PreparedDataset.open(fresh)
    assert second.classes[:2] == first.classes[1::-1]
    assert second.directory != first.directory and second.fingerprint != first.fingerprint


def test_what_is_damaged_in_the_bucket_is_refused_and_not_kept(store, fresh, tiny):
    name = next(name for name in files(json.loads((tiny / "dataset.json").read_text())) if name.startswith("rgb/"))
    content = bytearray(store.buckets["bucket"][f"data/mocap_rgbd/{name}"].content)
    content[len(content) // 2] ^= 1
    store.put("bucket", f"data/mocap_rgbd/{name}", bytes(content))
    with pytest.raises(DataError, match=f"{name} is not what dataset.json says"):
        PreparedDataset.open(fresh)
    assert not list(copies().glob(f"*/mocap_rgbd/{name}*"))
    del store.buckets["bucket"][f"data/mocap_rgbd/{name}"]
    with pytest.raises(DataError, match=f"{name} is missing"):
        PreparedDataset.open(fresh)


def test_no_dataset(store, fresh):
    with pytest.raises(DataError, match="no prepared dataset at gs://bucket/data/nothing"):
        PreparedDataset.open(fresh.parent / "nothing")
    store.put("bucket", "data/mocap_rgbd/dataset.json", b'{"name": ')
    with pytest.raises(DataError, match=r"gs://bucket/data/mocap_rgbd/dataset.json is damaged"):
        PreparedDataset.open(fresh)


def test_two_processes_of_a_host_make_one_copy(store, fresh, tiny):
    program = "import sys; from hallujax.data.records import PreparedDataset as P; print(P.open(sys.argv[1]).verify())"
    command = [sys.executable, "-c", program, str(fresh)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == "[]\n" and "copied to" in said[1] and said[1].endswith("[]\n")
    assert fetched(store) == files(json.loads((tiny / "dataset.json").read_text()))
