"""UWA3D Multiview Activity II: its layouts, its oddities, and its protocols."""

import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from raw_files import moving_square, write_pictures
from summaries import summary

from configs import table
from data_prep import raw
from hallujax.cli import main
from hallujax.data.protocols import PROTOCOLS
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError
from hallujax.experiment import read_config

RGB = "UWA3DII_RGB/UWA3D-RGB"
LAYOUTS = {
    "UWA3D-Depth/WholeFrames": "a{0:02}_s{1:02}_v{2:02}_e{3:02}",
    "UWA3DII_Depth_ROI/UWA3D-Depth": "a{0:02}_s{1:02}_v{2:02}_e{3:02}",
    "UWA3DII_Depth/Actions_images": "a{0:02}_s{1:02}_e{3:02}_v{2:02}",
}
WHOLE = next(iter(LAYOUTS))


def prepare(tree, out, **options):
    return PreparedDataset.open(raw.prepare("uwa3dii", tree, out, **{"size": 24, "workers": 1} | options))


def write_sequence(root, action, subject, view, repetition, *, layout=WHOLE, depth_repetition=None, frames=12):
    rgb, depth = moving_square(frames, 24, 32, seed=100 * action + view)
    name = LAYOUTS[WHOLE].format(action, subject, view, repetition)
    write_pictures(root / RGB / name, rgb, "{:03},.jpg")
    depth_name = LAYOUTS[layout].format(
        action, subject, view, repetition if depth_repetition is None else depth_repetition
    )
    write_pictures(root / layout / depth_name, depth)
    return name


@pytest.fixture
def tree(tmp_path):
    """Two actions of three subjects before four cameras."""
    for action in (1, 30):
        for subject in (1, 2, 10):
            for view in (1, 2, 3, 4):
                write_sequence(tmp_path / "raw", action, subject, view, 1)
    return tmp_path / "raw"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts(tmp_path, capsys, layout):
    for view in (1, 4):
        write_sequence(tmp_path / "raw", 30, 10, view, 1, layout=layout)
    dataset = prepare(tmp_path / "raw", tmp_path)
    assert dataset.index["clip"].tolist() == [b"a30_s10_v01_e01", b"a30_s10_v04_e01"]
    columns = ["label", "subject", "camera", "repetition"]
    assert dataset.index[columns][1].tolist() == (29, 10, 4, 1)
    assert len(dataset.classes) == 30 and dataset.classes[29] == "coughing" and dataset.verify() == []
    rgb, depth = (dataset.read(name, [1], [range(12)])[0] for name in ("rgb", "depth"))
    _, original = moving_square(12, 24, 32, seed=3004)
    columns = np.rint((np.arange(24) + 0.5) * 32 / 24 - 0.5).astype(int)
    assert np.array_equal(depth, original[:, :, columns])
    near, bright = depth < 2000, rgb[..., 0].astype(int) > 125
    assert (near & bright).sum() / (near | bright).sum() > 0.7
    said = capsys.readouterr().out
    assert "2 of 1075 samples of the whole set" in said and f"depth is {layout}, millimetres" in said


def test_one_folder_deeper_and_the_first_of_several_depths(tmp_path):
    """Numbers without leading zeros sort as numbers."""
    deeper = tmp_path / "raw" / "disk1"
    name = write_sequence(deeper, 1, 1, 1, 1)
    depth = moving_square(12, 24, 32, seed=7)[1]
    shutil.rmtree(deeper / WHOLE / name)
    write_pictures(deeper / WHOLE / name, depth, "{}.png")
    write_pictures(deeper / "UWA3DII_Depth_ROI/UWA3D-Depth" / name, depth * 0)
    dataset = prepare(tmp_path / "raw", tmp_path, size=32)
    assert dataset.info["depth_maps"] == f"disk1/{WHOLE}"
    rows = np.rint((np.arange(32) + 0.5) * 24 / 32 - 0.5).astype(int)
    assert np.array_equal(dataset.read("depth", [0], [range(12)])[0], depth[:, rows])


