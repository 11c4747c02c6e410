"""A video of a clip with what is said of it: frames above, classes with their probabilities and the timeline below."""

import fractions
import itertools
import os
import pathlib
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hallujax.deploy.container import require_pyav
from hallujax.deploy.prediction import Moment, Prediction
from hallujax.deploy.system import FUSED
from hallujax.deploy.video import Clip

NARROWEST, LARGEST = 400, 1280  # pixels
MARGIN, LINE, BAND = 8, 22, 22
PICTURES_A_SECOND = 25.0  # of what has no clock
TICK = fractions.Fraction(1, 1000)
PAPER, INK, FAINT = "#16191d", "#ffffff", "#3a4149"
# For people of all common kinds of colour vision (Okabe and Ito), light enough for dark writing.
CYCLE = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00")

Said = Prediction | Moment


def write_annotated(out: pathlib.Path, clip: Clip, prediction: Prediction) -> None:
    """Writes `out`, an MP4 of every frame of a clip; with a timeline, each under the window whose middle is nearest.

    Raises:
      DataError: if the clip cannot be read; then there is no file.
    """
    timeline = prediction.timeline
    middles = np.array([(moment.start + moment.end) / 2 for moment in timeline])
    clock = 1.0 if clip.unit == "s" else PICTURES_A_SECOND
    with AnnotatedVideo(out) as video:
        for when, frame in zip(clip.times, clip.frames(range(len(clip.times))), strict=True):
            said = timeline[np.abs(middles - when).argmin()] if timeline else prediction
            video.add(float(when) / clock, frame, said, timeline, float(when) / clip.end)


class AnnotatedVideo:
    """An MP4 that appears when its `with` block ends well, and not at all if nothing was added or something raised."""

    def __init__(self, path: pathlib.Path):
        self._av = require_pyav()
        self._path, self._partial = path, path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._container = self._stream = self._panel = self._drawn = None
        self._last = -1

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def add(
        self,
        seconds: float,
        frame: np.ndarray,
        said: Said | None,
        timeline: Sequence[Moment] = (),
        share: float = 0.0,
    ) -> None:
        """One frame uint8 `[H, W, 3]`, under what is said of it; `share` is how much of the timeline is over.

        All frames are of the first one's size, those of another shape in black margins, and of its number of scores.
        """
        if self._container is None:
            self._start(frame, said, timeline)
        shape = (self._stream.width, self._stream.height - self._panel)
        enlarged = min(shape[0] / frame.shape[1], shape[1] / frame.shape[0]) > 1
        method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
        picture = Image.new("RGB", (self._stream.width, self._stream.height), PAPER)
        picture.paste(ImageOps.pad(Image.fromarray(frame), shape, method), (0, 0))
        if self._drawn is None or self._drawn[0] is not said:
            self._drawn = (said, draw_panel((shape[0], self._panel), said, timeline))
        picture.paste(self._drawn[1], (0, shape[1]))
        if timeline:
            across = MARGIN + round(share * (shape[0] - 2 * MARGIN))
            bottom = self._stream.height - MARGIN
            ImageDraw.Draw(picture).line([(across, bottom - BAND - 3), (across, bottom + 3)], INK, 3)
        encoded = self._av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")
        self._last = max(self._last + 1, round(seconds / TICK))
        encoded.pts, encoded.time_base = self._last, TICK
        self._container.mux(self._stream.encode(encoded))

    def _start(self, frame: np.ndarray, said: Said | None, timeline: Sequence[Moment]) -> None:
        height, width = frame.shape[:2]
        scale = min(max(1.0, NARROWEST / width), LARGEST / width, LARGEST / height)
        rows = 1 + (len(said.scores) if said else 3)
        self._panel = _even(2 * MARGIN + rows * LINE + (BAND + MARGIN if timeline else 0))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._partial), "w", format="mp4")
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=25)
        self._stream.width = _even(max(NARROWEST, scale * width))
        self._stream.height = _even(scale * height) + self._panel
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = TICK

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._container is None:
            return
        try:
            if kind is None:
                self._container.mux(self._stream.encode())
            self._container.close()
            if kind is None:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)


def draw_panel(size: tuple[int, int], said: Said | None, timeline: Sequence[Moment]) -> Image.Image:
    """What stands below a frame, `size` (width, height) in pixels."""
    panel = Image.new("RGB", size, PAPER)
    draw, width = ImageDraw.Draw(panel), size[0]
    font, bold = ImageFont.load_default(13), ImageFont.load_default(17)
    if said is None:
        draw.text((MARGIN, MARGIN), "watching", INK, bold)
        return panel
    trust = "" if said.depth is None else f"   depth {'believed' if said.depth.used else 'not believed'}"
    draw.text((MARGIN, MARGIN - 2), _cut(draw, f"{said.label}{trust}", bold, width - 2 * MARGIN), INK, bold)
    names = {name: _cut(draw, name, font, width // 3) for name in said.scores}
    left = MARGIN + round(max(draw.textlength(name, font) for name in names.values())) + MARGIN
    for row, (name, scores) in enumerate(said.scores.items(), start=1):
        top = MARGIN + row * LINE
        ((label, probability),) = scores.top(1)
        draw.text((MARGIN, top + 2), names[name], INK, font)
        draw.rectangle([left, top, width - MARGIN, top + LINE - 5], FAINT)
        reach = left + round(probability * (width - MARGIN - left))
        draw.rectangle([left, top, reach, top + LINE - 5], "#0072b2" if name == FUSED else "#4f6b80")
        text = _cut(draw, f"{label} {100 * probability:.0f} %", font, width - MARGIN - left - 8)
        draw.text((left + 5, top + 2), text, INK, font)
    if timeline:
        _draw_timeline(draw, (MARGIN, size[1] - MARGIN - BAND, width - MARGIN, size[1] - MARGIN), timeline, font)
    return panel


def _draw_timeline(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], timeline: Sequence[Moment], font: ImageFont.FreeTypeFont
) -> None:
    """Spans of one class in one colour, its name where there is room; a window reaches half-way to its neighbours'."""
    left, top, right, bottom = box
    labels = list(dict.fromkeys(moment.label for moment in timeline))
    middles = [(moment.start + moment.end) / 2 for moment in timeline]
    whole = timeline[-1].end
    bounds = [0.0, *((one + other) / 2 for one, other in itertools.pairwise(middles)), whole]
    for label, members in itertools.groupby(range(len(timeline)), key=lambda i: timeline[i].label):
        numbers = list(members)
        start, until = (left + (right - left) * bounds[i] / whole for i in (numbers[0], numbers[-1] + 1))
        draw.rectangle([round(start), top, round(until), bottom], CYCLE[labels.index(label) % len(CYCLE)])
        if draw.textlength(label, font) < until - start - 4:
            draw.text((start + 3, top + 3), label, PAPER, font)


def _cut(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """As much of a text as fits."""
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(f"{text}...", font) > room:
        text = text[:-1]
    return f"{text}..."


def _even(pixels: float) -> int:
    """4:2:0 video wants sides that two divides."""
    return max(2, 2 * round(pixels / 2))
