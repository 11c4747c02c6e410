"""Annotated videos: every frame under what is said of it, whole or not there."""

import av
import numpy as np
import pytest
from encoded import pictures, write_video

import hallujax
from hallujax.cli import main
from hallujax.deploy.annotate import AnnotatedVideo, write_annotated
from hallujax.deploy.prediction import Moment, Prediction, Scores, Trust
from hallujax.deploy.video import open_clip
from hallujax.errors import DataError, UsageError

CLASSES = ("jump", "kick")


def scores(first):
    logits = np.array([first, 0.0], np.float32)
    return {"fused": Scores(CLASSES, logits), "rgb": Scores(CLASSES, logits)}


def decoded(path):
    with av.open(str(path)) as video:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    return np.array([time for time, _ in frames]), np.stack([frame for _, frame in frames])


def test_frames_and_times_are_the_clip_s(tmp_path):
    times = [0, 40, 500, 520, 2000]
    frames = np.repeat(np.arange(0, 250, 50, np.uint8), 24 * 32 * 3).reshape(5, 24, 32, 3)
    clip = open_clip(write_video(tmp_path / "clip.mkv", frames, codec="ffv1", pixels="bgr0", times=times))
    write_annotated(tmp_path / "out" / "seen.mp4", clip, Prediction(scores(2.0)))
    found, shown = decoded(tmp_path / "out" / "seen.mp4")
    np.testing.assert_allclose(found, np.array(times) / 1000, atol=1e-3)
    assert shown.shape[2] == 400 and shown.shape[1] > 300, "enlarged, with a panel below"
    np.testing.assert_allclose(shown[:, 10:290, 10:390].mean((1, 2, 3)), np.arange(0, 250, 50), atol=4)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["seen.mp4"]


def test_the_bar_is_as_long_as_the_probability(tmp_path):
    widths = []
    for logit in (0.0, 6.0):
        write_annotated(tmp_path / "seen.mp4", open_clip(pictures(1, 300, 400)), Prediction(scores(logit)))
        panel = decoded(tmp_path / "seen.mp4")[1][0, 300:].astype(int)
        widths.append((panel[:, :, 2] - panel[:, :, 0] > 100).any(0).sum())  # blue
    full = widths[1] / Prediction(scores(6.0)).probabilities[0]
    assert widths[0] == pytest.approx(0.5 * full, abs=6)


def test_the_timeline_and_its_cursor(tmp_path):
    timeline = tuple(Moment(i, i + 1.0, "frames", scores(3.0 if i < 2 else -3.0)) for i in range(4))
    write_annotated(tmp_path / "seen.mp4", open_clip(pictures(4, 300, 400)), Prediction.over(timeline))
    shown = decoded(tmp_path / "seen.mp4")[1].astype(int)
    band = shown[:, -18]
    blue, orange = (band[0, 100:180].mean(0), band[0, 220:380].mean(0))
    assert blue[2] > blue[0] + 60 and orange[0] > orange[2] + 60, "one colour a class, halves by halves"
    assert shown[1, -18, 190, 2] > shown[1, -18, 190, 0], "each frame has the colour of what is said above"
    white = [np.flatnonzero((shown[i, -32] > 130).all(-1)) for i in range(4)]  # above the band only the cursor
    assert [int(at.mean()) for at in white] == sorted({int(at.mean()) for at in white}), "it moves"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 1000), (1000, 3), (200, 2600), (2600, 200), (251, 401)])
def test_any_size_can_be_shown(tmp_path, height, width):
    trust = Trust(doubt=0.2, threshold=0.1, false_alarms=0.05)
    said = Prediction(scores(1.0), depth=trust)
    with AnnotatedVideo(tmp_path / "seen.mp4") as video:
        video.add(0.0, pictures(1, height, width)[0], None)
        video.add(0.0, pictures(1, width, height)[0], said)
    times, shown = decoded(tmp_path / "seen.mp4")
    assert len(shown) == 2 and times[1] > times[0] and max(shown.shape[1:3]) <= 1280 + 200


def test_what_fails_leaves_nothing(tmp_path):
    out = tmp_path / "seen.mp4"
    out.write_bytes(b"earlier")

    class Failing:
        times, end, unit = np.arange(3.0), 3.0, "frames"

        def frames(self, wanted):
            yield from pictures(2)
            raise DataError("clip.mp4: damaged")

    with pytest.raises(DataError, match="damaged"):
        write_annotated(out, Failing(), Prediction(scores(1.0)))
    with AnnotatedVideo(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["seen.mp4"] and out.read_bytes() == b"earlier"


def test_the_command(trained, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    files = [write_video(tmp_path / name, pictures(6)) for name in ("a.mov", "other/a.mov")]
    bad = tmp_path / "bad.mov"
    bad.write_bytes(b"no video")
    predict = ["predict", "--model", str(trained), "--system", "RGB"]
    out = tmp_path / "out"
    assert main([*predict, "--save", str(out), *map(str, [*files, bad])]) == DataError.exit_code
    assert sorted(path.name for path in out.iterdir()) == ["a.annotated.mp4", "a.annotated_2.mp4"]
    assert len(decoded(out / "a.annotated_2.mp4")[1]) == 6
    capsys.readouterr()
    assert main([*predict, "--window", "0.1", "--save", str(tmp_path / "one.mp4"), str(files[0])]) == 0
    lines = capsys.readouterr().out.splitlines()
    timeline = [line for line in lines if " - " in line]
    assert len(timeline) == len(hallujax.load(trained, "RGB")(files[0], window=0.1).timeline)
    assert lines.index(timeline[-1]) < lines.index(f"{files[0]}: {lines[-3].split(': ')[1]}"), "said as they are read"
    assert len(decoded(tmp_path / "one.mp4")[1]) == 6
    for wrong in (
        [*predict, "--save", str(tmp_path / "one.mp4"), *map(str, files)],
        [*predict, "--save", str(tmp_path / "one.mp4"), str(tmp_path / "one.mp4")],
        [*predict, "--hop", "1", str(files[0])],
        predict,
    ):
        assert main(wrong) == UsageError.exit_code