def test_repetitions_that_differ(tmp_path):
    """Depth of repetition 0 goes with RGB of repetition 1, unless that has its own; what is alone is refused."""
    root = tmp_path / "raw"
    write_sequence(root, 1, 1, 1, 1, depth_repetition=0)
    write_sequence(root, 2, 1, 1, 1)
    write_sequence(root, 2, 1, 1, 0)
    shutil.rmtree(root / RGB / "a02_s01_v01_e00")
    write_sequence(root, 21, 2, 4, 1)
    shutil.rmtree(root / WHOLE / "a21_s02_v04_e01")
    dataset = prepare(root, tmp_path)
    assert dataset.index["clip"].tolist() == [b"a01_s01_v01_e01", b"a02_s01_v01_e01"]
    found = summary(tmp_path)
    assert found["a02_s01_v01_e00"] == ("refused", "no rgb")
    assert found["a21_s02_v04_e01"] == ("refused", "no depth")


def test_eight_bits_are_pictures(tmp_path, capsys):
    """As the loaders that read these PNGs by 8 bits take them for granted; one of the other kind is refused."""
    for action in (1, 2, 3):
        name = write_sequence(tmp_path / "raw", action, 1, 1, 1)
        if action != 3:
            folder = tmp_path / "raw" / WHOLE / name
            shutil.rmtree(folder)
            write_pictures(folder, np.full((12, 24, 32), 40 * action, np.uint8))
    # The first file of all cannot be read, and decides nothing.
    (tmp_path / "raw" / WHOLE / "a01_s01_v01_e01/001.png").write_bytes(b"")
    dataset = prepare(tmp_path / "raw", tmp_path)
    assert dataset.info["depth_values"] == "pictures of depth, 8 bits"
    assert dataset.read("depth", [0], [[5]]).tolist() == np.full((1, 1, 24, 24, 3), 80).tolist()
    found = summary(tmp_path)
    assert found["a01_s01_v01_e01"] == ("refused", "001.png: empty file")
    assert found["a03_s01_v01_e01"] == ("refused", "001.png: 16 bits where 8 are expected")
    assert "depth is UWA3D-Depth/WholeFrames, pictures of depth, 8 bits" in capsys.readouterr().out


def test_frames_without_a_partner_and_names_that_cannot_be(tree, tmp_path):
    (tree / RGB / "a01_s01_v01_e01/003,.jpg").unlink()
    (tree / WHOLE / "a01_s01_v01_e01/010.png").unlink()
    shutil.copytree(tree / RGB / "a01_s01_v01_e01", tree / RGB / "a31_s01_v01_e01")
    shutil.copytree(tree / RGB / "a01_s01_v01_e01", tree / RGB / "a01_s11_v01_e01")
    shutil.rmtree(tree / WHOLE / "a01_s01_v02_e01")
    (tree / WHOLE / "a01_s01_v02_e01").mkdir()
    shutil.rmtree(tree / WHOLE / "a01_s01_v03_e01")
    (tree / WHOLE / "a01_s01_v03_e01").symlink_to(tmp_path)
    write_pictures(tree / "disk2" / RGB / "a01_s01_v04_e01", moving_square(2, 24, 32)[0])
    dataset = prepare(tree, tmp_path / "out")
    found = {clip: outcome for clip, outcome in summary(tmp_path / "out").items() if outcome[1]}
    assert found == {
        "a01_s01_v01_e01": ("repaired", "frames left out that have no partner: rgb 11, depth 11, 10 in common"),
        "a01_s01_v02_e01": ("refused", "WholeFrames/a01_s01_v02_e01: no pictures in it"),
        "a01_s01_v03_e01": ("refused", f"{WHOLE}/a01_s01_v03_e01 leaves the raw folder"),
        "a01_s01_v04_e01": ("refused", f"two of rgb: {RGB}/a01_s01_v04_e01 and disk2/{RGB}/a01_s01_v04_e01"),
        "a01_s11_v01_e01": ("refused", "subject 11, view 1: there are 10 subjects and 4 views"),
        "a31_s01_v01_e01": ("refused", "action 31 is outside 1 to 30"),
    }
    assert dataset.length("rgb")[0] == dataset.length("depth")[0] == 10


