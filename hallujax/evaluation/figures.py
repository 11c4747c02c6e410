"""The report's pictures, each returned as a data URI; no file is written, nothing is fetched.

Colours are Okabe and Ito's, told apart by all common kinds of colour vision; lines differ by dash as well.
matplotlib is imported where it is used: it belongs to the extra `demo`, not to the library.
"""

import base64
import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from hallujax.errors import UsageError

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
VERMILLION, PURPLE, SKY = "#D55E00", "#CC79A7", "#56B4E9"
GREY, INK, RULE = "#8a8f98", "#24292f", "#d5d9de"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":")
DISCRIMINATOR = {  # its scores in metrics.jsonl, and what they are called
    "accuracy/discriminator_real": "discriminator right on real",
    "accuracy/discriminator_fake": "on hallucinated",
}
NOISE_MM = 150.0  # the noise strip's grey scale ends here on both sides

STYLE = {
    "svg.fonttype": "path",  # looks the same whatever fonts the reader has
    "svg.hashsalt": "hallujax",  # else every run names the same shapes differently
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextlib.contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Any, list[str]]]:
    """A figure of that many inches; on leaving, its SVG is the only element of the list."""
    matplotlib = require_matplotlib()
    uris: list[str] = []
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=(width, height), layout="constrained")
        yield figure, uris
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    uris.append(_uri(buffer.getvalue(), "image/svg+xml"))


def require_matplotlib() -> Any:
    """matplotlib, or a UsageError that says how to install it."""
    try:
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError as error:
        raise UsageError("a figure needs matplotlib; install it: pip install 'hallujax[demo]'") from error
    return matplotlib


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def svg_text(uri: str) -> str:
    """The SVG of a picture drawn here, for a file of its own."""
    return base64.b64decode(uri.partition(",")[2]).decode("utf-8")


def svg_uri(text: str) -> str:
    """The other way round."""
    return _uri(text.encode("utf-8"), "image/svg+xml")


def accuracy_bars(bars: Sequence[dict[str, Any]], chance: float | None) -> str:
    """Horizontal bars, each a dict of `label`, `mean` (fraction or None), `deviation` (or None), `color`."""
    with canvas(5.2, 0.34 * len(bars) + 0.65) as (figure, uris):
        axes = figure.subplots()
        for y, bar in enumerate(bars):
            if bar["mean"] is None:
                axes.text(1, y, "missing", va="center", color=GREY, style="italic")
                continue
            mean, deviation = 100 * bar["mean"], 100 * (bar["deviation"] or 0)
            axes.barh(y, mean, height=0.62, color=bar["color"])
            if bar["deviation"] is not None:
                axes.errorbar(mean, y, xerr=deviation, color=INK, capsize=2.5, linewidth=1)
            axes.text(mean + deviation + 1.2, y, f"{mean:.1f}", va="center")
        if chance is not None:
            axes.axvline(100 * chance, color=INK, linestyle=":", linewidth=1)
            axes.text(100 * chance + 0.6, -0.62, "chance", fontsize=7.5, va="bottom", color=INK)
        axes.set_yticks(range(len(bars)), [bar["label"] for bar in bars])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(bars) - 0.4, -0.85)
        axes.set_xlim(0, 108)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("test accuracy (%)")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    return uris[0]


