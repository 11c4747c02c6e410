"""NYUD object crops: single pictures in folders of classes, with HHA or depth."""

import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from summaries import summary

from configs import table
from data_prep import nyud_objects, raw
from data_prep.convert import Clip
from hallujax.cli import main
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import DataError, UsageError
from hallujax.experiment import read_config

CLASSES = ("bathtub", "garbage bin", "night_stand")
COUNTS = {"train": 8, "test": 3}


def prepare(tree, out, **options):
    return PreparedDataset.open(raw.prepare("nyud_objects", tree, out, **{"size": 32, "workers": 1} | options))


def picture(seed, deep=False):
    """A crop of a size of its own: bands, so that whatever is squashed can be told."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 90, 2)
    bands = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)
    return (1000 + bands).astype(np.uint16) if deep else np.stack([bands % 251, 255 - bands % 200, bands % 7], -1)


def write_tree(root, depth_name="{}_{}.png", deep=False):
    for part, count in COUNTS.items():
        for c, label in enumerate(CLASSES):
            for number in range(count):
                seed = 100 * c + number + (50 if part == "test" else 0)
                rgb = root / "NYUD_multimodal" / part / "images" / label / f"{label}_{number}.png"
                depth = root / "NYUD_multimodal" / part / "depth" / label / depth_name.format(label, number)
                for path, values in ((rgb, picture(seed)), (depth, picture(seed, deep))):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(values if values.dtype == np.uint16 else values.astype(np.uint8)).save(path)
    return root


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "raw")


def squashed(values, size=32):
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR))


def test_hha_is_kept_value_for_value(tree, tmp_path, capsys):
    dataset = prepare(tree, tmp_path)
    assert dataset.classes == list(CLASSES) and len(dataset) == 33 and dataset.modalities == ("rgb", "depth")
    assert set(dataset.length("rgb")) == set(dataset.length("depth")) == {1} and dataset.verify() == []
    row = list(dataset.index["clip"]).index(b"test/garbage bin/garbage bin_2")
    assert dataset.index["label"][row] == 1 and dataset.index["split"][row] == b"test"
    assert np.array_equal(dataset.read("depth", [row], [[0]])[0, 0], squashed(picture(152)))
    difference = dataset.read("rgb", [row], [[0]])[0, 0].astype(int) - squashed(picture(152))
    assert np.abs(difference).mean() < 12
    said = capsys.readouterr().out
    assert "24 of 2186 to train, 9 of 2401 to test, 3 of 19 classes: not the whole set" in said
    assert "depth is pictures of depth, 8 bits" in said
    parts = split(dataset, "official")
    assert [len(rows) for rows in parts.values()] == [24 - 3, 3, 9]
    assert {dataset.clip_id(row).partition("/")[0] for row in parts["validation"]} == {"train"}


def test_the_whole_set_is_known_by_its_numbers():
    clips = [
        Clip(id=f"{part}{i}", label=0, split=part, sources={}, stamp=[])
        for part, n in nyud_objects.SAMPLES.items()
        for i in range(n)
    ]
    assert len(clips) == 2186 + 2401
    classes = [str(i) for i in range(19)]
    assert nyud_objects._counted(clips, classes) == "2186 of 2186 to train, 2401 of 2401 to test, 19 of 19 classes"
    assert nyud_objects._counted(clips[1:], classes).endswith("not the whole set")
    assert nyud_objects._counted(clips, classes[1:]).endswith("not the whole set")


def test_depth_in_millimetres(tmp_path):
    dataset = prepare(write_tree(tmp_path / "raw", deep=True), tmp_path)
    depth = dataset.read("depth", [0], [[0]])[0, 0]
    original = picture(50, deep=True)
    assert dataset.clip_id(0) == "test/bathtub/bathtub_0" and depth.dtype == np.uint16
    assert set(np.unique(depth)) <= set(np.unique(original)) and abs(int(depth[16, 16]) - int(np.median(original))) < 20


def test_names_that_differ_pair_by_order(tmp_path, capsys):
    dataset = prepare(write_tree(tmp_path / "raw", depth_name="hha {1} of {0}.png"), tmp_path)
    assert len(dataset) == 33 and "33 crops and their depth have different names" in capsys.readouterr().out
    row = list(dataset.index["clip"]).index(b"train/bathtub/bathtub_4")
    assert np.array_equal(dataset.read("depth", [row], [[0]])[0, 0], squashed(picture(4)))


def test_what_does_not_pair_or_is_damaged_is_refused(tree, tmp_path):
    part = tree / "NYUD_multimodal/train"
    (part / "depth/bathtub/bathtub_1.png").unlink()
    (part / "images/bathtub/bathtub_2.png").unlink()
    (part / "images/bathtub/bathtub_3.png").write_bytes(b"")
    Image.fromarray(picture(0, deep=True)).save(part / "depth/bathtub/bathtub_4.png")
    Image.fromarray(picture(1).astype(np.uint8)).save(part / "images/bathtub/bathtub_5.jpg")
    (part / "images/bathtub/bathtub_6.png").unlink()
    (part / "images/bathtub/bathtub_6.png").symlink_to(shutil.copy(part / "images/bathtub/bathtub_7.png", tmp_path))
    (part / "images/bathtub/._bathtub_7.png").write_bytes(b"of a Mac")
    dataset = prepare(tree, tmp_path / "out")
    refused = {clip: why for clip, (status, why) in summary(tmp_path / "out").items() if status == "refused"}
    assert refused == {
        "train/bathtub/bathtub_1": "no depth",
        "train/bathtub/bathtub_2": "no rgb",
        "train/bathtub/bathtub_3": "bathtub_3.png: empty file",
        "train/bathtub/bathtub_4": "bathtub_4.png: 16 bits where 8 are expected",
        "train/bathtub/bathtub_5": "another crop before it has the same name",
        "train/bathtub/bathtub_6": "NYUD_multimodal/train/images/bathtub/bathtub_6.png leaves the raw folder",
    }
    assert len(dataset) == 33 - 6


def test_trees_that_are_none(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="needs train/images"):
        prepare(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="has no joints; it has rgb, depth"):
        prepare(tree, tmp_path / "out", modalities=("rgb", "joints"))
    (tmp_path / "NYUD_multimodal.zip").write_bytes(b"PK")
    with pytest.raises(UsageError, match="unpack"):
        prepare(tmp_path / "NYUD_multimodal.zip", tmp_path / "out")


def test_trains_by_the_command_line(tree, tmp_path, capsys):
    """A clip is one picture, and depth is what the pictures hold: metric encodings are refused."""
    experiment = read_config(table.get_config("nyud_objects,official"))
    assert (experiment.data.frames, experiment.transforms.depth_encoding) == (1, "picture")
    assert main(["prepare", "nyud_objects", f"--raw={tree}", f"--out={tmp_path}/data", "--size=32", "--workers=1"]) == 0
    config = pathlib.Path(__file__).parent / "one_stage_config.py"
    command = ["train", f"--config={config}:nyud_objects,official", f"--config.data.directory={tmp_path}/data"]
    command.append("--config.data.frames=1")
    assert main([*command, f"--workdir={tmp_path}/run"]) == 0
    capsys.readouterr()
    assert main([*command, f"--workdir={tmp_path}/grey", "--config.transforms.depth_encoding=grey"]) == 2
    assert "depth is stored in 8-bit pictures: set it to picture" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "depth: pictures of 8 bits" in said and "fewer than 5 frames" not in said
