"""The figures of comparisons: differences with their intervals, and accuracies over settings."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hallujax.evaluation.comparison import Difference
from hallujax.evaluation.figures import CYCLE, DASHES, GREY, INK, ORANGE, canvas

MARKERS = ("o", "s", "^", "D", "v", "P")
_TITLE_WIDTH = 28  # characters that a panel has room for


def forest(
    panels: Sequence[Mapping[str, Any]], labels: Sequence[str], series: Sequence[str], *, xlabel: str, mark: str = ""
) -> str:
    """Panels side by side, a line a label: differences in points, a bar from end to end of each interval.

    Args:
      panels: each a dict of `title`, `differences`, `{(label, one of series): Difference}`, where some may be missing,
        and, if they are to be marked, `marks`, `{label: points}`.
      labels: of the lines, top to bottom.
      series: names that are told apart by colour and marker; a legend names them if there are several.
      xlabel: of every panel.
      mark: what the marks are.
    """
    step = max(1.0, 0.62 * len(series))
    left = 0.3 + 0.065 * max(map(len, labels))  # inches, of the longest label
    with canvas(left + 2.3 * len(panels), 0.24 * step * len(labels) + 1.0) as (figure, uris):
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(every, panels, strict=True):
            for y, label in enumerate(labels):
                for number, name in enumerate(series):
                    if (found := panel["differences"].get((label, name))) is not None:
                        _interval(axes, y + 0.6 * ((number + 0.5) / len(series) - 0.5), found, number)
                if (at := panel.get("marks", {}).get(label)) is not None:
                    axes.plot(at, y, marker="d", markersize=5, markerfacecolor="none", color=ORANGE)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.set_title(textwrap.fill(panel["title"], _TITLE_WIDTH), fontsize=9, loc="left")
            axes.set_xlabel(textwrap.fill(xlabel, _TITLE_WIDTH))
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.set_yticks(range(len(labels)), labels, fontsize=8)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
        handles = [_handle(every[0], number, name) for number, name in enumerate(series)] if len(series) > 1 else []
        if mark:
            handles += every[0].plot([], [], marker="d", markerfacecolor="none", color=ORANGE, linestyle="", label=mark)
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return uris[0]


def _interval(axes: Any, y: float, found: Difference, number: int) -> None:
    style = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
    if found.low is not None:
        axes.plot([found.low, found.high], [y, y], color=style["color"], linewidth=1.6)
    axes.plot(found.points, y, **style, markerfacecolor=style["color"] if found.separated else "white")


def _handle(axes: Any, number: int, name: str) -> Any:
    color, marker = CYCLE[number % len(CYCLE)], MARKERS[number % len(MARKERS)]
    return axes.plot([], [], color=color, marker=marker, markersize=4, label=name)[0]


def settings_curves(panels: Sequence[Mapping[str, Any]], bands: Mapping[str, tuple[float, float]]) -> str:
    """Accuracy over the values of one setting a panel, means over seeds with their deviation, on one scale.

    Args:
      panels: each a dict of `title`, `values` (names of the places), `own` (the place of the value that the others
        vary), `means` and `deviations`, percent.
      bands: `{name: (mean, deviation)}`, drawn across every panel.
    """
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    with canvas(0.6 + 2.4 * across, 2.2 * down + 0.5) as (figure, uris):
        every = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, panel in zip(every, panels, strict=False):
            x, means, spread = np.arange(len(panel["means"])), np.array(panel["means"]), np.array(panel["deviations"])
            axes.errorbar(x, means, yerr=spread, color=CYCLE[0], marker="o", markersize=3.5, capsize=2.5)
            axes.plot(panel["own"], means[panel["own"]], marker="o", markersize=9, markerfacecolor="none", color=INK)
            for number, (name, (mean, deviation)) in enumerate(bands.items(), 1):
                style = {"color": CYCLE[number % len(CYCLE)], "linestyle": DASHES[number % len(DASHES)]}
                axes.axhline(mean, **style, label=name)
                axes.axhspan(mean - deviation, mean + deviation, color=style["color"], alpha=0.12, linewidth=0)
            axes.set_xticks(x, panel["values"], fontsize=8)
            axes.set_xlim(-0.4, len(x) - 0.6)
            axes.set_title(panel["title"], fontsize=9, loc="left")
            axes.grid(axis="y", color=GREY, alpha=0.3)
        for axes in every[::across]:
            axes.set_ylabel("test accuracy (%)")
        for axes in every[len(panels) :]:
            axes.set_axis_off()
        if bands:
            figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return uris[0]
