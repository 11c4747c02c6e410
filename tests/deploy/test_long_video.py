"""Videos too long to decode as a whole: the same frames as decoding it all finds, and not many more are decoded."""

import av
import numpy as np
import pytest
from encoded import MILLISECOND, pictures, write_video

import hallujax
from hallujax.data.clips import uniform_frames
from hallujax.deploy import container
from hallujax.deploy.video import open_clip
from hallujax.errors import DataError

RAMP = np.broadcast_to(np.arange(20, 220, dtype=np.uint8)[:, None, None, None], (200, 48, 64, 3))
CODECS = [
    ("clip.mp4", {"codec": "libx264", "pixels": "yuv420p", "options": {"bf": "3", "g": "25"}}),
    ("clip.mkv", {"codec": "libx264", "pixels": "yuv420p", "options": {"bf": "2", "g": "40"}}),
    ("clip.ts", {"codec": "libx264", "pixels": "yuv420p", "options": {"bf": "2", "g": "12"}}),
    ("clip.webm", {"codec": "libvpx", "pixels": "yuv420p", "options": {"g": "30", "deadline": "realtime"}}),
    ("clip.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ("clip.mov", {"codec": "png"}),
]


@pytest.mark.parametrize(("name", "encoder"), CODECS, ids=[name for name, _ in CODECS])
def test_sought_frames_are_the_counted_ones(tmp_path, monkeypatch, name, encoder):
    times = [40 * i + (1500 if i > 100 else 0) for i in range(200)] if name.endswith(("mp4", "mkv")) else None
    path = write_video(tmp_path / name, RAMP, times=times, **encoder)
    counted = open_clip(path)
    monkeypatch.setattr(container, "EXACT", 100)
    sought = open_clip(path)
    assert sought._pts is not None or name == "clip.avi"
    np.testing.assert_allclose(sought.times, counted.times, atol=1e-3)
    assert sought.end == pytest.approx(counted.end, abs=0.05)
    for wanted in ([0, 199], [3, 3, 60, 61, 62, 150], [*range(90, 130)], uniform_frames(200, 5)):
        for one, other in zip(sought.frames(wanted), counted.frames(wanted), strict=True):
            np.testing.assert_array_equal(one, other)


def write_three_hours(path):
    """54,000 frames of 5 a second, from the 50 that are encoded; each hundredth is brighter."""
    dark, bright = np.full((50, 32, 32, 3), 60, np.uint8), np.full((50, 32, 32, 3), 180, np.uint8)
    sources = []
    for frames in (dark, bright):
        part = write_video(path.with_name("part.mkv"), frames, codec="mpeg4", pixels="yuv420p", options={"g": "50"})
        with av.open(str(part)) as source:
            stream = source.streams.video[0]
            sources.append([(bytes(p), p.is_keyframe) for p in source.demux(stream) if p.size])
            header = stream.codec_context.extradata
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.time_base, stream.codec_context.extradata = "yuv420p", MILLISECOND, header
        for start in range(0, 54000, 50):
            for i, (data, key) in enumerate(sources[start % 5000 == 0]):
                packet = av.Packet(data)
                packet.pts = packet.dts = 200 * (start + i)
                packet.time_base, packet.stream, packet.is_keyframe = MILLISECOND, stream, key
                target.mux(packet)
    return path


@pytest.fixture(scope="module")
def three_hours(tmp_path_factory):
    return write_three_hours(tmp_path_factory.mktemp("long") / "long.mkv")


@pytest.fixture
def decoded(monkeypatch):
    """The frames that were decoded, counted."""
    found = []
    check = container.VideoFile._check_size
    monkeypatch.setattr(container.VideoFile, "_check_size", lambda self, frame: (found.append(1), check(self, frame)))
    return found


def test_three_hours_are_not_decoded_for_a_few_frames(trained, three_hours, decoded):
    clip = open_clip(three_hours)
    assert len(clip.times) == 54000 and clip.end == pytest.approx(3 * 3600, abs=1)
    five = [float(frame.mean()) for frame in clip.frames([0, 49, 50, 25010, 53999])]
    np.testing.assert_allclose(five, [180, 180, 60, 180, 60], atol=6)
    predictor = hallujax.load(trained, "RGB")
    assert predictor(three_hours).label in predictor.classes
    assert len(decoded) < 8 * 51 + 20, "a wanted frame costs no more than what follows its key frame"


def test_windows_of_three_hours_come_as_they_are_read(trained, three_hours, decoded):
    moments = hallujax.load(trained, "RGB").slide(three_hours, window=10.0)
    first = next(moments)
    assert (first.start, first.end) == (0.0, 10.0)
    assert len(decoded) < 16 * 25 + 3 * 50 + 80, "no more than a batch of windows is decoded for the first"
    moments.close()


def test_what_lies_behind_damage_is_found_and_damage_is_said(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mkv", pictures(40), codec="ffv1", pixels="bgr0", options={"g": "1"})
    with av.open(str(path)) as video:
        places = [(packet.pos, packet.size) for packet in video.demux(video=0) if packet.size]
    whole = bytearray(path.read_bytes())
    place, size = places[20]
    whole[place + 20 : place + size - 5] = bytes(size - 25)
    path.write_bytes(whole)
    monkeypatch.setattr(container, "EXACT", 10)
    clip = open_clip(path)
    last = next(clip.frames([39]))
    np.testing.assert_array_equal(last, pictures(40)[39])
    path.write_bytes(whole[: places[30][0]])
    np.testing.assert_array_equal(next(clip.frames([38])), pictures(40)[29], "what is still shown")
    for place, size in places:
        whole[place + 20 : place + size - 5] = bytes(size - 25)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"clip.mkv: (damaged: no frame can be decoded at 1.52 s|not a video that)"):
        next(clip.frames([38]))
