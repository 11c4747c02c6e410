"""Depth beside RGB: believed or not clip by clip, by the threshold that `hallujax robustness` calibrated."""

import functools
import json

import jax
import numpy as np
import pytest
from encoded import pictures, write_video
from PIL import Image

from hallujax.cli import main
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import encode
from hallujax.deploy.depth import RgbAndDepth, load_with_depth
from hallujax.deploy.video import fit, fit_depth, open_clip, open_depth
from hallujax.errors import CheckpointError, DataError, UsageError
from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.noisy import judge_depth
from hallujax.training.checkpoint import Checkpoints

TWO_STREAM = "ADMD two-stream"


@pytest.fixture(scope="module")
def clips(tiny):
    """`[(id, RGB, depth)]` of the validation clips, every frame."""
    dataset = PreparedDataset.open(tiny)
    rows = split(dataset, "cross_subject")["validation"]
    frames = np.tile(np.arange(5), (len(rows), 1))
    rgb, depth = dataset.read("rgb", rows, frames), dataset.read("depth", rows, frames)
    return [(dataset.clip_id(row), *both) for row, *both in zip(rows, rgb, depth, strict=True)]


@pytest.fixture(scope="module")
def doubts(trained, experiment, clips):
    """The discriminator's, by the functions that measured robustness, of the whole checkpoint."""
    from hallujax.training.start import build_method

    method = build_method(experiment.stages["admd"], 4)
    checkpoints = Checkpoints(trained / "admd" / "checkpoints")
    networks = checkpoints.restore_best()
    checkpoints.close()
    depth = np.stack([depth[[0, 2, 4]] for _, _, depth in clips])
    encoded = encode({"depth": depth}, experiment.transforms)["depth"]
    judge = jax.jit(functools.partial(judge_depth, admd=method))
    teacher, doubt = judge(networks["params"], networks["batch_stats"], encoded)
    return np.asarray(teacher), np.asarray(doubt)


@pytest.fixture
def run(trained, doubts, tmp_path):
    """A run beside a robustness.json whose threshold believes half of the clips."""
    run = tmp_path / "table" / "seed0"
    run.parent.mkdir()
    run.symlink_to(trained)
    calibrate(run.parent, trained, float(np.median(doubts[1])))
    return run


def calibrate(folder, trained, threshold, **changed):
    fingerprint = json.loads((trained / "run.json").read_text())["dataset"]["fingerprint"]
    lines = [{"seed": 0, "system": s, "threshold": t} for s, t in (("Switch: depth's softmax", 9), ("x", 9))]
    lines += [{"seed": 3, "system": "Switch: discriminator", "threshold": 9.0}]
    lines += [{"seed": 0, "system": "Switch: discriminator", "threshold": threshold}]
    found = {"fallback": TWO_STREAM, "dataset": {"fingerprint": fingerprint}, "false_alarms": 0.05}
    (folder / "robustness.json").write_text(json.dumps(found | {"thresholds": lines} | changed))


def test_each_clip_gets_the_system_that_its_depth_deserves(trained, run, clips, doubts):
    teacher, doubt = doubts
    rgb, admd = (Predictions.load(trained / stage / "predictions_validation.npz") for stage in ("rgb", "admd"))
    predictor = load_with_depth(run)
    found = list(predictor.predict_many([(rgb, depth) for _, rgb, depth in clips]))
    np.testing.assert_allclose([one.depth.doubt for one in found], doubt, atol=1e-6)
    believed = doubt <= np.float32(np.median(doubt))
    assert [one.depth.used for one in found] == believed.tolist() and 0 < believed.sum() < len(clips)
    order = [rgb.clip.tolist().index(clip.encode()) for clip, _, _ in clips]
    expected = np.where(believed[:, None], teacher + rgb.logits[order], admd.logits[order] + rgb.logits[order]) / 2
    np.testing.assert_allclose([one.logits for one in found], expected, atol=1e-4)
    np.testing.assert_allclose([one.scores["depth"].logits for one in found], teacher, atol=1e-4)
    assert set(found[0].scores) == {"fused", "hallucination", "rgb", "depth"}
    assert set(predictor.activations(clips[0][1:])) == {"hallucination", "rgb"}


def test_files_of_every_kind_say_the_same(run, clips, tmp_path):
    _, rgb, depth = clips[0]
    predictor = load_with_depth(run)
    expected = predictor((rgb, depth)).logits
    video = write_video(tmp_path / "rgb.mov", rgb)
    deep = write_video(tmp_path / "depth.mkv", depth, codec="ffv1", pixels="gray16le", layout="gray16le")
    (tmp_path / "depth").mkdir()
    for i, frame in enumerate(depth):
        Image.fromarray(frame).save(tmp_path / "depth" / f"{i}.png")
    np.save(tmp_path / "depth.npy", depth)
    for source in (deep, tmp_path / "depth", str(tmp_path / "depth.npy")):
        np.testing.assert_allclose(predictor((video, source)).logits, expected, atol=1e-6)
    moments = predictor((video, deep), window=0.1, hop=0.1).timeline
    assert [moment.depth is not None for moment in moments] == [True, True]


