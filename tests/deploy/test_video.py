"""Clips from files: what comes out is what was put in, upright and in RGB; what is no clip is one clear line."""

import pathlib
import subprocess
import sys
import zipfile
import zlib

import av
import numpy as np
import pytest
from encoded import pictures, write_sound, write_video
from PIL import Image

from hallujax.deploy.video import fit, open_clip
from hallujax.errors import DataError


def everything(path):
    clip = open_clip(path)
    return np.stack(list(clip.frames(range(len(clip.times)))))


def test_a_lossless_video_comes_back_bit_for_bit(tmp_path):
    frames = pictures(7)
    clip = open_clip(write_video(tmp_path / "clip.mov", frames))
    np.testing.assert_array_equal(np.stack(list(clip.frames(range(7)))), frames)
    np.testing.assert_array_equal(np.stack(list(clip.frames([0, 2, 2, 6]))), frames[[0, 2, 2, 6]])
    np.testing.assert_allclose(clip.times, 0.04 * np.arange(7), atol=1e-9)
    assert clip.end == pytest.approx(0.28) and clip.unit == "s"


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_phone_held_otherwise(tmp_path, degrees):
    frames = pictures(2)
    upright = everything(write_video(tmp_path / "clip.mov", frames, rotation=degrees))
    np.testing.assert_array_equal(upright, np.rot90(frames, degrees // 90, axes=(1, 2)))


def test_grey_and_alpha_become_rgb(tmp_path):
    grey = pictures(3)[..., 0]
    found = everything(write_video(tmp_path / "grey.mov", grey, pixels="gray", layout="gray"))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, -1))
    alpha = pictures(3, channels=4)
    found = everything(write_video(tmp_path / "alpha.mov", alpha, pixels="rgba", layout="rgba"))
    np.testing.assert_array_equal(found, alpha[..., :3])


def test_one_frame(tmp_path):
    frames = pictures(1)
    clip = open_clip(write_video(tmp_path / "clip.mov", frames))
    np.testing.assert_array_equal(next(clip.frames([0])), frames[0])
    assert clip.end > 0


def test_frames_at_varying_moments(tmp_path):
    times = [0, 40, 500, 520, 2000]
    clip = open_clip(write_video(tmp_path / "clip.mkv", pictures(5), codec="ffv1", pixels="bgr0", times=times))
    np.testing.assert_allclose(clip.times, np.array(times) / 1000, atol=1e-9)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_lossy_video_in_order(tmp_path, name):
    """H.264 stores frames out of order (B-frames): a ramp of brightness must come back as a ramp."""
    ramp = np.broadcast_to(np.arange(20, 220, 8, dtype=np.uint8)[:, None, None, None], (25, 48, 64, 3))
    path = write_video(tmp_path / name, ramp, codec="libx264", pixels="yuv420p", options={"bf": "3", "g": "25"})
    np.testing.assert_allclose(everything(path).mean((1, 2, 3)), ramp[:, 0, 0, 0], atol=3)