def write_skeleton(path, joints, **how):
    h5py = pytest.importorskip("h5py", reason="h5py writes and reads MATLAB 7.3 files (extra `mat`)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:  # MATLAB's header
        file[how.get("name", "A")] = joints.transpose(2, 1, 0)


def test_joints(tree, tmp_path):
    """`A` is frames x 15 x 3, which HDF5 holds with the last axis first."""
    joints = np.random.default_rng(0).normal(size=(12, 15, 3))
    for action in (1, 30):
        for subject in (1, 2, 10):
            for view in (1, 2, 3, 4):
                write_skeleton(tree / f"ActionsSkeleton/a{action:02}_s{subject:02}_e01_v{view:02}.mat", joints + view)
    skeletons = tree / "ActionsSkeleton"
    write_skeleton(skeletons / "a01_s01_e01_v01.mat", joints, name="B")
    write_skeleton(skeletons / "a01_s01_e01_v02.mat", joints[:, :, :2])
    write_skeleton(skeletons / "a01_s01_e01_v03.mat", np.where(joints > 2, np.nan, joints))
    (skeletons / "a01_s01_e01_v04.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    (skeletons / "a01_s02_e01_v01.mat").unlink()
    dataset = prepare(tree, tmp_path / "out", modalities=("rgb", "depth", "joints"))
    refused = {clip: why for clip, (status, why) in summary(tmp_path / "out").items() if status == "refused"}
    assert refused == {
        "a01_s01_v01_e01": "a01_s01_e01_v01.mat: no MATLAB 7.3 file with an array A (KeyError)",
        "a01_s01_v02_e01": "a01_s01_e01_v02.mat: A is 12x15x2, not frames x 15 x 3",
        "a01_s01_v03_e01": "a01_s01_e01_v03.mat: a joint is not finite",
        "a01_s01_v04_e01": "a01_s01_e01_v04.mat: no MATLAB 7.3 file with an array A (OSError)",
        "a01_s02_v01_e01": "no joints",
    }
    row = list(dataset.index["clip"]).index(b"a30_s10_v04_e01")
    assert np.array_equal(dataset.read("joints", [row], [range(12)])[0], (joints + 4).astype(np.float32))
    assert main(["inspect", str(tmp_path / "out")]) == 0


def test_trees_that_are_none(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match="needs UWA3DII_RGB"):
        prepare(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw" / RGB).mkdir(parents=True)
    with pytest.raises(DataError, match="no sequences"):
        prepare(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UsageError, match="no folder of depth; it has rgb"):
        prepare(tmp_path / "raw", tmp_path / "out", modalities=("rgb", "depth"))


def whole_set():
    grid = np.stack(np.meshgrid(range(30), range(1, 11), range(1, 5), indexing="ij"), -1).reshape(-1, 3)
    columns = ("label", "subject", "camera")
    index = np.zeros(len(grid), [("clip", "S16"), *((c, np.int32) for c in (*columns, "repetition"))])
    for column, values in zip(columns, grid.T, strict=True):
        index[column] = values
    index["repetition"] = 1
    index["clip"] = ["a{:02}_s{:02}_v{:02}_e01".format(*row).encode() for row in grid]
    return index


def test_protocols():
    """The authors' three views to one, and every pair of views to each of the others."""
    index, known = whole_set(), PROTOCOLS["uwa3dii"]
    pairs = [name for name in known if re.fullmatch(r"cross_view_\d\d_\d", name)]
    assert len(pairs) == 12 and set(known) - set(pairs) == {"cross_view", "cross_view_34_12"}
    for name in known:
        train, test = name.split("_")[2:] if name != "cross_view" else ("123", "4")
        parts = known[name](index)
        assert "".join(map(str, np.unique(index["camera"][parts["test"]]))) == test
        assert "".join(map(str, np.unique(index["camera"][parts["train"]]))) == train
        # Of ten performances a class one is held out, with all its views.
        assert np.bincount(index["label"][parts["validation"]]).tolist() == [len(train)] * 30
        assert max(sum(mask.astype(int) for mask in parts.values())) == 1
        assert sum(mask.sum() for mask in parts.values()) == 300 * len(train + test)


def test_trains_by_the_command_line(tree, tmp_path):
    assert read_config(table.get_config("uwa3dii,cross_view")).data.frames == 5
    assert main(["prepare", "uwa3dii", f"--raw={tree}", f"--out={tmp_path}/data", "--size=32", "--workers=1"]) == 0
    config = pathlib.Path(__file__).parent / "one_stage_config.py"
    command = ["train", f"--config={config}:uwa3dii,cross_view", f"--config.data.directory={tmp_path}/data"]
    assert main([*command, f"--workdir={tmp_path}/run"]) == 0
    assert main(["inspect", str(tmp_path / "data"), f"--sheet={tmp_path}/sheet.png"]) == 0
    assert Image.open(tmp_path / "sheet.png").width > 100
