"""NTU RGB+D: names and protocols of the whole set, and samples written in its formats."""

import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_files import write_video
from raw_ntu import DEPTH_NAME, HALF, RGB_TO_DEPTH, body_points, centre, skeleton_text, write_sample

from data_prep import raw
from data_prep.ntu import alignment, names, skeleton
from data_prep.ntu import dataset as ntu
from hallujax.data.protocols import PROTOCOLS
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError

SIZE = 64
COLUMNS = ("setup", "camera", "subject", "repetition", "label")


def prepare(tree, out, name="ntu_rgbd60", **options):
    return PreparedDataset.open(raw.prepare(name, tree, out, **{"size": SIZE, "workers": 1} | options))


def summary(out):
    return {
        entry["clip"]: (entry["status"], entry["reason"]) for entry in json.loads((out / "summary.json").read_text())
    }


def whole_set(setups):
    samples = list(names.samples(setups))
    index = np.zeros(len(samples), [("clip", "S20")] + [(column, np.int32) for column in COLUMNS])
    index["clip"] = ["S{:03}C{:03}P{:03}R{:03}A{:03}".format(*sample).encode() for sample in samples]
    for column, values in zip(COLUMNS, np.array(samples).T, strict=True):
        index[column] = values
    return index


def test_the_counts_of_the_60():
    """40,320 and 16,560, 37,920 and 18,960 are the published sizes; 2,160 and 1,860 the authors' validation parts."""
    index = whole_set(17)
    assert len(set(index["clip"])) == 56_880
    assert b"S001C001P001R001A001" in index["clip"] and b"S017C003P020R002A060" in index["clip"]
    expected = {
        "cross_subject": (40_320 - 2_160, 2_160, 16_560),
        "cross_subject_5_percent": (40_320 - 60 * 33, 60 * 33, 16_560),
        "cross_view": (37_920 - 1_860, 1_860, 18_960),
    }
    for protocol, counts in expected.items():
        parts = PROTOCOLS["ntu_rgbd60"][protocol](index)
        assert tuple(int(mask.sum()) for mask in parts.values()) == counts, protocol
        assert (sum(mask.astype(int) for mask in parts.values()) == 1).all()
    held = PROTOCOLS["ntu_rgbd60"]["cross_view"](index)["validation"]
    assert np.bincount(index["label"][held]).tolist() == [0] + [31] * 60


def test_the_counts_of_the_120():
    """114,480 is published, the parts follow from the lists of subjects and from the setups' parity; 5 % of a class is
    33 or 19 clips of 672 or 384 (subjects), 23 or 22 of 468 or 444 (setups)."""
    index = whole_set(32)
    assert len(set(index["clip"])) == 114_480 and len(set(index["subject"])) == 106
    expected = {
        "cross_subject": (61_200, 2_160, 51_120),
        "cross_subject_5_percent": (63_360 - 60 * 33 - 60 * 19, 60 * 33 + 60 * 19, 51_120),
        "cross_setup": (54_720 - 60 * 23 - 60 * 22, 60 * 23 + 60 * 22, 59_760),
    }
    for protocol, counts in expected.items():
        parts = PROTOCOLS["ntu_rgbd120"][protocol](index)
        assert tuple(int(mask.sum()) for mask in parts.values()) == counts, protocol
    assert set(index["setup"][parts["test"]] % 2) == {1} and not (index["setup"][parts["validation"]] % 2).any()


def test_a_clip_that_is_missing_moves_no_other():
    index = whole_set(2)
    kept = np.arange(len(index)) % 7 > 0
    whole = PROTOCOLS["ntu_rgbd60"]["cross_view"](index)
    partial = PROTOCOLS["ntu_rgbd60"]["cross_view"](index[kept])
    assert not (partial["validation"] & whole["test"][kept]).any()
    lost = (whole["validation"][kept] & ~partial["validation"]).sum()
    assert lost <= 60  # at most one a class, for which the smaller class has no place


