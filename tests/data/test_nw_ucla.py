"""Northwestern-UCLA: clips written in its format, its oddities, and its protocols."""

import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from raw_files import moving_square
from raw_nw_ucla import file_of, joints_at, skeleton_text, write_clip
from summaries import summary

from configs import table
from data_prep import nw_ucla, raw
from hallujax.cli import main
from hallujax.data.protocols import PROTOCOLS
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError
from hallujax.experiment import read_config

SIZE = 24


def prepare(tree, out, **options):
    return PreparedDataset.open(raw.prepare("nw_ucla", tree, out, **{"size": SIZE, "workers": 1} | options))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two actions of two subjects, once or twice, before three cameras; copy it before changing it."""
    root = tmp_path_factory.mktemp("nw") / "raw"
    seed = 0
    for view in (1, 2, 3):
        for action, subject, repetition in ((1, 1, 0), (1, 2, 0), (8, 1, 0), (8, 2, 4)):
            seed += 1
            folder = root / f"multiview_action/view_{view}/a{action:02}_s{subject:02}_e{repetition:02}"
            write_clip(folder, seed=seed)
    return root


@pytest.fixture
def tree(written, tmp_path):
    return pathlib.Path(shutil.copytree(written, tmp_path / "raw"))


def test_frames_pair_by_index_in_numeric_order(written, tmp_path, capsys):
    dataset = prepare(written, tmp_path)
    assert dataset.modalities == ("rgb", "depth", "joints") and len(dataset) == 12 and dataset.verify() == []
    assert dataset.classes[:2] == ["pick up with one hand", "pick up with two hands"] and len(dataset.classes) == 10
    row = list(dataset.index["clip"]).index(b"a08_s02_e04_v03")
    columns = ["label", "subject", "camera", "repetition"]
    assert dataset.index[columns][row].tolist() == (6, 2, 3, 4)
    assert "12 clips: 12 kept, 0 repaired, 0 refused" in (said := capsys.readouterr().out)
    assert "12 of about 1484 samples of the whole set" in said
    assert "depth is *_depth.png, millimetres" in said

    rgb, depth, joints = (dataset.read(name, [row], [range(12)])[0] for name in dataset.modalities)
    # The map is 32x24: squashed to 24x24, every row is there, and of four columns the nearest three.
    original = moving_square(12, 48, 64, seed=12)[1][:, ::2, ::2]
    columns = np.rint((np.arange(24) + 0.5) * 32 / 24 - 0.5).astype(int)
    assert np.array_equal(depth, original[:, :, columns])
    assert np.array_equal(joints, np.stack([joints_at(number) for number in range(1, 13)]).astype(np.float32))
    near, bright = depth < 2000, rgb[..., 0].astype(int) > 125
    assert (near & bright).sum() / (near | bright).sum() > 0.7


def test_either_depth_file(written, tmp_path):
    """The grey pictures are kept value for value, in three equal channels."""
    dataset = prepare(written, tmp_path / "out", modalities=("rgb", "depth_vis"), size=32)
    assert dataset.modalities == ("rgb", "depth")
    assert dataset.info["depth_files"] == "*_depth_vis.jpg" and "8 bits" in dataset.info["depth_values"]
    depth = dataset.read("depth", [0], [range(12)])[0]
    assert depth.shape == (12, 32, 32, 3) and depth.dtype == np.uint8
    folder = written / "multiview_action/view_1/a01_s01_e00"
    frame = Image.open(file_of(folder, 10, "depth_vis.jpg")).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(depth[9], np.asarray(frame))
    with pytest.raises(UsageError, match="two forms of one modality"):
        prepare(written, tmp_path / "both", modalities=("depth", "depth_vis"))
    with pytest.raises(UsageError, match="has no infrared"):
        prepare(written, tmp_path / "infrared", modalities=("infrared",))


def test_depth_pictures_alone_are_taken(tree, tmp_path):
    for path in tree.rglob("*_depth.png"):
        path.unlink()
    assert prepare(tree, tmp_path / "out").info["depth_files"] == "*_depth_vis.jpg"
    with pytest.raises(UsageError, match="has no depth files; it has depth_vis, joints, rgb"):
        prepare(tree, tmp_path / "other", modalities=("rgb", "depth"))


def test_what_the_set_is_known_to_lack(tree, tmp_path, capsys):
    """Frames without a partner, clips without RGB, short or crowded skeletons, a clip of one frame."""
    view = tree / "multiview_action/view_1"
    for number in (3, 10):
        file_of(view / "a01_s01_e00", number, "rgb.jpg").unlink()
    for path in (view / "a01_s02_e00").glob("*_rgb.jpg"):
        path.unlink()
    short, crowded, none = (file_of(view / "a08_s01_e00", n, "skeletons.txt") for n in (1, 2, 4))
    short.write_text("\n".join(short.read_text().splitlines()[:12]) + "\n")
    crowded.write_text(skeleton_text(np.concatenate([joints_at(50), joints_at(51)]), first=2))
    none.unlink()
    for path in (view / "a08_s02_e04").glob("*_skeletons.txt"):
        path.unlink()
    write_clip(view / "a12_s10_e10", frames=1)
    dataset = prepare(tree, tmp_path / "out")
    found = summary(tmp_path / "out")
    assert found["a01_s01_e00_v01"] == (
        "repaired",
        "frames left out that have no partner: rgb 10, depth 12, 10 in common",
    )
    assert found["a01_s02_e00_v01"] == ("refused", "no rgb frames")
    assert found["a08_s01_e00_v01"] == (
        "repaired",
        "no joints in 2 frames; several bodies in 1 frames, the first is kept",
    )
    assert found["a08_s02_e04_v01"] == ("kept", "no joints")
    assert found["a12_s10_e10_v01"] == ("kept", "")
    row = {clip.decode(): i for i, clip in enumerate(dataset.index["clip"])}
    joints = dataset.read("joints", [row["a08_s01_e00_v01"]], [range(4)])[0]
    assert not joints[[0, 3]].any() and np.array_equal(joints[1], joints_at(50).astype(np.float32))
    assert dataset.length("joints")[row["a08_s02_e04_v01"]] == 0
    kept = [n for n in range(1, 13) if n not in (3, 10)]
    joints = dataset.read("joints", [row["a01_s01_e00_v01"]], [range(10)])[0]
    assert np.array_equal(joints, np.stack([joints_at(n) for n in kept]).astype(np.float32))
    assert "1 kept: no joints" in capsys.readouterr().out


def damage(clip, how):
    if how == "empty PNG":
        file_of(clip, 5, "depth.png").write_bytes(b"")
    elif how == "8-bit depth":
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(file_of(clip, 5, "depth.png"))
    elif how == "other size":
        Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(file_of(clip, 5, "rgb.jpg"))
    elif how == "index twice":
        (clip / "frame_5_tc_1_rgb.jpg").write_bytes(b"x")
    elif how == "NaN":
        path = file_of(clip, 5, "skeletons.txt")
        path.write_text(path.read_text().replace(",2\n", ",nan\n", 1))
    elif how == "words":
        file_of(clip, 5, "skeletons.txt").write_text("one\n1,2,3,2\n")
    elif how == "hardly any RGB":
        for number in range(2, 13):
            file_of(clip, number, "rgb.jpg").unlink()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty PNG", r"depth\.png: empty file"),
        ("8-bit depth", r"depth\.png: 16-bit grey is expected, it is L"),
        ("other size", r"rgb\.jpg: 16x12 pixels, the first frame has 64x48"),
        ("index twice", r"two files of frame 5, rgb"),
        ("NaN", r"skeletons\.txt: a joint is not finite"),
        ("words", r"skeletons\.txt: its first line is 'one', not a number"),
        ("hardly any RGB", r"frames do not pair: rgb 1, depth 12, 1 in common"),
    ],
)
def test_bad_clips_are_refused_with_their_reason(tree, tmp_path, capsys, how, reason):
    damage(tree / "multiview_action/view_2/a01_s01_e00", how)
    command = ["prepare", "nw_ucla", f"--raw={tree}", f"--out={tmp_path}/out", f"--size={SIZE}", "--workers=1"]
    assert main([*command, "--strict"]) == 3 and not (tmp_path / "out/nw_ucla").exists()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--strict: 1 of 12 clips of nw_ucla are refused, a01_s01_e00_v02 first" in line
    assert main(command) == 0
    status, why = summary(tmp_path / "out")["a01_s01_e00_v02"]
    assert status == "refused" and re.search(reason, why) and "\n" not in why
    assert len(PreparedDataset.open(tmp_path / "out/nw_ucla")) == 11


def test_names_that_cannot_be(tree, tmp_path):
    view = tree / "multiview_action/view_1"
    shutil.copytree(view / "a01_s01_e00", view / "a07_s01_e00")
    shutil.copytree(view / "a01_s01_e00", view / "a01_s11_e00")
    shutil.copytree(view / "a01_s01_e00", view / "notes")
    shutil.copytree(view / "a01_s01_e00", tree / "again/view_1/a01_s01_e00")
    (view / "a01_s03_e00").symlink_to(shutil.copytree(view / "a01_s01_e00", tmp_path / "outside"))
    prepare(tree, tmp_path / "out")
    refused = {clip: reason for clip, (status, reason) in summary(tmp_path / "out").items() if status == "refused"}
    assert refused == {
        "a01_s01_e00_v01": "two of it: again/view_1/a01_s01_e00 and multiview_action/view_1/a01_s01_e00",
        "a01_s03_e00_v01": "multiview_action/view_1/a01_s03_e00 leaves the raw folder",
        "a01_s11_e00_v01": "subject 11 is outside 1 to 10",
        "a07_s01_e00_v01": "action 7 is none of 1, 2, 3, 4, 5, 6, 8, 9, 11, 12",
        "multiview_action/view_1/notes": "the folder's name is not aXX_sXX_eXX",
    }


def test_trees_that_are_none(tmp_path):
    (tmp_path / "multiview_action.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UsageError, match="unpack"):
        prepare(tmp_path / "multiview_action.tgz", tmp_path / "out")
    for name in ("carry", "doffing", "donning", "throw"):
        (tmp_path / "raw" / name / "vid_1").mkdir(parents=True)
    with pytest.raises(UsageError, match="videos alone, which has no depth"):
        prepare(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "empty/view_1/a01_s01_e00").mkdir(parents=True)
    with pytest.raises(DataError, match="their folders hold no frames"):
        prepare(tmp_path / "empty", tmp_path / "out")


def whole_set():
    """Every action by every subject, four times before three cameras."""
    grid = np.stack(np.meshgrid(range(10), range(1, 11), range(4), range(1, 4), indexing="ij"), -1).reshape(-1, 4)
    columns = ("label", "subject", "repetition", "camera")
    index = np.zeros(len(grid), [("clip", "S16"), *((column, np.int32) for column in columns)])
    for column, values in zip(columns, grid.T, strict=True):
        index[column] = values
    index["clip"] = ["a{:02}_s{:02}_e{:02}_v{:02}".format(*row).encode() for row in grid]
    return index


def test_protocols():
    index, known = whole_set(), PROTOCOLS["nw_ucla"]
    assert set(known) == {"cross_view", "cross_subject", "cross_view_12_3", "cross_view_13_2", "cross_view_23_1"} | {
        f"cross_subject_{n}" for n in range(1, 11)
    }
    for protocol, tested in (("cross_view", 3), ("cross_view_12_3", 3), ("cross_view_13_2", 2), ("cross_view_23_1", 1)):
        parts = known[protocol](index)
        assert np.array_equal(parts["test"], index["camera"] == tested)
        # 5 % of 40 performances a class are two, each before two cameras.
        assert np.bincount(index["label"][parts["validation"]]).tolist() == [4] * 10
        assert (sum(mask.astype(int) for mask in parts.values()) == 1).all()
        performances = [
            set(index[["label", "subject", "repetition"]][parts[p]].tolist()) for p in ("train", "validation")
        ]
        assert not performances[0] & performances[1]
    for protocol, tested in (("cross_subject", 10), ("cross_subject_4", 4)):
        parts = known[protocol](index)
        assert set(index["subject"][parts["test"]]) == {tested} and parts["test"].sum() == 120
        assert parts["validation"].sum() == 30 and parts["train"].sum() == 1200 - 120 - 30


def test_trains_by_the_command_line(written, tmp_path):
    """Prepared and trained by commands, and the table's configuration takes the set."""
    experiment = read_config(table.get_config("nw_ucla,cross_view"))
    assert (experiment.data.dataset, experiment.transforms.depth_far) == ("nw_ucla", 4000.0)
    assert main(["prepare", "nw_ucla", f"--raw={written}", f"--out={tmp_path}/data", "--size=32", "--workers=1"]) == 0
    config = pathlib.Path(__file__).parent / "one_stage_config.py"
    command = ["train", f"--config={config}:nw_ucla,cross_view", f"--config.data.directory={tmp_path}/data"]
    assert main([*command, f"--workdir={tmp_path}/run"]) == 0
    assert main(["inspect", str(tmp_path / "data"), f"--sheet={tmp_path}/sheet.png"]) == 0


def test_a_skeleton_file_of_nothing_has_no_bodies(tmp_path):
    (tmp_path / "s.txt").write_text("")
    assert nw_ucla.skeleton(tmp_path / "s.txt").shape == (0, 20, 4)
