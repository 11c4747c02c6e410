"""Your own clips: from videos and pictures to a dataset that trains."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from raw_files import moving_square, write_pictures, write_video

from configs import admd
from data_prep import raw
from hallujax.cli import main
from hallujax.data.protocols import PROTOCOLS, split
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError
from hallujax.experiment import read_config


def prepare(tree, out, **options):
    return PreparedDataset.open(raw.prepare("folder", tree, out, **{"size": 32, "workers": 1} | options))


def summary(out):
    return {
        entry["clip"]: (entry["status"], entry["reason"]) for entry in json.loads((out / "summary.json").read_text())
    }


def write_clip(folder, frames=6, height=48, width=64, seed=0):
    rgb, depth = moving_square(frames, height, width, seed)
    write_video(folder / "rgb.avi", rgb)
    write_pictures(folder / "depth", depth)
    return rgb, depth


@pytest.fixture
def tree(tmp_path):
    for label in ("jump", "walk"):
        for number in range(3):
            write_clip(tmp_path / "raw" / label / f"clip{number}", seed=number)
    return tmp_path / "raw"


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """`mocap_rgbd` tiny as somebody might have recorded it: MP4 and 16-bit PNGs, with a CSV."""
    dataset = PreparedDataset.open(tiny)
    folder = tmp_path_factory.mktemp("exported")
    lines = ["clip,label,subject,camera,split,rgb,depth"]
    parts = split(dataset, "cross_subject")
    for part, rows in parts.items():
        for row in rows:
            clip = dataset.clip_id(row)
            write_video(folder / "rgb" / f"{clip}.mp4", dataset.read("rgb", [row], [range(5)])[0], codec="libx264")
            write_pictures(folder / "depth" / clip, dataset.read("depth", [row], [range(5)])[0])
            entry = dataset.index[row]
            label = dataset.classes[entry["label"]]
            lines.append(f"{clip},{label},p{entry['subject']},{entry['camera']},{part},rgb/{clip}.mp4,depth/{clip}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_what_comes_out_is_what_went_in(exported, tiny, tmp_path):
    """Depth bit for bit, RGB up to the video's compression, labels, subjects, cameras and splits as in the CSV."""
    dataset, original = prepare(exported, tmp_path), PreparedDataset.open(tiny)
    assert dataset.name == "folder" and dataset.classes == original.classes and dataset.verify() == []
    assert dataset.info["subjects"] == {"1": "p1", "2": "p2", "3": "p3", "4": "p4"}
    order = [list(original.index["clip"]).index(clip) for clip in dataset.index["clip"]]
    for field in ("label", "subject", "camera"):
        assert np.array_equal(dataset.index[field], original.index[field][order])
    rows, frames = np.arange(48), np.tile(np.arange(5), (48, 1))
    assert np.array_equal(dataset.read("depth", rows, frames), original.read("depth", order, frames))
    difference = dataset.read("rgb", rows, frames).astype(int) - original.read("rgb", order, frames)
    assert np.abs(difference).mean() < 6
    parts, wanted = split(dataset, "own"), split(original, "cross_subject")
    for name in parts:
        assert set(dataset.index["clip"][parts[name]]) == set(original.index["clip"][wanted[name]])


def test_trains_by_the_command_line(exported, tmp_path):
    """Prepared and trained by commands: one stage, two steps of it."""
    assert main(["prepare", "folder", f"--raw={exported}", f"--out={tmp_path}/data", "--size=32", "--workers=1"]) == 0
    config = pathlib.Path(__file__).parent / "one_stage_config.py"
    command = ["train", f"--config={config}:folder,own", f"--workdir={tmp_path}/run"]
    assert main([*command, f"--config.data.directory={tmp_path}/data"]) == 0
    stage = json.loads((tmp_path / "run" / "depth" / "stage.json").read_text())
    assert stage["steps"] == 2 and 0 <= stage["best_validation_accuracy"] <= 1


def test_the_shipped_configurations_take_folders():
    experiment = read_config(admd.get_config("folder,own"))
    assert (experiment.data.dataset, experiment.data.protocol) == ("folder", "own")


def test_folders_and_videos(tree, tmp_path):
    """The square in the middle, at the size asked for; a moving patch is at the same place in both modalities."""
    dataset = prepare(tree, tmp_path / "out")
    assert dataset.classes == ["jump", "walk"] and dataset.modalities == ("rgb", "depth") and len(dataset) == 6
    assert dataset.info["frame_size"] == [32, 32]
    rgb, depth = (dataset.read(m, [2], [range(6)])[0] for m in ("rgb", "depth"))
    _, original = moving_square(6, 48, 64, seed=2)
    middle = original[:, :, 8:56]
    picked = np.rint((np.arange(32) + 0.5) * 1.5 - 0.5).astype(int)
    assert np.array_equal(depth, middle[:, picked][:, :, picked])
    near, bright = depth < 2000, rgb[..., 0].astype(int) > 125
    assert (near & bright).sum() / (near | bright).sum() > 0.8


