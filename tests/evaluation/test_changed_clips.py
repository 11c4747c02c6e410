"""The clips that distillation fixed and broke, as the report shows them."""

import base64
import io

import numpy as np
from PIL import Image
from synthetic_run import SYSTEMS, write_run

from hallujax.data.records import PreparedDataset
from hallujax.evaluation import runs
from hallujax.evaluation.changed_clips import _spread, changed_clips
from hallujax.evaluation.evaluate import Predictions, fuse
from hallujax.evaluation.report import write_report


def test_counts_are_those_of_the_predictions(tmp_path):
    folder = write_run(tmp_path / "run", seeds=(0, 1))
    found = changed_clips(runs.read_run(folder), PreparedDataset.open(folder / "data" / "mocap_rgbd"))
    before, after = found["names"]
    assert before == "RGB" and after in SYSTEMS and found["seed"] == "0"
    rgb, taught = (
        fuse([Predictions.load(folder / "seed0" / stage / "predictions_test.npz") for stage in SYSTEMS[name][0]])
        for name in (before, after)
    )
    right = [one.logits.argmax(1) == one.label for one in (rgb, taught)]
    assert found["counts"] == {"fixed": (right[1] > right[0]).sum(), "broken": (right[1] < right[0]).sum()}
    assert found["fixed"] and "checkpoints are not in" in found["reason"]
    for clip in found["fixed"]:
        place = rgb.clip.tolist().index(clip["clip"].encode())
        assert [model["right"] for model in clip["models"]] == [False, True]
        assert clip["models"][0]["says"] == ("jump", "kick", "walk")[rgb.logits[place].argmax()] != clip["class"]
    page = write_report(folder).read_text()
    assert f"gets {found['counts']['fixed']} test clips right" in page and "maps are left out" in page


def test_different_classes_come_first():
    labels = np.array([0, 0, 0, 1, 0, 2, 1, 2])
    assert _spread(labels, np.array([0, 1, 2, 3, 5, 6])) == [0, 3, 5]
    assert _spread(labels, np.array([1, 2, 4, 6])) == [1, 6, 2]
    assert _spread(labels, np.array([], int)) == []


def test_maps_of_a_real_run(trained, tiny, tmp_path):
    """Both models are made to differ: their predictions are, and the networks are read as they are."""
    (tmp_path / "run").mkdir()
    for path in trained.iterdir():
        (tmp_path / "run" / path.name).symlink_to(path)
    for name, shift in (("rgb", 1), ("hallucination", 0)):
        stage = tmp_path / "run" / name
        stage.unlink()
        stage.mkdir()
        for path in (trained / name).iterdir():
            (stage / path.name).symlink_to(path)
        for part in ("validation", "test"):
            kept = Predictions.load(trained / name / f"predictions_{part}.npz")
            logits = 9 * np.eye(4, dtype=np.float32)[(kept.label + shift) % 4]
            Predictions(kept.clip, kept.label, logits).save(stage / f"predictions_{part}.npz")
    found = changed_clips(runs.read_run(tmp_path / "run"), PreparedDataset.open(tiny))
    assert found["names"] == ("RGB", "Hallucination (step 3)") and found["reason"] is None
    assert found["counts"] == {"fixed": 24, "broken": 0} and len(found["fixed"]) == 3
    assert len({clip["class"] for clip in found["fixed"]}) == 3
    for clip in found["fixed"]:
        streams = [[one["stream"] for one in model["maps"]] for model in clip["models"]]
        assert streams == [["rgb"], ["hallucination"]]
        pictures = [clip["rgb"], *(one["picture"] for model in clip["models"] for one in model["maps"])]
        sizes = [Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))).size for picture in pictures]
        assert set(sizes) == {(3 * 32 + 2 * 2, 32)}