def refused(path):
    with pytest.raises(DataError) as error:
        everything(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(str(path))


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    assert "no such file" in refused(tmp_path / "nowhere.mp4")
    assert "sound alone" in refused(write_sound(tmp_path / "sound.wav"))
    assert "sound alone" in refused(write_sound(tmp_path / "sound.mkv"))
    bad = tmp_path / "bad.mp4"
    for content in (b"", b"hello\n" * 100, np.random.default_rng(0).bytes(5000)):
        bad.write_bytes(content)
        assert "not a video" in refused(bad)
    text = tmp_path / "notes.txt"  # FFmpeg would film its letters
    text.write_text("hello\n" * 100)
    assert "not a video" in refused(text)
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    assert "not a video" in refused(bad)


def test_a_playlist_opens_no_other_file(tmp_path):
    write_video(tmp_path / "other.mkv", pictures(2), codec="ffv1", pixels="bgr0")
    for name, content in (
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mkv\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile other.mkv\n"),
    ):
        (tmp_path / name).write_text(content)
        assert "not a video" in refused(tmp_path / name)


def test_a_video_without_frames_is_refused(tmp_path):
    refused(write_video(tmp_path / "clip.mov", pictures(3)[:0]))


def test_a_cut_video_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.mov", pictures(20))
    assert len(everything(path)) == 20
    with av.open(str(path)) as container:
        tenth = [packet.pos for packet in container.demux()][10]
    whole = path.read_bytes()
    path.write_bytes(whole[:tenth])
    assert "cut short: 10 of 20 frames" in refused(path)
    repeating = write_video(tmp_path / "clip.avi", pictures(20), codec="mjpeg", pixels="yuvj420p")
    assert len(everything(repeating)) == 20
    path.write_bytes(whole[: tenth + 40])
    refused(path)


@pytest.mark.parametrize("count", [48, pytest.param(1000, marks=pytest.mark.slow)])
def test_damage_never_crashes(tmp_path, count):
    """Seeded mutations of eight kinds of files, in a process that may neither hang nor die: frames or a DataError."""
    program = pathlib.Path(__file__).with_name("mutated.py")
    command = [sys.executable, str(program), str(tmp_path), "0", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 2 * count)
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == count and min(read, refused) > count // 10


def test_a_folder_of_pictures_in_natural_order(tmp_path):
    frames = pictures(12)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    clip = open_clip(tmp_path)
    np.testing.assert_array_equal(np.stack(list(clip.frames(range(12)))), frames)
    assert clip.end == 12 and clip.unit == "frames"


def test_pictures_of_other_kinds(tmp_path):
    frame = pictures(1)[0]
    Image.fromarray(frame[..., 0]).save(tmp_path / "0_grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    Image.fromarray(frame).save(tmp_path / "1_turned.png", exif=turned)
    Image.fromarray(np.dstack([frame, frame[..., :1]])).save(tmp_path / "2_alpha.png")
    grey, upright, opaque = open_clip(tmp_path).frames(range(3))
    np.testing.assert_array_equal(grey, np.repeat(frame[..., :1], 3, -1))
    np.testing.assert_array_equal(upright, np.rot90(frame, -1))
    np.testing.assert_array_equal(opaque, frame)


def test_folders_that_are_no_clip(tmp_path):
    assert "no pictures" in refused(tmp_path)
    depth = tmp_path / "0.png"
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(depth)
    with pytest.raises(DataError, match=r"0.png: .*is this depth\?"):
        everything(tmp_path)
    Image.fromarray(pictures(1)[0]).save(depth)
    depth.write_bytes(depth.read_bytes()[:500])
    with pytest.raises(DataError, match=r"0.png: not a readable picture"):
        everything(tmp_path)


def test_arrays(tmp_path):
    frames = pictures(3)
    np.testing.assert_array_equal(everything(frames), frames)
    np.save(tmp_path / "clip.npy", frames)
    np.testing.assert_array_equal(everything(tmp_path / "clip.npy"), frames)
    for wrong, message in (
        (frames / 255.0, "float64.*; scale them to 0..255"),
        (np.full(frames.shape, np.nan, np.float32), "float32.*; scale them to 0..255"),
        (frames.astype(np.uint16), "must be uint8"),
        (frames[0], "must be uint8"),
        (frames[..., :1], "must be uint8"),
        (frames[:0], "empty"),
        (np.broadcast_to(np.zeros(3, np.uint8), (1, 2**14, 2**14, 3)), "too large"),
        ([frames[0], frames[1, 1:]], "all of one size"),
        (None, "must be uint8"),
        (7, "must be uint8"),
    ):
        with pytest.raises(DataError, match=f"frames .*{message}") as error:
            open_clip(wrong)
        assert "\n" not in str(error.value)


def test_arrays_in_files_that_are_none(tmp_path):
    path = tmp_path / "clip.npy"
    for write in (
        lambda: np.save(path, pictures(3) / 255.0),
        lambda: np.save(path, np.array([{}], object), allow_pickle=True),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"\x93NUMPY no"),
        lambda: (np.save(path, pictures(3)), path.write_bytes(path.read_bytes()[:1000])),
    ):
        write()
        refused(path)


def test_names_that_are_none(tmp_path):
    for name in ("n" * 5000, "a\0b"):
        with pytest.raises(DataError) as error:
            open_clip(str(tmp_path / name))
        assert len(str(error.value)) < 400


def test_the_largest_and_the_smallest(tmp_path):
    one = np.array([[[[7, 90, 200]]]], np.uint8)
    np.testing.assert_array_equal(everything(write_video(tmp_path / "1x1.mov", one)), one)
    wide = np.zeros((2, 4320, 7680, 3), np.uint8)
    wide[1, :, 3840:] = 200
    found = everything(write_video(tmp_path / "8k.mov", wide, options={"compression_level": "1"}))
    assert found.shape == wide.shape and (found[1, ::500, ::700] == wide[1, ::500, ::700]).all()


def test_a_picture_that_says_it_is_vast(tmp_path):
    """A PNG of a few bytes and 400 million pixels, as a video and as a picture of a folder: refused unread."""
    header = b"IHDR" + (20000).to_bytes(4) + (20000).to_bytes(4) + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [(len(c) - 4).to_bytes(4) + c + zlib.crc32(c).to_bytes(4) for c in (header, data, b"IEND")]
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert "20000x20000 pixels are too" in refused(tmp_path / "0.png") or "not a video" in refused(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0.png: (20000x20000 pixels are too many|not a readable picture)"):
        everything(tmp_path)


def test_fit_takes_means_over_areas_of_the_middle():
    frame = pictures(1, height=40, width=64)[0]
    assert fit(frame, (40, 64)) is frame
    middle = frame[:, 12:52].astype(float)
    means = middle.reshape(20, 2, 20, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fit(frame, (20, 20)), means, atol=1)  # Pillow rounds twice
    tall = fit(np.ascontiguousarray(frame.transpose(1, 0, 2)), (20, 20))
    np.testing.assert_allclose(tall, means.transpose(1, 0, 2), atol=1)
    np.testing.assert_allclose(fit(frame, (20, 32)), frame.reshape(20, 2, 32, 2, 3).mean((1, 3)), atol=1)


def test_fit_enlarges():
    np.testing.assert_array_equal(fit(np.full((1, 1, 3), 7, np.uint8), (32, 32)), 7)
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, 0).repeat(3, -1)
    assert (np.diff(fit(ramp, (32, 32))[5, 1:-1, 0].astype(int)) == 5).all()