def learning_curves(
    training: Sequence[dict[str, Any]],
    validation: Sequence[dict[str, Any]],
    *,
    best_step: int | None,
    chance: float | None,
) -> str | None:
    """Every player's loss terms above, validation accuracy below; None where nothing was logged."""
    terms = sorted({key for line in training for key in line if _is_loss_term(key)})
    if not terms and not validation:
        return None
    passes = [line["clip_passes"] / line["step"] for line in training if line.get("clip_passes") and line["step"]]

    def x(lines: Sequence[dict[str, Any]]) -> list[float]:
        return [line["step"] * (passes[-1] if passes else 1) for line in lines]

    with canvas(4.4, 3.6) as (figure, uris):
        losses, accuracy = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for number, term in enumerate(terms):
            lines = [line for line in training if term in line]
            losses.plot(
                x(lines),
                [line[term] for line in lines],
                color=CYCLE[number % len(CYCLE)],
                linestyle=DASHES[number % len(DASHES)],
                label=term.replace("/", ": "),
            )
        levels = [np.median([line[term] for line in training if term in line]) for term in terms]
        if len(terms) > 1 and min(levels) > 0 and max(levels) > 8 * min(levels):
            losses.set_yscale("log")
            ticker = require_matplotlib().ticker
            losses.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
            losses.yaxis.set_major_formatter("{x:g}")
            losses.yaxis.set_minor_formatter(ticker.NullFormatter())
        elif terms:
            losses.set_ylim(bottom=min(0.0, losses.get_ylim()[0]))
        losses.set_ylabel("training loss")
        if terms:
            # Above the axes: no corner stays free of every curve.
            losses.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, ncols=2, handlelength=2.4)
        trained = [line for line in training if "train/accuracy" in line]
        accuracy.plot(x(trained), [100 * line["train/accuracy"] for line in trained], color=GREY, linewidth=0.8)
        for number, (score, name) in enumerate(DISCRIMINATOR.items()):
            lines = [line for line in training if score in line]
            style = {"color": CYCLE[1 + number], "linestyle": DASHES[1 + number], "linewidth": 0.9}
            if lines:
                accuracy.plot(x(lines), [100 * line[score] for line in lines], **style, label=name)
                accuracy.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, ncols=2, handlelength=2.4)
        scores = [100 * line["validation/accuracy"] for line in validation]
        accuracy.plot(x(validation), scores, color=INK, marker="o", markersize=2.5)
        for at in (place for place, line in enumerate(validation) if line["step"] == best_step):
            point = (x(validation)[at], scores[at])
            accuracy.plot(*point, marker="o", markersize=7, markerfacecolor="none", color=VERMILLION)
            accuracy.annotate(
                f"kept: {scores[at]:.1f}",
                point,
                textcoords="offset points",
                xytext=(4, 7 if scores[at] < 60 else -14),
                ha="right",
                fontsize=8,
            )
        if chance is not None:
            accuracy.axhline(100 * chance, color=INK, linestyle=":", linewidth=1)
        accuracy.set_ylim(0, 100)
        accuracy.set_xlim(left=0)
        accuracy.set_yticks((0, 50, 100))
        accuracy.set_ylabel("accuracy (%)")
        accuracy.set_xlabel("clip-passes of this stage" if passes else "step")
        for axes in (losses, accuracy):
            axes.grid(axis="y")
        figure.align_ylabels()
    return uris[0]


