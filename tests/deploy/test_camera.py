"""Frames that come one by one: the same path as a camera's, from FFmpeg's test pattern."""

import json
import sys

import av
import numpy as np
import pytest
from encoded import pictures

import hallujax
from hallujax.cli import main
from hallujax.deploy import camera
from hallujax.deploy.camera import watch
from hallujax.errors import DataError, UsageError

PATTERN = "lavfi:testsrc2=size=64x48:rate=10:duration=2"


@pytest.fixture(scope="module")
def predictor(trained):
    return hallujax.load(trained, "RGB")


def test_frames_and_their_moments():
    moments, frames = zip(*watch(PATTERN), strict=True)
    np.testing.assert_allclose(moments, 0.1 * np.arange(20), atol=1e-9)
    assert {frame.shape for frame in frames} == {(48, 64, 3)} and frames[0].dtype == np.uint8
    assert (frames[0] != frames[-1]).any()


def test_windows_end_with_the_newest_frame(predictor):
    frames = list(watch(PATTERN))
    found = list(predictor.follow(iter(frames), 0.5, 0.3))
    assert [round(moment.end, 3) for moment in found] == [0.5, 0.8, 1.1, 1.4, 1.7]
    assert all(moment.end - moment.start <= 0.5 + 1e-9 and moment.unit == "s" for moment in found)
    last = np.stack([frame for seconds, frame in frames if 1.2 - 1e-9 <= seconds <= 1.7])
    np.testing.assert_allclose(found[-1].scores["rgb"].logits, predictor(last).logits, atol=1e-5)


def test_no_frame_is_asked_for_before_the_window_is_said(predictor):
    asked = []

    def frames():
        for number, frame in enumerate(pictures(20)):
            asked.append(number)
            yield number / 10, frame

    said = [len(asked) for _ in predictor.follow(frames(), 1.0, 0.5)]
    assert said == [11, 16], "the frames of 1.0 and of 1.5 seconds"


def test_a_source_that_ends_early_is_one_window(predictor):
    (moment,) = predictor.follow(((i / 10, frame) for i, frame in enumerate(pictures(4))), 5.0)
    assert (moment.start, moment.end) == (0.0, pytest.approx(0.3))
    assert not list(predictor.follow(iter([]), 5.0))


def test_slow_predictions_leave_windows_out(predictor):
    """Frames of 5 seconds later than the last: one window of them, not ten that were due meanwhile."""
    moments = [0.0, 0.5, 1.0, 6.0, 6.5]
    found = list(predictor.follow(zip(moments, pictures(5), strict=True), 1.0, 0.5))
    assert [moment.end for moment in found] == [1.0, 6.0, 6.5]


@pytest.mark.parametrize(("window", "hop"), [(0, 1), (61, 1), (1, 0), (1, float("inf")), (float("nan"), 1)])
def test_windows_that_cannot_be(predictor, window, hop):
    with pytest.raises(UsageError, match="window is"):
        next(predictor.follow(iter([]), window, hop))


def test_what_a_number_means(monkeypatch):
    for platform, number, opened in (
        ("linux", "1", ("v4l2", "/dev/video1")),
        ("darwin", "0", ("avfoundation", "0")),
        ("win32", "video=My camera", ("dshow", "video=My camera")),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert camera._device(number) == opened
    assert camera._device("x11grab::0.0+10,20") == ("x11grab", ":0.0+10,20")
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(UsageError, match="plan9"):
        camera._device("0")


def test_cameras_that_are_none():
    for name, kind, message in (
        ("/dev/video250", DataError, "camera /dev/video250: cannot be read"),
        ("lavfi:nonsense", DataError, "camera lavfi:nonsense: cannot be read"),
        ("lavfi:sine=duration=1", DataError, "no pictures"),
        ("nosuch:device", UsageError, "without the input device 'nosuch'"),
    ):
        with pytest.raises(kind, match=message) as error:
            next(watch(name))
        assert "\n" not in str(error.value)


def test_the_command(trained, tmp_path, capsys):
    out = tmp_path / "seen.mp4"
    command = ["predict", "--model", str(trained), "--system", "RGB", "--camera", PATTERN, "--window", "0.5"]
    assert main([*command, "--json", "--top", "1", "--save", str(out)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ends = [round(line["end"], 2) for line in lines]
    assert ends[0] == 0.5 and ends == sorted(ends) and len(ends) > 4
    assert lines[0]["camera"] == PATTERN and lines[0]["scores"]["rgb"][0]["class"] == lines[0]["label"]
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["seen.mp4"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["0.00", "-", "0.50", "s", *_label(lines[0])]
    for wrong in ([*command, "--save", str(tmp_path)], [*command, "clip.mp4"], command[:-4]):
        assert main(wrong) == UsageError.exit_code
    assert main([*command[:-3], "/dev/video250"]) == DataError.exit_code


def _label(line):
    return [line["label"], f"{line['scores']['fused'][0]['probability']:.3f}"]


def test_control_c_ends_it_well(trained, tmp_path, monkeypatch, capsys):
    """As a signal does, between two frames: what was seen is a whole video."""

    def stopped(name):
        for number, frame in enumerate(pictures(12)):
            yield number / 10, frame
        raise KeyboardInterrupt

    monkeypatch.setattr("hallujax.deploy.command.watch", stopped)
    out = tmp_path / "seen.mp4"
    command = ["predict", "--model", str(trained), "--system", "RGB", "--camera", "0", "--window", "1"]
    assert main([*command, "--save", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 12
