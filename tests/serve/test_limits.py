"""Hostile requests: each gets one line and a status, and the server goes on."""

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import time

import numpy as np
import pytest
from encoded import write_sound, write_video
from running import BOUNDARY, children, form
from videos import encode, mutated, noise, repeated, zip_bomb

from hallujax.cli import main
from hallujax.deploy.export import write_export
from hallujax.deploy.run import read_run
from hallujax.errors import CheckpointError, UsageError


def refused(server, video, status, text):
    found, answer = server.predict(video)
    assert (found, set(answer)) == (status, {"error", "kind"}), answer
    assert text in answer["error"] and "\n" not in answer["error"], answer


def test_what_is_no_video(server, tmp_path):
    refused(server, b"this is text\n" * 100, 415, "not a video")
    refused(server, zip_bomb(), 415, "not a video")
    refused(server, write_sound(tmp_path / "sound.wav").read_bytes(), 415, "sound alone")
    refused(server, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not a video")
    refused(server, b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "not a video")
    refused(server, b"", 422, "empty")


def test_videos_beyond_the_limits(server, tmp_path):
    refused(server, repeated(4320, 7680, 1), 422, "too large; this server takes up to 9.4 megapixels")
    refused(server, encode(noise(0, 1, 2400, 4100), "webm", "libvpx", "yuv420p"), 422, "4100x2400 pixels")
    refused(server, repeated(16, 16, 2, milliseconds=3 * 3600 * 1000), 422, "too long")
    whole = write_video(tmp_path / "clip.mp4", noise(0, 40), codec="mpeg4", pixels="yuv420p").read_bytes()
    refused(server, whole[: len(whole) * 2 // 3], 422, "damaged")
    refused(server, encode(noise(0, 1))[:40], 415, "not a video")


def test_odd_videos_are_read(server, predictor, tmp_path):
    frames = noise(2)
    times = [0, 10, 500, 510, 520, 2000, 2010]
    grey = np.repeat(frames[..., :1], 3, axis=-1)
    alpha = np.concatenate([frames, noise(3)[..., :1]], axis=-1)
    mkv = {"codec": "ffv1", "pixels": "bgr0"}
    for path, written, options, seen in (
        ("one.mov", frames[:1], {}, frames[:1]),
        ("pixel.mov", frames[:, :1, :1], {}, frames[:, :1, :1]),
        ("variable.mkv", frames, {**mkv, "times": times}, frames),
        ("rotated.mov", frames, {"rotation": 90}, np.rot90(frames, axes=(1, 2))),
        ("grey.mov", grey[..., 0], {"pixels": "gray", "layout": "gray"}, grey),
        ("alpha.mov", alpha, {"pixels": "rgba", "layout": "rgba"}, frames),
    ):
        if written.ndim == 3:
            written = written[:]
        video = write_video(tmp_path / path, written, **options).read_bytes()
        status, answer = server.predict(video, name="../../etc/passwd")
        assert status == 200, (path, answer)
        expected = predictor(np.ascontiguousarray(seen)).probabilities
        np.testing.assert_allclose(answer["scores"]["fused"], expected, atol=1e-5, err_msg=path)


def test_uploads_that_are_none(server):
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    video = encode(noise(0))
    for body, headers, status in (
        (video, {"Content-Type": "video/mp4"}, 415),
        (video, {}, 415),
        (form(video, field="film"), kind, 400),
        (b"nonsense", kind, 400),
        (form(video), {"Content-Type": "multipart/form-data"}, 400),
        (form(video)[:200], kind, 400),
        (form(video) * 2, {"Content-Type": "multipart/form-data; boundary=other"}, 400),
        (form(bytes(3 * 2**20)), kind, 413),
        (form(video), {**kind, "Host": "evil.example"}, 403),
        (form(video), {**kind, "Origin": "http://evil.example"}, 403),
        (form(video), {**kind, "Origin": "null"}, 403),
    ):
        found, answered, text = server.request("POST", "/api/predict", body, headers)
        assert found == status and set(json.loads(text)) == {"error", "kind"}, (found, status, text)
        assert answered["x-content-type-options"] == "nosniff"
    assert server.request("GET", "/api/predict")[0] == 405
    assert server.request("GET", "/nowhere")[0] == 404
    assert server.request("POST", "/api/predict?frames=perhaps", form(video), kind)[0] == 422
    own = {**kind, "Origin": f"http://127.0.0.1:{server.port}"}
    assert server.request("POST", "/api/predict", form(video), own)[0] == 200
    for host in (f"localhost:{server.port}", f"[::1]:{server.port}", "127.0.0.1"):
        assert server.request("GET", "/healthz", headers={"Host": host})[0] == 200


def test_chunked_uploads_are_counted(server):
    def chunks():
        yield form(b"")[:-10]
        for _ in range(40):
            yield bytes(100_000)

    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    status, _, body = server.request("POST", "/api/predict", chunks(), kind)
    assert status == 413 and "2 MiB" in json.loads(body)["error"]


def test_a_broken_connection_leaves_nothing(server):
    before = server.get("/healthz")
    lines = (
        "POST /api/predict HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Length: 9999",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    )
    head = "\r\n".join((*lines, "", ""))
    for _ in range(5):
        with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
            connection.sendall(head.encode() + form(bytes(500))[:300])
    assert server.get("/healthz") == before
    deadline = time.monotonic() + 60
    while b"hallujax_requests_under_way 0.0" not in server.request("GET", "/metrics")[2]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_page_is_guarded(server):
    status, headers, body = server.request("GET", "/")
    assert status == 200 and b"<title>hallujax" in body
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert b"http" not in body.replace(b"https pages", b""), "nothing is loaded from elsewhere"


def test_a_decoder_killed_in_the_middle_of_a_request(server, predictor):
    decoders = [pid for pid in children(server.pid) if "decoder" in _command(pid)]
    assert decoders
    for pid in decoders:
        os.kill(pid, signal.SIGSTOP)  # whichever gets the request holds it
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(server.predict, encode(noise(4)))
        deadline = time.monotonic() + 60
        while b"hallujax_requests_under_way 1.0" not in server.request("GET", "/metrics")[2]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        for pid in decoders:
            os.kill(pid, signal.SIGKILL)
        status, answer = waiting.result(60)
    assert (status, answer["kind"]) == (503, "decoder_lost"), answer
    for seed in range(2 * len(decoders)):
        status, answer = server.predict(encode(noise(seed)))
        if status == 503:  # a second decoder that was killed while idle is found out by the next request
            continue
        assert answer["label"] == predictor(noise(seed)).label
    assert server.predict(encode(noise(5)))[0] == 200
    assert server.process.poll() is None


def _command(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def fuzz(server, count):
    frames = noise(0, 12)
    videos = [
        encode(frames),
        encode(frames, "mp4", "libx264", "yuv420p"),
        encode(frames, "webm", "libvpx", "yuv420p"),
        encode(frames, "avi", "mpeg4", "yuv420p"),
        encode(frames, "mpegts", "mpeg2video", "yuv420p"),
        encode(frames, "gif", "gif", "rgb8"),
    ]
    for video in videos:
        assert server.predict(video)[0] == 200
    found = {}

    def attempt(i):
        status, answer = server.predict(mutated(videos[i % len(videos)], i))
        assert status in (200, 415, 422, 504), (i, status, answer)
        assert status == 200 or (set(answer) == {"error", "kind"} and "\n" not in answer["error"]), (i, answer)
        found[status] = found.get(status, 0) + 1

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(attempt, range(count)))
    assert server.process.poll() is None and server.predict(encode(frames))[0] == 200
    assert len(found) > 1, "mutations that change nothing test nothing"
    return found


def test_damaged_uploads(server):
    fuzz(server, 60)


@pytest.mark.slow
def test_a_thousand_damaged_uploads(server):
    print(fuzz(server, 1000))


def test_what_cannot_be_served_is_said(trained, tmp_path, capsys):
    def says(code, text, *arguments):
        assert main(["serve", "--port", "0", *map(str, arguments)]) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and text in lines[0], lines

    says(UsageError.exit_code, "no such folder", "--model", tmp_path / "nowhere")
    says(UsageError.exit_code, "has no system", "--model", trained, "--system", "Step 5")
    export = tmp_path / "export"
    write_export(read_run(trained, "RGB"), "safetensors", export)
    says(UsageError.exit_code, "an export has none", "--model", export, "--data", tmp_path)
    weights = bytearray((export / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (export / "model.safetensors").write_bytes(weights)
    says(CheckpointError.exit_code, "not what was written", "--model", export)
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says(UsageError.exit_code, "choose another --port", "--port", port, "--model", trained)