def _is_loss_term(key: str) -> bool:
    """Whether a key of metrics.jsonl is `player/term`: no total, norm, accuracy, time or spike."""
    return "/" in key and key.split("/")[0] not in (
        *("loss", "gradient_norm", "accuracy", "train", "validation", "input", "spike"),
    )


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> str:
    """[K, K] counts, true class by row: shares of each row in colour, as numbers where there is room."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    number = len(classes)
    side = min(2.2 + 0.24 * number, 9)
    with canvas(side, side) as (figure, uris):
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if number <= 20:
            for true, predicted in zip(*np.nonzero(shares >= 0.005), strict=True):
                share = shares[true, predicted]
                axes.text(
                    predicted,
                    true,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if share > 0.55 else INK,
                )
        size = 8 if number <= 20 else max(3, 160 / number)
        axes.set_xticks(range(number), classes, rotation=90, fontsize=size)
        axes.set_yticks(range(number), classes, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return uris[0]


def class_changes(points: Sequence[float], classes: Sequence[str]) -> str:
    """Bars to both sides of zero: change of each class's recall in points, largest gain on top."""
    order = np.argsort(-np.asarray(points), kind="stable")
    with canvas(4.8, 0.21 * len(classes) + 0.7) as (figure, uris):
        axes = figure.subplots()
        for y, index in enumerate(order):
            value = points[index]
            axes.barh(y, value, height=0.66, color=BLUE if value >= 0 else ORANGE)
            text, side = f"{value:+.0f}".replace("-", "−"), "left" if value >= 0 else "right"
            axes.annotate(
                text,
                (value, y),
                textcoords="offset points",
                xytext=(3 if value >= 0 else -3, 0),
                ha=side,
                va="center",
                fontsize=7.5,
            )
        reach = max(10.0, 1.2 * float(np.abs(points).max()))
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_yticks(range(len(classes)), [classes[i] for i in order], fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel("change of recall (points)")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    return uris[0]


def noise_curves(kinds: Sequence[dict[str, Any]], questions: Sequence[dict[str, Any]], systems: Sequence[str]) -> str:
    """For each question a block of panels, one a kind of noise: means over seeds, a standard deviation shaded.

    Args:
      kinds: each a dict of `title`, `xlabel` and `levels`, the names of the places, evenly spaced.
      questions: each a dict of `title`, `ylabel` and `lines`, `{name: for each kind, percent [seeds, levels]}`.
      systems: names that keep their colour from question to question.
    """
    across = 3
    down = -(-(len(kinds) + 1) // across)  # the legend has a place of its own
    with canvas(7.6, 2.15 * down * len(questions)) as (figure, uris):
        blocks = np.atleast_1d(figure.subfigures(len(questions), 1))
        for block, question in zip(blocks, questions, strict=True):
            panels = block.subplots(down, across, sharey=True).ravel()
            for number, (axes, kind) in enumerate(zip(panels, kinds, strict=False)):
                for place, (name, lines) in enumerate(question["lines"].items()):
                    style = systems.index(name) if name in systems else place
                    _mean_and_spread(axes, np.asarray(lines[number], float), style, name)
                axes.set_xticks(range(len(kind["levels"])), kind["levels"], fontsize=8)
                axes.set_xlim(-0.4, len(kind["levels"]) - 0.6)
                axes.set_ylim(0, 102)
                axes.set_title(kind["title"], fontsize=9)
                axes.set_xlabel(kind["xlabel"], fontsize=8)
                axes.grid(axis="y")
            for axes in panels[::across]:
                axes.set_ylabel(question["ylabel"])
            for axes in panels[len(kinds) :]:
                axes.set_axis_off()
            panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center left", handlelength=3)
            block.suptitle(question["title"], fontsize=10, fontweight="bold", x=0.01, ha="left")
    return uris[0]


def feature_plane(real: np.ndarray, hallucinated: np.ndarray, classes: Mapping[str, np.ndarray]) -> str:
    """Real and hallucinated features of the same clips, `[N, 2]` each; those of `classes`, `{name: [N]}`, in colour."""
    kinds = (("real", real, "o", 14), ("hallucinated", hallucinated, "x", 18))
    with canvas(4.4, 4.4) as (figure, uris):
        axes = figure.subplots()
        rest = ~np.any(list(classes.values()), axis=0)
        for name, points, marker, size in kinds:
            axes.scatter(*points[rest].T, s=0.6 * size, marker=marker, color=RULE, linewidths=0.8)
            for number, members in enumerate(classes.values()):
                style = {"color": CYCLE[number % len(CYCLE)], "marker": marker, "s": size, "linewidths": 1.0}
                axes.scatter(*points[members].T, **style)
            axes.scatter([], [], marker=marker, s=size, color=INK, label=name)
        for number, name in enumerate(classes):
            axes.scatter([], [], marker="s", s=22, color=CYCLE[number % len(CYCLE)], label=name)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("first principal component of the real features")
        axes.set_ylabel("second")
        figure.legend(loc="outside lower center", ncols=3, handletextpad=0.2)
    return uris[0]


def _mean_and_spread(axes: Any, values: np.ndarray, number: int, label: str) -> None:
    """One line of `values` [seeds, levels] in one of the styles."""
    style = {"color": CYCLE[number % len(CYCLE)], "linestyle": DASHES[number % len(DASHES)]}
    mean, x = values.mean(axis=0), np.arange(values.shape[1])
    axes.plot(x, mean, **style, marker="o", markersize=2.5, label=label)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(x, mean - spread, mean + spread, color=style["color"], alpha=0.15, linewidth=0)


def rgb_strip(frames: np.ndarray) -> str:
    """[T, H, W, 3] uint8 frames side by side."""
    return _strip(frames)


def depth_strip(frames: np.ndarray, near: float, far: float) -> str:
    """[T, H, W] millimetres side by side: near bright, far dark, pixels without return in vermillion."""
    return _strip(_color_depth(frames, near, far))


def noise_strip(frames: np.ndarray) -> str:
    """[T, H, W] millimetres: what a 3x3 median takes away, amplified; pixels without return in vermillion.

    Mid-grey is no difference, black and white are NOISE_MM nearer and farther.
    """
    valid = np.where(frames > 0, frames.astype(np.float32), np.nan)
    padded = np.pad(valid, ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    # A pixel with a return is in its own window, so the median of a window that matters is never of nothing.
    residual = np.zeros_like(valid)
    seen = frames > 0
    residual[seen] = valid[seen] - np.nanmedian(windows[seen].reshape(-1, 9), axis=-1)
    grey = np.clip(127.5 + 127.5 * residual / NOISE_MM, 0, 255).astype(np.uint8)
    return _strip(_mark_no_return(np.repeat(grey[..., None], 3, axis=-1), frames))


def depth_scale() -> str:
    """The depth strip's colours from near to far, 256 x 1 pixels."""
    return _strip(_color_depth(np.arange(1, 257)[None, None], 1, 256))


def _color_depth(frames: np.ndarray, near: float, far: float) -> np.ndarray:
    share = (frames.astype(np.float32) - near) / max(far - near, 1.0)
    colors = require_matplotlib().colormaps["cividis_r"](np.clip(share, 0, 1), bytes=True)[..., :3]
    return _mark_no_return(colors, frames)


def _mark_no_return(colors: np.ndarray, frames: np.ndarray) -> np.ndarray:
    mark = np.array([int(VERMILLION[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    return np.where((frames == 0)[..., None], mark, colors)


def _strip(frames: np.ndarray, gap: int = 2) -> str:
    height = frames.shape[1]
    white = np.full((height, gap, 3), 255, np.uint8)
    parts = [part for frame in frames for part in (white, frame)][1:]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(parts, axis=1).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return _uri(buffer.getvalue(), "image/png")
