"""Joints: normalised, mirrored and read, against the rendered skeletons."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_prep.mocap_rgbd import performers
from data_prep.ntu import names as ntu
from hallujax.data.joints import mirrored_joints, normalize, root_joint
from hallujax.data.pipeline import ClipLoader, evaluation_batches
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, augment
from hallujax.errors import DataError

RNG = np.random.default_rng(0)


def options(**changes):
    plain = {"flip": 0.5, "shift": 2, "downsample": 1, "rgb_normalization": "imagenet", "depth_encoding": "grey"}
    return TransformOptions(**plain | {"depth_near": 500.0, "depth_far": 8000.0} | changes)


def skeletons(clips=3, bodies=2):
    return RNG.normal([0.3, -0.2, 3.0], 0.5, (clips, 4, bodies, 5, 3)).astype(np.float32)


def test_neither_place_nor_size_is_seen():
    bodies = skeletons()
    seen = normalize(bodies, root=1)
    np.testing.assert_allclose(normalize(1.7 * bodies + [0.5, 0.1, -1.0], root=1), seen, atol=1e-5)
    np.testing.assert_allclose(seen[:, 0, 0, 1], 0, atol=1e-6)
    # What is seen is the clip itself, moved and scaled: angles stay, so does the way from frame to frame.
    turned, original = (np.linalg.norm(np.diff(x[:, :, 0, 1], axis=1), axis=-1) for x in (seen, bodies))
    np.testing.assert_allclose(turned / original, np.broadcast_to((turned / original)[:, :1], turned.shape), rtol=1e-4)
    distances = np.linalg.norm(seen - seen[..., 1:2, :], axis=-1)
    np.testing.assert_allclose(distances.mean((1, 2, 3)), 1, rtol=1e-5)


def test_absent_bodies_stay_absent_and_do_not_count():
    bodies = skeletons()
    alone = normalize(bodies[:, :, :1], root=0)
    bodies[:, :, 1] = 0
    np.testing.assert_allclose(normalize(bodies, root=0)[:, :, :1], alone, rtol=1e-6)
    assert not normalize(bodies, root=0)[:, :, 1].any()
    late = bodies.copy()
    late[0, 0] = 0  # nobody in the first frame: the second has the origin
    np.testing.assert_allclose(normalize(late, root=0)[0, 1, 0, 0], 0, atol=1e-6)
    assert not normalize(np.zeros_like(bodies), root=0).any()


def test_one_body_has_an_axis_of_its_own_and_pixels_are_left_out():
    records = np.concatenate([skeletons(bodies=1)[:, :, 0], RNG.normal(size=(3, 4, 5, 2)).astype(np.float32)], -1)
    assert normalize(records, root=0).shape == (3, 4, 1, 5, 3)
    np.testing.assert_array_equal(normalize(records, 0), normalize(records[..., None, :, :3], 0))


@pytest.mark.parametrize("names", [performers.LINKS, ntu.JOINTS])
def test_a_mirror_exchanges_the_sides_of_known_skeletons(names):
    mirror = mirrored_joints("known", names)
    assert [mirror[i] for i in mirror] == list(range(len(names)))
    for i, name in enumerate(names):
        assert names[mirror[i]] == name.replace("left", "?").replace("right", "left").replace("?", "right")
    assert names[root_joint("known", names)] in ("root", "spine base")
    with pytest.raises(DataError, match="lack 'right hip'"):
        mirrored_joints("known", ["root", "left hip"])
    with pytest.raises(DataError, match="is a root"):
        root_joint("known", ["head"])


def test_joints_are_flipped_with_the_frames_and_not_shifted():
    clips = {
        "rgb": RNG.integers(0, 256, (40, 4, 8, 8, 3), dtype=np.uint8),
        "joints": normalize(skeletons(40), 0),
        "sample": np.arange(40, dtype=np.uint32),
    }
    moved = augment(clips, jax.random.key(0), options(shift=0), mirror=(0, 2, 1, 4, 3))
    flipped = ~np.array([np.array_equal(a, b) for a, b in zip(moved["rgb"], clips["rgb"], strict=True)])
    assert 8 < flipped.sum() < 32
    mirrored = clips["joints"][..., [0, 2, 1, 4, 3], :] * [-1, 1, 1]
    expected = np.where(flipped[:, None, None, None, None], mirrored, clips["joints"])
    np.testing.assert_array_equal(moved["joints"], expected)
    shifted = augment(clips, jax.random.key(0), options(shift=2), mirror=(0, 2, 1, 4, 3))
    np.testing.assert_array_equal(shifted["joints"], expected)


def test_a_mirrored_skeleton_is_one_that_turns_the_other_way():
    """The flip is a reflection: a turn to the left becomes one to the right, bones keep their length."""
    names = performers.LINKS
    pose = RNG.normal(size=(1, 1, 1, len(names), 3)).astype(np.float32)
    turn = Rotation.from_euler("y", 30, degrees=True).as_matrix().astype(np.float32)
    back = turn.T
    always, mirror = options(flip=1.0, shift=0), mirrored_joints("known", names)

    def flip(joints):
        clip = {"joints": joints, "sample": np.zeros(1, np.uint32)}
        return np.asarray(augment(clip, jax.random.key(0), always, mirror)["joints"])

    np.testing.assert_allclose(flip(pose @ turn.T), flip(pose) @ back.T, atol=1e-5)
    left = [names.index(n) for n in ("left_hip", "left_knee")]
    right = [names.index(n) for n in ("right_hip", "right_knee")]
    bone = np.linalg.norm(pose[0, 0, 0, left[0]] - pose[0, 0, 0, left[1]])
    np.testing.assert_allclose(np.linalg.norm(np.diff(flip(pose)[0, 0, 0, right], axis=0)), bone, rtol=1e-5)


def test_the_loader_reads_them_normalised_and_flips_agree_with_pixels(tiny):
    """The rendered joints' pixel positions mirror to where their flipped coordinates project."""
    dataset = PreparedDataset.open(tiny)
    rows = split(dataset, "cross_subject")["test"][:3]
    loader = ClipLoader(dataset, ("rgb", "joints"), frames=3, sampling="uniform", seed=0)
    batch = next(evaluation_batches(loader, rows, batch_size=3))
    assert batch["joints"].shape == (3, 3, 1, 15, 3) and batch["joints"].dtype == np.float32
    raw = dataset.read("joints", rows, [[0, 2, 4]] * 3)
    np.testing.assert_array_equal(batch["joints"], normalize(raw, 0))
    focal, centre = dataset.info["intrinsics"]["fx"], dataset.info["intrinsics"]["cx"]
    xyz, pixels = raw[..., :3], raw[..., 3:]
    np.testing.assert_allclose(focal * xyz[..., 0] / xyz[..., 2] + centre, pixels[..., 0], atol=1e-2)
    width = dataset.frame_size[1]
    np.testing.assert_allclose(focal * -xyz[..., 0] / xyz[..., 2] + centre, width - 1 - pixels[..., 0], atol=1e-2)