def test_class_names():
    classes = ntu.class_names()
    assert len(classes) == len(set(classes)) == 120
    assert (classes[0], classes[59], classes[119]) == (
        "drink water",
        "walking apart from each other",
        "finger-guessing game",
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Three whole samples of two cameras; copy it before changing it."""
    root = tmp_path_factory.mktemp("ntu") / "raw"
    for name in ("S001C002P003R001A008", "S001C002P003R002A008", "S002C003P007R001A060"):
        write_sample(root, name)
    return root


def test_samples_come_out_cut_and_in_line(tree, tmp_path, capsys):
    dataset = prepare(tree, tmp_path)
    assert dataset.modalities == ("rgb", "depth", "joints") and len(dataset.classes) == 60 and dataset.verify() == []
    columns = ["clip", "label", "subject", "camera", "setup", "repetition"]
    assert dataset.index[columns][1].tolist() == (b"S001C002P003R002A008", 7, 3, 2, 1, 2)
    assert "3 clips: 3 kept, 0 repaired, 0 refused" in capsys.readouterr().out
    # 600 joints of camera 2 are enough for a fit, 300 of camera 3 are not.
    fits = dataset.info["alignment"]
    assert fits["S001C002"]["joints"] == 600 and fits["S001C002"]["residual_pixels"] < 0.01
    assert np.allclose(fits["S001C002"]["rgb_to_depth"], RGB_TO_DEPTH, atol=1e-3)
    assert fits["S002C003"] == {"rgb_to_depth": alignment.PUBLISHED[3].tolist(), "joints": 0, "residual_pixels": 0.0}

    frames = [range(12)]
    rgb, depth, joints = (dataset.read(name, [0], frames)[0] for name in ("rgb", "depth", "joints"))
    assert depth.dtype == np.uint16 and set(np.unique(depth)) == {0, *range(2500, 2512)}
    bright, near = rgb[..., 0] > 125, depth > 0
    assert (bright & near).sum() / (bright | near).sum() > 0.9
    # The square is 1.25 times the height of the box, 520 pixels, in the middle of its way.
    side, middle = 650, (centre(0) + centre(11)) / 2
    for t in (0, 11):
        expected = (centre(t) + body_points() * HALF + 0.5 - middle + side / 2) * SIZE / side - 0.5
        assert np.allclose(joints[t, 0, :, 3:], expected, atol=0.1)
        corner = joints[t, 0, :4, 3:].mean(axis=0)
        assert np.allclose(np.argwhere(bright[t]).mean(axis=0)[::-1], corner, atol=1.0)
    assert not joints[:, 1].any() and np.allclose(joints[:, 0, :, 2], 2.5)


def test_full_size_full_depth_and_one_folder_deeper(tmp_path):
    """As the archives of the 120 unpack; setup 18 and later is not of the 60."""
    deeper = tmp_path / "raw" / "nturgbd_s001"
    write_sample(deeper, "S001C001P001R001A001", frames=2, scale=1)
    write_sample(deeper, "S018C001P008R001A061", frames=2)
    full = deeper / "nturgb+d_depth"
    (deeper / "nturgb+d_depth_masked").rename(full)
    for folder in full.iterdir():
        for file in folder.iterdir():
            file.rename(file.with_name(file.name[1:]))
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    assert len(dataset) == 1 and dataset.info["depth_maps"] == "nturgb+d_depth"
    assert (dataset.read("rgb", [0], [[0]])[0, 0, SIZE // 2, SIZE // 2] > 150).all()
    both = prepare(tmp_path / "raw", tmp_path / "out", "ntu_rgbd120", modalities=("rgb",))
    assert both.index["label"].tolist() == [0, 60] and both.modalities == ("rgb",) and len(both.classes) == 120


def test_samples_without_skeletons_keep_their_whole_frame(tree, tmp_path, capsys):
    changed = shutil.copytree(tree, tmp_path / "raw")
    (changed / "nturgb+d_skeletons/S001C002P003R001A008.skeleton").unlink()
    (changed / "nturgb+d_skeletons/S002C003P007R001A060.skeleton").write_text("3\n0\n0\n0\n")
    dataset = prepare(changed, tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["S001C002P003R001A008"] == ("kept", "no skeleton file: whole frame")
    assert found["S002C003P007R001A060"] == ("kept", "no body in the skeleton file: whole frame")
    assert dataset.length("joints").tolist() == [0, 12, 0] and dataset.length("rgb").tolist() == [12, 12, 12]
    assert "1 kept: no skeleton file: whole frame" in capsys.readouterr().out
    rgb = dataset.read("rgb", [0], [[0]])[0, 0].astype(int).sum(axis=-1)
    shown = np.flatnonzero(rgb.mean(axis=1) > 30)  # 1920x1080 in a square: bars above and below
    assert abs(len(shown) - SIZE * 1080 / 1920) <= 3 and abs(shown.mean() - (SIZE - 1) / 2) < 1


def test_infrared_on_request(tree, tmp_path):
    changed = shutil.copytree(tree, tmp_path / "raw")
    for folder in (changed / "nturgb+d_depth_masked").iterdir():
        seen = np.stack([np.asarray(Image.open(path)) > 0 for path in sorted(folder.iterdir())])
        frames = np.repeat(np.where(seen, 240, 10).astype(np.uint8)[..., None], 3, axis=-1)
        write_video(changed / "nturgb+d_ir" / f"{folder.name}_ir.avi", frames)
    assert prepare(changed, tmp_path / "without").modalities == ("rgb", "depth", "joints")
    dataset = prepare(changed, tmp_path / "with", modalities=("rgb", "infrared"))
    infrared, rgb = (dataset.read(name, [0], [range(12)])[0, ..., 0] > 125 for name in ("infrared", "rgb"))
    assert (infrared & rgb).sum() / (infrared | rgb).sum() > 0.85
    with pytest.raises(UsageError, match="no folder of infrared"):
        prepare(tree, tmp_path / "no", modalities=("rgb", "infrared"))


def spoil(root, name, how):
    video = root / "nturgb+d_rgb" / f"{name}_rgb.avi"
    depth = root / "nturgb+d_depth_masked" / name
    text = root / "nturgb+d_skeletons" / f"{name}.skeleton"
    if how == "truncated AVI":
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    elif how == "zero-byte PNG":
        (depth / DEPTH_NAME.format(4)).write_bytes(b"")
    elif how == "8-bit depth":
        Image.fromarray(np.ones((424, 512), np.uint8)).save(depth / DEPTH_NAME.format(4))
    elif how == "small depth":
        Image.fromarray(np.ones((240, 320), np.uint16)).save(depth / DEPTH_NAME.format(1))
    elif how == "square RGB":
        write_video(video, np.zeros((12, 128, 128, 3), np.uint8))
    elif how == "short skeleton":
        text.write_text("\n".join(text.read_text().split("\n")[:-10]))
    elif how == "NaN":
        text.write_text(text.read_text().replace("2.5", "NaN", 3))
    elif how == "empty skeleton":
        text.write_text("")
    elif how == "no depth":
        shutil.rmtree(depth)
    elif how == "half the depth":
        for number in range(1, 7):
            (depth / DEPTH_NAME.format(number)).unlink()
    elif how == "twice":
        (root / "again" / "nturgb+d_rgb").mkdir(parents=True)
        shutil.copy(video, root / "again" / "nturgb+d_rgb")
    elif how == "link out":
        shutil.move(video, root.parent / "elsewhere.avi")
        video.symlink_to(root.parent / "elsewhere.avi")


BAD = {
    "S001C001P001R001A001": ("truncated AVI", "damaged video|truncated, [0-9]+ of 12 frames"),
    "S001C001P001R001A002": ("zero-byte PNG", "MDepth-00000004.png: empty file"),
    "S001C001P001R001A003": ("8-bit depth", "MDepth-00000004.png: 16-bit grey is expected, it is L"),
    "S001C001P001R001A004": ("small depth", "MDepth-00000001.png: 320x240 pixels, 512x424 is expected"),
    "S001C001P001R001A005": ("square RGB", "128x128 pixels, 1920x1080 or that shape"),
    "S001C001P001R001A006": ("short skeleton", "it ends within frame 12 of 12"),
    "S001C001P001R001A007": ("NaN", "a joint of frame 1 is not finite"),
    "S001C001P001R001A008": ("empty skeleton", "empty file"),
    "S001C001P001R001A009": ("no depth", "^no depth$"),
    "S001C001P001R001A010": ("half the depth", "frames do not pair: rgb 12, depth 6, joints 12, 6 in common"),
    "S001C001P001R001A011": ("twice", "two of rgb: .*again.*|two of rgb: nturgb"),
    "S001C001P001R001A012": ("link out", "S001C001P001R001A012_rgb.avi leaves its folder"),
    "S001C001P001R001A061": ("", "action 61 is outside 1 to 60"),
    "S001C004P001R001A001": ("", "camera 4, repetition 1"),
}


def test_bad_samples_are_left_out_with_their_reason(tree, tmp_path, capsys):
    changed = shutil.copytree(tree, tmp_path / "raw")
    write_sample(changed, "S001C001P002R001A001")
    for name, (how, _) in BAD.items():
        for entry in list(changed.glob("nturgb+d_*/S001C001P002R001A001*")):
            copy = entry.with_name(entry.name.replace("S001C001P002R001A001", name))
            shutil.copytree(entry, copy) if entry.is_dir() else shutil.copy(entry, copy)
        spoil(changed, name, how)
    (changed / "nturgb+d_rgb/readme.avi").write_text("not a sample")
    dataset = prepare(changed, tmp_path / "out")
    found = summary(tmp_path / "out")
    for name, (how, reason) in BAD.items():
        status, why = found.pop(name)
        assert status == "refused" and "\n" not in why, how
        with pytest.raises(DataError, match=reason):
            raise DataError(why)
    assert {status for status, _ in found.values()} == {"kept"} and len(found) == len(dataset) == 4
    assert f"18 clips: 4 kept, 0 repaired, {len(BAD)} refused" in capsys.readouterr().out


def test_a_frame_without_partner_is_left_out(tree, tmp_path):
    """The fourth depth map of twenty is missing: so is the fourth frame, of all modalities."""
    write_sample(tmp_path / "raw", "S001C001P001R001A001", frames=20)
    (tmp_path / "raw/nturgb+d_depth_masked/S001C001P001R001A001" / DEPTH_NAME.format(4)).unlink()
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    assert summary(tmp_path / "out")["S001C001P001R001A001"] == (
        "repaired",
        "frames left out that have no partner: rgb 20, depth 19, joints 20, 19 in common",
    )
    depth = dataset.read("depth", [0], [range(19)])[0].max(axis=(1, 2))
    assert depth.tolist() == [2500 + t for t in range(20) if t != 3]
    x = dataset.read("joints", [0], [range(19)])[0, :, 0, 0, 3]
    assert np.diff(x)[2] == pytest.approx(2 * np.diff(x)[1], rel=1e-3)


def test_trees_that_are_none(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="unpack archives first"):
        prepare(tmp_path / "x.zip", tmp_path / "out")
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match="no samples"):
        prepare(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UsageError, match="has no flow"):
        prepare(tmp_path / "raw", tmp_path / "out", modalities=("flow",))


def test_workers_can_be_given_the_reader(tree):
    found = ntu.scan(tree, name="ntu_rgbd60", size=SIZE)
    read = pickle.loads(pickle.dumps(found.read))
    assert read(found.clips[0]).frames["rgb"] == found.read(found.clips[0]).frames["rgb"]
    assert found.info["samples_of_the_set"] == 56_880


def walk(t, width=0.4, offset=0.0):
    """25 joints of a body `width` times as wide as high."""
    return centre(t) + offset + body_points() * [260 * width, 260]


def test_the_performers_among_several_bodies(tmp_path):
    """The one that moves comes first, furniture and flickers of a few frames do not count, a third is left out."""
    still, chair = walk(0, offset=300.0), walk(0, width=2.0)
    frames = []
    for t in range(30):
        bodies = [("chair", chair), ("still", still), ("walker", walk(t))]
        bodies += [("flicker", walk(40 * t))] if t < 3 else []
        frames.append(bodies)
    path = tmp_path / "a.skeleton"
    path.write_text(skeleton_text(frames))
    length, bodies = skeleton.read(path)
    assert length == 30 and [len(body.frames) for body in bodies] == [30, 30, 30, 3]
    chosen = skeleton.performers(bodies, length)
    assert [len(body.frames) for body in chosen] == [30, 30]
    assert np.allclose(chosen[0].joints[:, :, 5:7], [walk(t) for t in range(30)], atol=1e-3)
    assert np.allclose(chosen[1].joints[0, :, 5:7], still, atol=1e-3)
    assert [skeleton.performers(bodies[:1], length)[0] is bodies[0]] == [True]  # a chair is better than nobody


def test_alignment_forgives_outliers_and_refuses_nonsense():
    rng = np.random.default_rng(0)

    def body(depth_of):
        rgb = rng.uniform([200, 50], [1700, 1000], (40, 25, 2))
        joints = np.concatenate([np.zeros((40, 25, 3)), depth_of(rgb), rgb], axis=-1)
        return skeleton.Body(np.arange(40), joints, np.ones((40, 25), bool))

    def mapped(rgb):
        depth = np.concatenate([rgb, np.ones((40, 25, 1))], -1) @ RGB_TO_DEPTH.T + rng.normal(0, 0.5, rgb.shape)
        depth[:3] = rng.uniform(1, 400, (3, 25, 2))
        return depth

    found = alignment.fit([body(mapped)], camera=1)
    assert np.allclose(found.matrix[:, :2], RGB_TO_DEPTH[:, :2], atol=2e-3) and found.residual < 1.0
    nonsense = alignment.fit([body(lambda rgb: rng.uniform(1, 400, rgb.shape))], camera=1)
    assert nonsense.joints == 0 and np.array_equal(nonsense.matrix, alignment.PUBLISHED[1])


GOOD = skeleton_text([[("1", walk(0))], [], [("1", walk(2)), ("2", walk(3))]]).split()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_fuzzed_skeletons_are_read_or_refused(tmp_path_factory, data):
    """Whatever is cut out, doubled or replaced: a DataError of one line, or finite joints of at most so many frames."""
    tokens = list(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(tokens) - 1))
        how = data.draw(st.sampled_from(["cut", "drop", "double", "replace"]))
        if how == "cut":
            tokens = tokens[: at + 1]
        elif how == "drop":
            del tokens[at]
        elif how == "double":
            tokens.insert(at, tokens[at])
        else:
            tokens[at] = data.draw(st.sampled_from(["-1", "nan", "1e400", "99999999999", "0", "x", "²", "25", "2.5"]))
        tokens = tokens or ["0"]
    path = tmp_path_factory.mktemp("fuzz") / "a.skeleton"
    path.write_text(" ".join(tokens), encoding="utf-8")
    try:
        length, bodies = skeleton.read(path)
    except DataError as error:
        assert "\n" not in str(error) and str(error).startswith("a.skeleton: ")
    else:
        assert length <= len(tokens) and all(np.isfinite(body.joints).all() for body in bodies)
        assert all(body.frames.max() < length for body in bodies)
