"""The rendered benchmark: reproducible, complete or absent, and physically plausible."""

import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from data_prep import engine, writer
from data_prep.contact_sheet import contact_sheet
from data_prep.mocap_rgbd import PRESETS, DepthNoise, build, cameras, motion, noise, prepare, rotations
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError

ROOT = pathlib.Path(__file__).parents[2]


def _digests(directory):
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_bytes_do_not_depend_on_the_workers(tiny, tmp_path):
    alone = prepare(tmp_path, preset="tiny", workers=1, progress=False)
    assert _digests(alone) == _digests(tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["mocap_rgbd"]


def test_complete_dataset_is_left_alone(tiny, monkeypatch, capsys):
    monkeypatch.setattr(engine, "write", lambda *_: pytest.fail("rendered again"))
    assert prepare(tiny.parent, preset="tiny") == tiny
    assert "already complete" in capsys.readouterr().out
    with pytest.raises(UsageError, match="something else than mocap_rgbd tiny, seed 1"):
        prepare(tiny.parent, preset="tiny", seed=1)


def test_goes_on_behind_finished_shards(tiny, tmp_path, monkeypatch):
    """The first shard of an interrupted run is kept, a half-written file is not taken for one."""
    identity = json.loads((tiny / "dataset.json").read_text())["identity"]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    for modality in ("rgb", "depth", "joints"):
        folder = tmp_path / f".mocap_rgbd-{key}.partial" / modality / "1.0.0"
        folder.mkdir(parents=True)
        first, second = sorted((tiny / modality / "1.0.0").glob("*array_record*"))
        (folder / first.name).write_bytes(first.read_bytes())
        (folder / f"{second.name}.partial").write_bytes(b"half")
    receipt = tmp_path / f".mocap_rgbd-{key}.partial" / "receipts" / "00000.json"
    receipt.parent.mkdir()
    receipt.write_text("null")
    rendered = []
    run = engine.processes
    monkeypatch.setattr(engine, "processes", lambda *a: (rendered.extend(a[2]), run(*a))[1])
    assert _digests(prepare(tmp_path, preset="tiny", progress=False)) == _digests(tiny)
    assert rendered == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_die_with_their_parent(tmp_path, how):
    """However it ends; after Ctrl-C nothing half-written stays behind either."""
    # A shell starts background jobs deaf to Ctrl-C, and a suite in the background would hand that on.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = (
        f"{listen}; from data_prep.mocap_rgbd import prepare; import sys; prepare(sys.argv[1], 'standard', workers=2)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    parent = subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    group = parent.pid

    def members():
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.parent.name))
        return found

    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*.partial*/*/*/*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(members()) >= 3
        parent.send_signal(how)
        parent.wait()
        # Of its own: on a loaded machine the start alone may have used up the first one, and multiprocessing's resource
        # tracker leaves only when it has seen its pipe close.
        deadline = time.monotonic() + 60
        while members() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert members() == []
        assert not (tmp_path / "mocap_rgbd").exists()
        assert how == signal.SIGKILL or not list(tmp_path.iterdir())
    finally:
        for process in members():
            os.kill(process, signal.SIGKILL)


def test_errors_for_people(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"unknown preset 'huge'.*tiny, quick, standard, full"):
        prepare(tmp_path, preset="huge")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'hallujax\[demo\]'"):
        prepare(tmp_path)


def test_full_disk_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no space left"), writer.explain_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_number_of_clips():
    assert PRESETS["quick"].clips == 900
    assert PRESETS["standard"].clips == 3600
    ids = [what.clip_id(1) for what in build._performances(PRESETS["full"])]
    assert len(set(ids)) == PRESETS["full"].clips / 3


def test_every_performance_is_seen_by_three_cameras(tiny):
    index = PreparedDataset.open(tiny).index
    assert len(set(index["clip"].tolist())) == len(index)
    seen = {}
    for row in index:
        seen.setdefault((row["subject"], row["repetition"], row["label"]), []).append(int(row["camera"]))
    assert set(map(tuple, seen.values())) == {(1, 2, 3)}


def test_rooms_recur_and_say_nothing_about_the_action(tmp_path):
    """With one room a camera sees the same walls in every clip; with twelve, one action has many."""
    small = dataclasses.replace(PRESETS["tiny"], performers=2, actions=("jump", "walk"), shards=1)
    plain = {"rgb_noise": 0.0, "flicker": 0.0, "exposure": (1.0, 1.0), "shadow": (0.0, 0.0), "ambient": (1.0, 1.0)}
    corners = {}
    for rooms in (1, 12):
        difficulty = dataclasses.replace(small.difficulty, rooms=rooms, clutter=(0, 0), posters=(0, 0), **plain)
        out = prepare(tmp_path / str(rooms), preset=dataclasses.replace(small, difficulty=difficulty), progress=False)
        dataset = PreparedDataset.open(out)
        first = np.flatnonzero(dataset.index["camera"] == 1)
        pictures = dataset.read("rgb", first, np.zeros((len(first), 1), int))[:, 0].astype(float)
        # The gain of the white balance differs from clip to clip: hues of the upper left corner, not brightness.
        mean = pictures[:, :5, :5].mean(axis=(1, 2))
        corners[rooms] = mean / mean.sum(axis=1, keepdims=True)
    assert np.ptp(corners[1], axis=0).max() < 0.1 < np.ptp(corners[12], axis=0).max()