def test_the_command(run, clips, doubts, tmp_path, capsys):
    believed = doubts[1] <= np.float32(np.median(doubts[1]))
    for wanted, text in ((True, "depth was used (doubt "), (False, "depth was not used, its hallucination was (doubt")):
        _, rgb, depth = clips[int(np.flatnonzero(believed == wanted)[0])]
        video, deep = write_video(tmp_path / "rgb.mov", rgb), tmp_path / "depth.npy"
        np.save(deep, depth)
        command = ["predict", "--model", str(run), "--depth", str(deep), str(video)]
        assert main([*command, "--save", str(tmp_path / "seen.mp4")]) == 0
        output = capsys.readouterr().out
        assert text in output and "at 5 % false alarms)" in output
        assert main([*command, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["depth"]["used"] is wanted and (said["depth"]["doubt"] <= said["depth"]["threshold"]) is wanted
    assert main([*command, "--window", "0.1"]) == 0
    assert "threshold" in capsys.readouterr().out.splitlines()[0]
    for wrong in ([*command, str(video)], [*command[:-1], "--camera", "0"]):
        assert main(wrong) == UsageError.exit_code


def test_a_table_s_folder_will_do(run, clips):
    assert load_with_depth(run.parent, TWO_STREAM)(clips[0][1:]).depth is not None


def test_what_is_not_calibrated_is_said(trained, run, tmp_path):
    path = run.parent / "robustness.json"
    with pytest.raises(UsageError, match=r"--system is 'RGB'; it can be 'ADMD two-stream'"):
        load_with_depth(run, "RGB")
    for changed in ({"fallback": "Another"}, {"dataset": {"fingerprint": "0"}}, {"thresholds": []}):
        calibrate(run.parent, trained, 0.5, **changed)
        with pytest.raises(UsageError, match=r"is not known .*: hallujax robustness --workdir .*seed0 calibrates it"):
            load_with_depth(run)
    for damaged in ("{", "{}", "[]"):
        path.write_text(damaged)
        with pytest.raises(CheckpointError, match=r"robustness.json is damaged .*: run hallujax robustness again"):
            load_with_depth(run)
    path.unlink()
    with pytest.raises(UsageError, match="calibrates it"):
        load_with_depth(run)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "SHA256SUMS").touch()
    with pytest.raises(UsageError, match="holds no depth stream"):
        load_with_depth(tmp_path / "export")
    with pytest.raises(UsageError, match="no such folder"):
        load_with_depth(tmp_path / "nowhere")


def test_pairs_that_are_none():
    rgb, depth = pictures(20), np.full((20, 24, 32), 2000, np.uint16)
    pair = RgbAndDepth(open_clip(rgb), open_depth(depth[:19]), (32, 32))
    assert len(pair.times) == 19 and pair.end == 19.0
    with pytest.raises(DataError, match="RGB has 20 frames and depth 17: they are not of one clip"):
        RgbAndDepth(open_clip(rgb), open_depth(depth[:17]), (32, 32))
    with pytest.raises(DataError, match="32x24 and 32x32 pixels are not in line"):
        next(RgbAndDepth(open_clip(rgb), open_depth(np.zeros((20, 32, 32), np.uint16)), (32, 32)).frames([0]))


def test_depth_that_is_none(tmp_path):
    for wrong in (np.zeros((3, 4, 4)), np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 4, 1), np.uint16), [[1], [1, 2]]):
        with pytest.raises(DataError, match="depth must be"):
            open_depth(wrong)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0.png: depth is 16-bit grey in millimetres, this picture is RGB"):
        next(open_depth(tmp_path).frames([0]))
    with pytest.raises(DataError, match="depth needs 16 bits a pixel, this video is rgb24"):
        next(open_depth(write_video(tmp_path / "rgb.mov", pictures(2))).frames([0]))


def test_depth_is_cut_as_rgb_is_and_never_mixed():
    grid = np.add.outer(1000 * np.arange(40), np.arange(64)).astype(np.uint16)
    for size in ((20, 20), (40, 40), (40, 64), (80, 80)):
        found = fit_depth(grid, size)
        assert found.shape == size and set(found.ravel().tolist()) <= set(grid.ravel().tolist())
        for channel in (grid % 1000, grid // 1000):  # x and y: as RGB's means, to a pixel
            picture = np.repeat(channel[..., None], 3, -1).astype(np.uint8)
            assert np.abs(fit(picture, size)[..., 0].astype(int) - fit_depth(channel, size)).max() <= 1
