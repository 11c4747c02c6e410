"""The page in a real browser, over a real server."""

import contextlib
import time

import pytest
from headless_chromium import CHROMIUM, browse
from videos import encode, noise

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SECONDS = 120


def until(page, condition):
    """Waits for a JavaScript condition."""
    deadline = time.monotonic() + SECONDS
    while not page.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"{condition}: {page.evaluate('document.body.innerText')}"
        time.sleep(0.05)


def text(page, selector):
    return page.evaluate(f"document.querySelector('{selector}').innerText")


@contextlib.contextmanager
def opened(server, *, width=1100, height=900, flags=()):
    """The page, ready; after it, nothing was blocked, missing or asked of anybody else, and nothing sticks out."""
    with browse(server.url, width=width, height=height, flags=flags) as page:
        until(page, "document.querySelector('#limits').innerText")
        yield page
        assert page.complaints == []
        foreign = [url for url in page.requests if not url.startswith((server.url, "data:", "blob:"))]
        assert foreign == []
        assert page.evaluate("innerWidth") == width
        boxes = "[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)"
        assert page.evaluate(f"Math.max(...{boxes})") <= width
        unnamed = "e => e.offsetParent && !e.innerText && !e.labels?.length && !e.ariaLabel"
        assert page.evaluate(f"[...document.querySelectorAll('button, select, input')].filter({unnamed}).length") == 0


def test_an_upload(server, predictor, tmp_path):
    video = tmp_path / "clip.mov"
    video.write_bytes(encode(noise(0)))
    prediction = predictor(noise(0))
    with opened(server) as page:
        page.choose_file("#file", video)
        until(page, "!document.querySelector('#result').hidden")
        label, probability = prediction.top(1)[0]
        assert text(page, "#label") == f"{label}, {100 * probability:.1f} %"
        assert page.evaluate("document.querySelectorAll('#frames img').length") == 3
        assert page.evaluate("document.querySelectorAll('#bars .bar').length") == 3 * len(predictor.classes)
        plain = page.evaluate("document.querySelector('#frames img').src")
        page.evaluate("document.querySelector('#view input[value=rgb]').click()")
        assert page.evaluate("document.querySelector('#frames img').src") != plain
        assert "stream rgb" in text(page, "#view-note")
        assert "7 frames in 0.3 s" in text(page, "#timing")
        assert page.evaluate("document.querySelector('#depth-card').hidden")


def test_errors_are_said_and_gone_with_the_next_clip(server, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    (tmp_path / "large.mp4").write_bytes(bytes(3 * 2**20))
    (tmp_path / "clip.mov").write_bytes(encode(noise(1)))
    with opened(server) as page:
        page.choose_file("#file", tmp_path / "large.mp4")
        until(page, "!document.querySelector('#error').hidden")
        assert text(page, "#error") == "This file has 3 MiB; the server takes 2."
        page.choose_file("#file", tmp_path / "clip.mov")
        until(page, "!document.querySelector('#result').hidden")
        assert page.evaluate("document.querySelector('#error').hidden")
    with browse(server.url, width=1100, height=900) as page:  # where the console may name the answer's status
        until(page, "document.querySelector('#limits').innerText")
        page.choose_file("#file", tmp_path / "notes.mp4")
        until(page, "!document.querySelector('#error').hidden")
        assert text(page, "#error") == "This is not a video that FFmpeg can read"
        assert page.evaluate("document.querySelector('#result').hidden")
        page.choose_file("#file", tmp_path / "clip.mov")
        until(page, "!document.querySelector('#result').hidden")
        page.choose_file("#file", tmp_path / "notes.mp4")
        until(page, "document.querySelector('#result').hidden")


def test_a_benchmark_clip_and_its_failing_depth(server):
    clips = server.get("/api/clips")["clips"]
    with opened(server, width=360, height=740) as page:
        until(page, "!document.querySelector('#pick').hidden")
        assert page.evaluate("document.querySelectorAll('#pick-class option').length") == len(
            {c["label"] for c in clips}
        )
        page.evaluate("document.querySelector('#pick button').click()")
        until(page, "document.querySelector('#verdict').innerText")
        name = page.evaluate("document.querySelector('#pick-clip').value")
        assert text(page, "#truth").startswith(f"{name}: ")
        sweep = server.get(f"/api/clips/{name}/noise?kind=dropout")
        seen = set()
        page.evaluate("document.querySelector('#level').focus()")
        for i, switched in enumerate(sweep["switched"]):
            assert page.evaluate("document.querySelector('#level').value") == str(i)
            assert text(page, "#verdict").startswith("Depth is not trusted" if switched else "Depth is trusted")
            used = page.evaluate("document.querySelector('.system.used').id")
            assert used == ("fallback" if switched else "trusted")
            assert f"{100 * sweep['doubt'][i]:.1f} %" in text(page, "#doubt-text")
            seen.add(page.evaluate("document.querySelector('#strip').src"))
            page.press("ArrowRight", 39)
        assert len(seen) == len(sweep["levels"]), "each level has its own depth"
        assert page.evaluate("document.querySelectorAll('#sweep polyline').length") == 5
        points = 2 * sweep["calibrated_on"] + 4
        assert page.evaluate("document.querySelectorAll('#cloud circle').length") == points
        page.evaluate("document.querySelector('#noise').value = 'blur'")
        page.evaluate("document.querySelector('#noise').dispatchEvent(new Event('change'))")
        until(page, "document.querySelector('#level-text').innerText.includes('height')")
        assert page.evaluate("document.querySelector('#level').value") == "0"


def test_a_recording_from_the_webcam(server):
    with opened(server, flags=CAMERA) as page:
        page.evaluate("document.querySelector('#record').click()")
        until(page, "document.querySelector('#record').innerText.startsWith('Stop')")
        until(page, "document.querySelector('#preview').videoWidth")
        until(page, "!document.querySelector('#result').hidden")
        assert text(page, "#record") == "Record from the webcam" and page.evaluate(
            "document.querySelector('#preview').hidden"
        )
        assert page.evaluate("document.querySelectorAll('#frames img').length") == 3


def test_the_keyboard_reaches_everything(server):
    with opened(server) as page:
        until(page, "!document.querySelector('#pick').hidden")
        reached = []
        for _ in range(8):
            page.press("Tab", 9)
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        assert reached[:5] == ["choose", "record", "pick-class", "pick-clip", "Show"]