def test_depth_is_metric_and_agrees_with_the_joints(tiny):
    """The surface in front of a joint is nearer than the joint, by no more than a body is thick."""
    dataset = PreparedDataset.open(tiny)
    rows, frames = np.arange(48), np.tile(np.arange(5), (48, 1))
    depth, joints = dataset.read("depth", rows, frames), dataset.read("joints", rows, frames)
    returned = depth > 0
    assert 0.85 < returned.mean() < 1
    assert depth[returned].min() > 800
    assert depth.max() <= 8000
    u, v = np.round(joints[..., 3]).astype(int), np.round(joints[..., 4]).astype(int)
    assert u.min() >= 0 and v.min() >= 0 and u.max() < 32 and v.max() < 32
    clip, frame = np.indices(u.shape)[:2]
    surface = depth[clip, frame, v, u].astype(float)
    behind = joints[..., 2] * 1000 - surface
    torso = [0, 1, 2]
    hit = surface[..., torso] > 0
    assert np.mean(np.abs(behind[..., torso][hit] - 100) < 200) > 0.9
    fx = dataset.info["intrinsics"]["fx"]
    cx = dataset.info["intrinsics"]["cx"]
    assert np.allclose(joints[..., 3], fx * joints[..., 0] / joints[..., 2] + cx, atol=1e-3)


def test_depth_noise_grows_with_distance_squared():
    rng = np.random.default_rng(0)
    quiet = dataclasses.replace(DepthNoise(), speckle=0.0)
    spread = []
    for metres in (2.0, 4.0):
        plane = np.full((200, 200), metres)
        sensed = noise.sense_depth(rng, plane, np.ones_like(plane), quiet)
        assert sensed.dtype == np.uint16 and sensed.min() > 0
        assert abs(sensed.mean() - 1000 * metres) < 5
        spread.append(sensed.std())
    # Noise of standard deviation 1.4 mm and steps of 2.85 mm at one metre, both times Z squared.
    expected = 4 * np.hypot(1.4, 2.85 / np.sqrt(12))
    assert spread[0] == pytest.approx(expected, rel=0.05)
    assert spread[1] / spread[0] == pytest.approx(4, rel=0.05)


def test_depth_is_lost_at_edges_and_far_away():
    rng = np.random.default_rng(0)
    depth = np.full((60, 60), 2.0)
    depth[:, 30:], depth[:, 50:] = 4.0, 9.0
    lost = noise.sense_depth(rng, depth, np.ones_like(depth), DepthNoise()) == 0
    assert lost[:, 50:].all()
    assert lost[:, 29:31].mean() == pytest.approx(DepthNoise().edge_dropout, abs=0.1)
    assert lost[:, :28].mean() < 0.02


def test_a_slanted_plane_has_no_edges():
    """Disparity is linear over a plane, so a floor seen at a grazing angle is not taken for an edge."""
    disparity = np.tile(np.linspace(0.12, 0.6, 64)[:, None], (1, 64))
    assert not noise._edges(disparity, 0.2).any()


def test_camera_projects_its_own_rays():
    rng = np.random.default_rng(1)
    eye, target = rng.normal(size=3) * 3, rng.normal(size=3)
    camera = cameras.Camera(eye, cameras.look_at(eye, target, 0.1), 32)
    xyz, uv = camera.project(eye + 2.5 * camera.rays(1))
    v, u = np.mgrid[:32, :32]
    assert np.allclose(xyz[..., 2], 2.5)
    assert np.allclose(uv, np.stack([u, v], axis=-1))


def test_mirroring_twice_changes_nothing():
    import pybullet_data

    data = pybullet_data.getDataPath()
    poses = motion.sample(data, "kick", np.linspace(0, 1, 4))
    twice = motion.mirror(motion.mirror(poses))
    once = motion.mirror(poses)
    for field in dataclasses.fields(poses):
        assert np.array_equal(getattr(twice, field.name), getattr(poses, field.name))
    # A reflection turns a rotation R into M R M with M = diag(1, 1, -1).
    reflect = np.diag([1.0, 1.0, -1.0])
    expected = reflect @ rotations.matrix(poses.orientation) @ reflect
    assert np.allclose(rotations.matrix(once.orientation), expected, atol=1e-6)


def test_cyclic_motion_goes_on():
    """A second lap of walking starts where the first ended."""
    import pybullet_data

    data = pybullet_data.getDataPath()
    times = np.linspace(0, 3.0, 200)
    steps = np.diff(motion.sample(data, "walk", times).position[:, 0])
    assert steps.min() > 0
    assert steps.max() < 3 * np.median(steps)


def test_contact_sheet(tiny, tmp_path):
    picture = Image.open(contact_sheet(tiny, tmp_path / "sheet.png", clips=4, zoom=2))
    assert picture.size == (2 * 5 * 32 * 2, 2 * (3 * 32 * 2 + 14))
