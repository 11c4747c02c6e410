"""The demo's table trained from a folder of somebody's own clips: the rendered benchmark, unpacked into pictures."""

import csv
import json

import numpy as np
import pytest
from raw_files import write_pictures

from hallujax.cli import main
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset


def unpack(dataset: PreparedDataset, raw) -> None:
    """A prepared dataset as raw files: a folder of PNGs a clip and modality, and clips.csv with its own split."""
    raw.mkdir(parents=True)
    with (raw / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["clip", "label", "subject", "camera", "split", "rgb", "depth"])
        for part, rows in split(dataset, "cross_subject").items():
            for row in rows:
                clip, frames = dataset.clip_id(row), min(dataset.length(m)[row] for m in ("rgb", "depth"))
                for modality in ("rgb", "depth"):
                    pictures = dataset.read(modality, np.array([row]), np.arange(frames)[None])[0]
                    write_pictures(raw / modality / clip, pictures)
                entry = dataset.index[row]
                label = dataset.classes[entry["label"]]
                table.writerow([clip, label, entry["subject"], entry["camera"], part, f"rgb/{clip}", f"depth/{clip}"])


@pytest.mark.slow
def test_the_demos_table_is_trained_from_a_folder(tiny, tmp_path):
    rendered = PreparedDataset.open(tiny)
    unpack(rendered, tmp_path / "raw")
    size = str(rendered.frame_size[0])
    prepare = ["prepare", "folder", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "data")]
    assert main([*prepare, "--size", size, "--strict"]) == 0
    folder = PreparedDataset.open(tmp_path / "data" / "folder")
    assert sorted(folder.classes) == sorted(rendered.classes)
    for part, rows in split(rendered, "cross_subject").items():
        assert {rendered.clip_id(row) for row in rows} == {folder.clip_id(row) for row in split(folder, "own")[part]}
    flags = [
        "--config=configs/demo.py:folder,own",
        f"--config.data.directory={tmp_path / 'data'}",
        "--config.training.epochs=0.1",
        "--config.training.evaluations=1",
        "--config.training.batch_size=4",
        "--config.training.model.stage_sizes=(1, 2)",
        "--config.stages.hallucination.options.layer=block2",
        "--config.training.model.width=4",
    ]
    assert main(["table", *flags, f"--workdir={tmp_path / 'runs'}", "--seeds", "1"]) == 0
    rows = json.loads((tmp_path / "runs" / "table.json").read_text())["rows"]
    assert len(rows) == 11 and all(row["mean"] is not None for row in rows)
