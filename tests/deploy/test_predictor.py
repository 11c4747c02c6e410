"""A run's RGB side predicts what evaluation predicted, from arrays, folders and video files."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
from encoded import pictures, write_video
from PIL import Image

import hallujax
from hallujax import sealed
from hallujax.cli import main
from hallujax.data.records import PreparedDataset
from hallujax.deploy.command import predict_files
from hallujax.deploy.predictor import Predictor, _frames_between, _windows
from hallujax.errors import CheckpointError, DataError, UsageError
from hallujax.evaluation.evaluate import Predictions, fuse
from hallujax.trees import by_name

STEP4 = "Hallucination + RGB (step 4)"


@pytest.fixture(scope="module")
def predictor(trained):
    return hallujax.load(trained, STEP4)


@pytest.fixture(scope="module")
def clips(tiny):
    """`{clip: every RGB frame}` of a prepared dataset."""
    dataset = PreparedDataset.open(tiny)
    rows = np.arange(len(dataset))
    frames = dataset.read("rgb", rows, np.tile(np.arange(5), (len(rows), 1)))
    return {dataset.clip_id(row): frames[row] for row in rows}


def evaluated(trained, *stages):
    return fuse([Predictions.load(trained / stage / "predictions_test.npz") for stage in stages])


@pytest.mark.parametrize(
    ("system", "stages", "streams"),
    [
        (STEP4, ["step4"], {"hallucination", "rgb"}),
        ("ADMD two-stream", ["admd", "rgb"], {"hallucination", "rgb"}),
        ("RGB + control", ["rgb", "control"], {"rgb", "control"}),
    ],
)
def test_the_logits_are_those_of_evaluation(trained, clips, system, stages, streams):
    expected = evaluated(trained, *stages)
    found = list(hallujax.load(trained, system).predict_many([clips[clip.decode()] for clip in expected.clip]))
    np.testing.assert_allclose([prediction.logits for prediction in found], expected.logits, atol=1e-5)
    assert set(found[0].scores) == {"fused", *streams}
    if system == "RGB + control":
        alone = evaluated(trained, "control").logits
        np.testing.assert_allclose([p.scores["control"].logits for p in found], alone, atol=1e-5)


def test_only_what_the_prediction_needs_is_there(trained, predictor):
    assert {name.split("/")[2] for name in by_name(predictor.system.shapes)} == {"hallucination", "rgb"}
    admd = hallujax.load(trained, "ADMD hallucination").system
    assert set(admd.shapes["admd"]["params"]) == {"hallucination"}, "its classifier predicts, not its discriminator"


def test_a_discriminator_that_is_asked_is_kept(trained):
    import dataclasses

    system = hallujax.load(trained, "ADMD hallucination").system
    (member,) = system.members
    asked = dataclasses.replace(member, options={**member.options, "predict_from": "discriminator"})
    shapes = dataclasses.replace(system, members=(asked,)).shapes
    assert set(shapes["admd"]["params"]) == {"hallucination", "discriminator"}


def test_the_default_system_is_chosen_on_validation_clips(trained, tmp_path):
    """Whatever the test clips say: they are made to say the opposite."""
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)

    def pretend(stage, split, right):
        predictions = Predictions.load(run / stage / f"predictions_{split}.npz")
        labels = predictions.label if right else (predictions.label + 1) % 4
        Predictions(predictions.clip, predictions.label, 100 * np.eye(4, dtype=np.float32)[labels]).save(
            run / stage / f"predictions_{split}.npz"
        )

    for stage in ("rgb", "rgb2", "control", "hallucination", "step4", "admd", "depth", "two_stream"):
        for split in ("validation", "test"):
            # Depth is best, and cannot be deployed.
            pretend(stage, split, stage == "depth" or (stage == "hallucination") == (split == "validation"))
    assert hallujax.load(run).system.name == "Hallucination (step 3)"


def test_scores_add_up(predictor):
    prediction = predictor(pictures(9))
    assert list(prediction.scores) == ["fused", "hallucination", "rgb"]
    np.testing.assert_allclose(prediction.probabilities.sum(), 1, rtol=1e-6)
    streams = [prediction.scores[name].logits for name in ("hallucination", "rgb")]
    np.testing.assert_allclose(prediction.logits, np.mean(streams, axis=0), atol=1e-6)
    top = prediction.top(9)
    assert [name for name, _ in top] == [prediction.classes[i] for i in np.argsort(-prediction.probabilities)]
    assert prediction.label == top[0][0] and top[0][1] == pytest.approx(prediction.probabilities.max())


def test_files_say_what_arrays_say(predictor, clips, tmp_path):
    frames = next(iter(clips.values()))
    expected = predictor(frames).logits
    video = write_video(tmp_path / "clip.mov", frames)
    (tmp_path / "folder").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "folder" / f"{i}.png")
    for source in (video, str(video), tmp_path / "folder", [*frames]):
        np.testing.assert_allclose(predictor(source).logits, expected, atol=1e-6)


def test_frames_of_another_size_and_short_clips(predictor):
    large = pictures(5, height=64, width=100)
    middle = large[:, :, 18:82].reshape(5, 32, 2, 32, 2, 3).mean((2, 4)).round().astype(np.uint8)
    np.testing.assert_allclose(predictor(large).logits, predictor(middle).logits, atol=0.02)
    one = predictor(large[:1]).logits
    np.testing.assert_allclose(one, predictor(large[[0, 0, 0]]).logits, atol=1e-6)
    assert np.isfinite(predictor(np.zeros((1, 1, 1, 3), np.uint8)).logits).all()


def test_a_sliding_window_is_its_parts(predictor):
    frames = pictures(50, height=32)
    whole = predictor(frames, window=10, hop=2.0)
    assert [(m.start, m.end) for m in whole.timeline] == [(2.0 * i, 2.0 * i + 10) for i in range(21)]
    parts = list(predictor.predict_many(frames[2 * i : 2 * i + 10] for i in range(21)))
    for moment, part in zip(whole.timeline, parts, strict=True):
        np.testing.assert_allclose(moment.scores["rgb"].logits, part.scores["rgb"].logits, atol=1e-6)
    np.testing.assert_allclose(whole.logits, np.mean([part.logits for part in parts], axis=0), atol=1e-6)
    assert whole.timeline[0].unit == "frames"


def test_windows_of_seconds_in_a_video_with_a_gap(predictor, tmp_path):
    frames, times = pictures(6), [0, 100, 200, 1900, 2000, 2900]
    video = write_video(tmp_path / "clip.mkv", frames, codec="ffv1", pixels="bgr0", times=times)
    moments = predictor(video, window=1.0, hop=1.0).timeline
    assert [(m.start, m.unit) for m in moments][:2] == [(0.0, "s"), (1.0, "s")]
    np.testing.assert_allclose(moments[0].scores["fused"].logits, predictor(frames[:3]).logits, atol=1e-6)


def test_which_windows_and_which_frames():
    assert _windows(10, 20, 5) == [(0.0, 10)]
    assert _windows(10, 4, 4) == [(0, 4), (4, 8), (6, 10)]
    np.testing.assert_allclose(_windows(0.3, 0.1, 0.1), [(0, 0.1), (0.1, 0.2), (0.2, 0.3)], atol=1e-12)
    times = np.array([0.0, 0.1, 0.2, 5.0])
    assert _frames_between(times, 0.0, 0.2, 2).tolist() == [0, 1]
    assert _frames_between(times, 1.0, 2.0, 2).tolist() == [2, 2], "what is still shown"
    assert _frames_between(times, 0.0, 9.0, 4).tolist() == [0, 1, 2, 3]
    for window, hop in ((0, 1), (1, -1), (np.inf, 1), (np.nan, 1)):
        with pytest.raises(UsageError, match="positive"):
            _windows(10, window, hop)


def test_what_cannot_be_loaded_is_said(trained, tmp_path):
    for path, system, message in (
        (tmp_path / "nowhere", None, "no such folder"),
        (tmp_path, None, "neither run.json nor SHA256SUMS"),
        (trained / "step4", None, "is one stage"),
        (trained, "Step 4", "has no system 'Step 4'; it has 'RGB'"),
        (trained, "Two-stream (step 2)", r"holds streams of depth \+ rgb"),
    ):
        with pytest.raises(UsageError, match=message):
            hallujax.load(path, system)
    run = shutil.copytree(trained, tmp_path / "run")
    settings = sealed.read(run / "run.json", "")
    settings["config"]["stages"]["step4"]["model"]["width"] = 8
    sealed.write(run / "run.json", settings)
    with pytest.raises(CheckpointError, match=r"step4/.* is float32\[.*\], the network's is float32\[.*\]"):
        hallujax.load(run, STEP4)
    (run / "rgb" / "stage.json").unlink()
    with pytest.raises(UsageError, match="'RGB' is not finished"):
        hallujax.load(run, "RGB")


def test_of_a_table_s_folder_the_seed_best_on_validation_clips(trained, tmp_path, capsys):
    """An unfinished seed is left out and named; whatever the test clips say."""
    table = tmp_path / "table"
    for seed in (0, 1, 2):
        shutil.copytree(trained, table / f"seed{seed}", symlinks=True)
        settings = sealed.read(trained / "run.json", "")
        settings["config"]["seed"] = seed
        sealed.write(table / f"seed{seed}" / "run.json", settings)
        for part, right in (("validation", seed == 1), ("test", seed == 0)):
            path = table / f"seed{seed}" / "rgb" / f"predictions_{part}.npz"
            predictions = Predictions.load(path)
            labels = predictions.label if right else (predictions.label + 1) % 4
            Predictions(predictions.clip, predictions.label, np.eye(4, dtype=np.float32)[labels]).save(path)
    found = hallujax.load(table, "RGB")
    assert found.origin == f"RGB of {table / 'seed1'}, on validation clips the best of 3 seeds"
    (table / "seed2" / "rgb" / "stage.json").unlink()
    assert hallujax.load(table, "RGB").origin.startswith(
        f"RGB of {table / 'seed1'}, on validation clips the best of 2 seeds (1 of 3 seeds left out: 'RGB' is not fini"
    )
    np.save(tmp_path / "clip.npy", pictures(4))
    assert main(["predict", "--model", str(table), str(tmp_path / "clip.npy")]) == 0
    assert re.search(
        rf"of {table / 'seed1'}, on validation clips the best of \d systems that need RGB alone and 3 seeds\n$",
        capsys.readouterr().err,
    )
    assert hallujax.load(trained, "RGB").origin == ""
    for seed in (0, 1):
        (table / f"seed{seed}" / "rgb" / "stage.json").unlink()
    with pytest.raises(UsageError, match=r"'RGB' is not finished in .*seed0; without a stage.json: rgb; finished: "):
        hallujax.load(table, "RGB")
    for path in (table / "seed2").glob("*/predictions_test*.npz"):
        path.unlink()
    for seed in (0, 1):
        shutil.rmtree(table / f"seed{seed}")
    with pytest.raises(UsageError, match=r"seed2 holds no .* RGB alone; .*; without predictions_test.npz: .*admd"):
        hallujax.load(table)


def test_damaged_runs_are_said(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for path, content in (
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", '{"dataset": {"classes": []}, "config": {}}'),
        ("rgb/stage.json", "{"),
        ("rgb/stage.json", "{}"),
        ("rgb/predictions_validation.npz", "no"),
    ):
        whole = (run / path).read_bytes()
        (run / path).write_text(content)
        with pytest.raises(CheckpointError, match="damaged") as error:
            hallujax.load(run)
        assert str(run) in str(error.value) and "\n" not in str(error.value)
        (run / path).write_bytes(whole)
    settings = sealed.read(run / "run.json", "")
    settings["config"]["data"]["later"] = 1
    sealed.write(run / "run.json", settings)
    with pytest.raises(UsageError, match=r"run.json is of another hallujax: unknown configuration key data.later"):
        hallujax.load(run)


def test_names_and_classes_must_agree_and_scores_be_numbers(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    settings = sealed.read(run / "run.json", "")
    settings["dataset"]["classes"] = settings["dataset"]["classes"][:3]
    sealed.write(run / "run.json", settings)
    with pytest.raises(CheckpointError, match=r"logits/bias is float32\[4\], the network's is float32\[3\]"):
        hallujax.load(run, "RGB")
    system = hallujax.load(trained, "RGB").system
    for scores, message in (
        (np.zeros((1, 5)), "4 classes have names, 5 have scores"),
        (np.full((1, 4), np.nan), "fin"),
    ):
        predictor = Predictor(system, lambda clips, scores=scores: {"fused": scores})
        with pytest.raises(CheckpointError, match=message):
            predictor(pictures(4))


def test_a_bar_on_a_terminal_and_nowhere_else(predictor, tmp_path, monkeypatch, capsys):
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.npy")
        np.save(files[-1], pictures(4))
    said = {key: None for key in ("window", "hop", "save", "depth")} | {"top": 1, "as_json": False}
    assert predict_files(predictor, files, **said) == 0
    expected = capsys.readouterr()
    assert len(expected.out.splitlines()) == 3 * 4 and not expected.err
    ours, its = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", os.fdopen(its, "w"))
    assert predict_files(predictor, files, **said) == 0
    sys.stderr.close()
    drawn = os.read(ours, 2**16).decode()
    os.close(ours)
    assert "3/3" in drawn and ".npy" not in drawn
    assert capsys.readouterr().out == expected.out


def test_a_clip_of_a_million_windows_is_refused(predictor):
    with pytest.raises(DataError, match="more than 1,000,000 windows, one every 1e-05; hop further"):
        predictor(pictures(30), window=1.0, hop=1e-5)


def test_the_command(trained, clips, tmp_path, capsys):
    frames = next(iter(clips.values()))
    video, text = write_video(tmp_path / "clip.mov", frames), tmp_path / "notes.txt"
    text.write_text("no video")
    predict = ["predict", "--model", str(trained), "--system", STEP4]
    assert main([*predict, "--top", "2", str(text), str(video), str(video)]) == DataError.exit_code
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        f"hallujax: {text}: not a video that FFmpeg can read (Invalid data found when processing input)"
    ]
    assert output.out.count("clip.mov: ") == 2 and output.out.count("hallucination") == 2
    assert main([*predict, "--json", "--window", "0.1", str(video)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    said, expected = json.loads(line), hallujax.load(trained, STEP4)(frames, window=2.5)
    assert said["file"] == str(video) and said["system"] == STEP4
    assert [moment["label"] for moment in said["timeline"]] == [moment.label for moment in expected.timeline]
    assert said["scores"]["rgb"][0]["class"] == expected.scores["rgb"].label
    assert main(["predict", "--model", str(tmp_path), str(video)]) == UsageError.exit_code
    with pytest.raises(SystemExit):
        main([*predict, "--window", "0", str(video)])