def test_workers_and_restarts_change_no_byte(tree, tmp_path, capsys):
    def digest(out, workers):
        found = raw.prepare("folder", tree, out, size=32, workers=workers)
        return {p.relative_to(found).as_posix(): p.read_bytes() for p in found.rglob("*") if p.is_file()}

    assert digest(tmp_path / "one", 1) == digest(tmp_path / "two", 2)
    capsys.readouterr()
    raw.prepare("folder", tree, tmp_path / "one", size=32)
    assert "already complete, 6 clips: 6 kept, 0 repaired, 0 refused" in capsys.readouterr().out
    with pytest.raises(UsageError, match="something else"):
        raw.prepare("folder", tree, tmp_path / "one", size=48)


def test_what_does_not_pair_is_left_out_and_said(tree, tmp_path, capsys):
    (tree / "jump/clip0/depth/003.png").unlink()  # 1 of 6: too much
    shutil.rmtree(tree / "jump/clip1/depth")
    write_clip(tree / "walk/clip1", frames=30)
    (tree / "walk/clip1/depth/030.png").unlink()
    write_video(tree / "walk/clip2/rgb.mp4", moving_square(6, 48, 64)[0])
    dataset = prepare(tree, tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["jump/clip0"] == (
        "refused",
        "frames do not pair: rgb 6, depth 5, 5 in common",
    )
    assert found["jump/clip1"] == ("refused", "no depth: it has rgb")
    assert found["jump/clip2"] == ("kept", "")
    assert found["walk/clip1"][0] == "repaired" and "29 in common" in found["walk/clip1"][1]
    assert found["walk/clip2"][0] == "refused" and "two sources of rgb" in found["walk/clip2"][1]
    assert dataset.length("rgb").tolist() == dataset.length("depth").tolist() == [6, 6, 29]
    assert "6 clips: 2 kept, 1 repaired, 3 refused" in capsys.readouterr().out
    assert summary(tmp_path / "out" / "folder") == found


def test_picture_folders_pair_by_number(tree, tmp_path):
    """Numbers need no leading zeros, and those that only one modality has are left out."""
    rgb, depth = moving_square(24, 40, 40)
    clip = tree / "jump/clip0"
    shutil.rmtree(clip)
    write_pictures(clip / "rgb", rgb, "frame_{}_rgb.jpg")
    write_pictures(clip / "depth", depth, "frame_{}.png")
    (clip / "rgb/frame_24_rgb.jpg").unlink()
    (clip / "depth/frame_2.png").unlink()
    dataset = prepare(tree, tmp_path / "out", size=40)
    assert dataset.length("depth")[0] == 22
    kept = np.delete(depth, [1, 23], axis=0)
    assert np.array_equal(dataset.read("depth", [0], [range(22)])[0], kept)


def test_depth_videos_and_further_modalities(tmp_path):
    """FFV1 keeps 16 bits; infrared is stored as deep as its first file."""
    for number in range(2):
        rgb, depth = moving_square(4, 32, 32, seed=number)
        clip = tmp_path / "raw" / "wave" / f"{number}"
        write_video(clip / "rgb.mkv", rgb)
        write_video(clip / "depth.mkv", depth, codec="ffv1")
        write_pictures(clip / "infrared", depth + 1)
    dataset = prepare(tmp_path / "raw", tmp_path / "out")
    assert dataset.modalities == ("rgb", "depth", "infrared")
    assert np.array_equal(dataset.read("depth", [1], [range(4)])[0], depth)
    assert np.array_equal(dataset.read("infrared", [1], [range(4)])[0], depth + 1)


def damage(clip, how):
    if how == "truncated AVI":
        data = (clip / "rgb.avi").read_bytes()
        (clip / "rgb.avi").write_bytes(data[: len(data) // 2])
    elif how == "empty PNG":
        (clip / "depth/002.png").write_bytes(b"")
    elif how == "cut PNG":
        data = (clip / "depth/002.png").read_bytes()
        (clip / "depth/002.png").write_bytes(data[:60])
    elif how == "8-bit depth":
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(clip / "depth/004.png")
    elif how == "other size":
        Image.fromarray(np.zeros((24, 32), np.uint16)).save(clip / "depth/004.png")
    elif how == "text as video":
        (clip / "rgb.avi").write_text("#EXTM3U\nfile:///etc/passwd\n")
    elif how == "link out":
        outside = clip.parents[2] / "outside"
        write_pictures(outside, np.zeros((6, 48, 64), np.uint16))
        shutil.rmtree(clip / "depth")
        (clip / "depth").symlink_to(outside)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("truncated AVI", r"rgb\.avi: (truncated, \d+ of 30 frames|damaged video)"),
        ("empty PNG", r"002\.png: empty file"),
        ("cut PNG", r"002\.png: damaged picture"),
        ("8-bit depth", r"004\.png: 16-bit grey is expected, it is L"),
        ("other size", r"depth: frame 3 is 32x24, the first another size"),
        ("text as video", r"rgb\.avi: damaged video"),
        ("link out", r"walk/clip9/depth leaves the raw folder"),
    ],
)
def test_bad_clips_are_refused_with_their_reason(tree, tmp_path, capsys, how, reason):
    write_clip(tree / "walk/clip9", frames=30)
    damage(tree / "walk/clip9", how)
    command = ["prepare", "folder", f"--raw={tree}", f"--out={tmp_path}/out", "--size=32", "--workers=1"]
    assert main([*command, "--strict"]) == 3
    assert not (tmp_path / "out" / "folder").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--strict: 1 of 7 clips of folder are refused, walk/clip9 first" in line
    assert main(command) == 0
    status, why = summary(tmp_path / "out")["walk/clip9"]
    assert status == "refused" and re.search(reason, why) and "\n" not in why
    assert len(PreparedDataset.open(tmp_path / "out" / "folder")) == 6
    assert "walk/clip9" in capsys.readouterr().out


def test_bad_rows_are_refused_with_their_reason(tree, tmp_path):
    rows = [
        "clip,label,split,path,subject",
        "a,jump,train,jump/clip0,7",
        "b,jump,training,jump/clip1,7",
        "c,,train,jump/clip1,7",
        "a,walk,test,walk/clip0,8",
        "e,walk,test,../outside,8",
        "f,walk,test,walk/clip7,8",
        "g,swim,test,walk/clip1,8",
        "h,walk,test,walk/clip2,8",
    ]
    (tree / "clips.csv").write_text("\n".join(rows) + "\n")
    (tree / "classes.txt").write_text("walk\njump\n")
    dataset = prepare(tree, tmp_path / "out")
    assert dataset.classes == ["walk", "jump"]
    assert dataset.index["clip"].tolist() == [b"a", b"h"] and dataset.index["label"].tolist() == [1, 0]
    assert dataset.index["subject"].tolist() == [7, 8]
    reasons = [(e["clip"], e["reason"]) for e in json.loads((tmp_path / "out/summary.json").read_text()) if e["reason"]]
    assert reasons == [
        ("a", "another clip before it has the same id"),
        ("b", "row 3 of clips.csv: split is 'training'; known: train, validation, test"),
        ("c", "row 4 of clips.csv: no label"),
        ("e", "../outside leaves the raw folder"),
        ("f", "walk/clip7 is not a folder"),
        ("g", "label 'swim' is not in classes.txt"),
    ]


def test_trees_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "raw.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="unpack"):
        prepare(tmp_path / "raw.zip", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no clips"):
        prepare(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "empty" / "clips.csv").write_text("name,where\n")
    with pytest.raises(DataError, match="needs the columns label"):
        prepare(tmp_path / "empty", tmp_path / "out")


def own(subjects, labels, splits=None):
    columns = [("clip", "S8"), ("label", int), ("subject", int)] + ([("split", "S10")] if splits else [])
    index = np.zeros(len(labels), columns)
    index["clip"] = [f"c{i}".encode() for i in range(len(labels))]
    index["subject"], index["label"] = subjects, labels
    if splits:
        index["split"] = splits
    return index, PROTOCOLS["folder"]["own"](index)


def test_own_splits_without_a_column():
    """Whole subjects where they are known; else clips of every class; never a clip in two parts."""
    index, parts = own(np.repeat(np.arange(1, 11), 6), np.tile([0, 1, 2], 20))
    people = {part: set(index["subject"][mask]) for part, mask in parts.items()}
    assert {part: len(found) for part, found in people.items()} == {"train": 7, "validation": 1, "test": 2}
    assert not people["train"] & people["test"] and not people["train"] & people["validation"]
    index, parts = own([0] * 31, [0] * 20 + [1] * 8 + [2] * 2 + [3])
    counts = {part: np.bincount(index["label"][mask], minlength=4).tolist() for part, mask in parts.items()}
    assert counts == {"train": [13, 5, 1, 1], "validation": [2, 1, 0, 0], "test": [5, 2, 1, 0]}
    assert sum(mask.astype(int) for mask in parts.values()).tolist() == [1] * 31


def test_own_splits_do_not_depend_on_other_clips():
    """A clip that is refused, or one more, sends hardly any other to another part."""
    _, before = own([0] * 40, [0] * 40)
    _, after = own([0] * 39, [0] * 39)
    assert sum((before[p][:39] != after[p]).sum() for p in before) <= 4


def test_validation_is_drawn_where_the_column_has_none():
    index, parts = own([0] * 40, [0, 1] * 20, [b"train"] * 30 + [b"test"] * 10)
    assert parts["test"].tolist() == [False] * 30 + [True] * 10
    assert parts["validation"].sum() == 4 and not parts["validation"][30:].any()
    assert np.bincount(index["label"][parts["validation"]]).tolist() == [2, 2]
