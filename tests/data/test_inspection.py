"""`hallujax inspect`: what it counts, and what it finds suspicious."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from raw_files import moving_square, write_pictures

from data_prep import raw, writer
from data_prep.inspection import describe
from hallujax import sealed
from hallujax.cli import main
from hallujax.data.records import PreparedDataset


def test_counts_range_and_sheet(tiny, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["inspect", str(tiny.parent), f"--sheet={sheet}"]) == 0
    said = capsys.readouterr().out
    assert "mocap_rgbd: 48 clips, 4 classes" in said
    assert "clips a class: jump 12, kick 12, punch 12, walk 12" in said
    assert "clips a subject: 1 12, 2 12, 3 12, 4 12" in said and "clips a camera: 1 16, 2 16, 3 16" in said
    assert "protocol cross_subject: 12 train, 12 validation, 24 test" in said
    assert "suspicious: nothing found" in said
    low, high, middle = map(int, re.search(r"depth: (\d+) to (\d+) mm .*median (\d+)", said).groups())
    assert 500 < low < middle < high <= 8000
    # 12 clips in two columns, five frames of 32x32 three times as large, RGB, depth and joints.
    assert Image.open(sheet).size == (2 * 5 * 96, 6 * (3 * 96 + 14))
    assert not (tiny / "contact_sheet.png").exists()


def test_suspicious_data_is_named(tmp_path):
    """Metres for millimetres, nothing on the picture, a class that is hardly there, a clip without joints' length."""
    for label, clips in (("many", 12), ("one", 1)):
        for number in range(clips):
            rgb, depth = moving_square(3 if label == "one" else 6, 32, 32, seed=number)
            clip = tmp_path / "raw" / label / f"{number}"
            write_pictures(clip / "rgb", rgb * 0 if number == 2 else rgb)
            write_pictures(clip / "depth", depth // 1000)
    out = raw.prepare("folder", tmp_path / "raw", tmp_path / "out", size=32, workers=1)
    report = "\n".join(describe(PreparedDataset.open(out)))
    assert "from raw: 13 kept" in report and "one 1" in report
    for finding in (
        "the largest class has 12 clips, the smallest 1",
        "1 clips have fewer than 5 frames of rgb, one/0 first",
        "3 of the RGB frames looked at show nothing",
        "are these millimetres?",
    ):
        assert finding in report, report


def test_absent_modalities_and_classes(tiny, tmp_path):
    copy = shutil.copytree(tiny, tmp_path / "mocap_rgbd")
    index = np.load(copy / "clips.npy")
    index["joints_length"][:3] = 0
    info = sealed.read(copy / "dataset.json", "")
    writer.describe(copy, info | {"classes": [*info["classes"], "swim"]}, index)
    report = "\n".join(describe(PreparedDataset.open(copy)))
    assert f"3 clips have no joints, {index['clip'][0].decode()} first" in report
    assert "1 classes have no clip, 'swim' first" in report
    assert main(["inspect", str(copy), f"--sheet={tmp_path}/sheet.png"]) == 0


def test_nothing_to_inspect(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 3
    assert "no prepared dataset in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rgb", "depth"])
def test_one_modality_alone(tmp_path, name):
    for number in range(2):
        pictures = dict(zip(("rgb", "depth"), moving_square(2, 32, 32), strict=True))
        write_pictures(tmp_path / "raw" / "a" / f"{number}" / name, pictures[name])
    out = raw.prepare("folder", tmp_path / "raw", tmp_path / "out", size=32, workers=1)
    assert main(["inspect", str(out)]) == 0
    assert Image.open(out / "contact_sheet.png").size == (2 * 2 * 96, 96 + 14)
