"""Draws benchmarks/results as docs/assets/performance/*.svg; a figure whose CSV is not there is left out.

    python benchmarks/plots.py

Colours are those of Okabe and Ito, told apart by the colour-blind; arms differ in marker or hatch too. The files are
the same for the same results.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from recording import on_huge_pages, read

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).parent
OUT = HERE.parent / "docs" / "assets" / "performance"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    "#777777",
)
STYLES = {  # arm: (colour, marker, hatch)
    "hallujax": (BLUE, "o", ""),
    "hallujax_kept": (SKY, "D", "//"),
    "flax": (ORANGE, "s", "\\\\"),
    "torch": (VERMILION, "^", "xx"),
    "torch_compile": (PURPLE, "v", ".."),
    "onnxruntime": (GREEN, "P", "++"),
    "grain_tfds": (ORANGE, "s", "\\\\"),
    "torch_files": (VERMILION, "^", "xx"),
    "tf_data": (GREEN, "P", "++"),
    "authors": (GREY, "x", "--"),
    "authors_tf": (PURPLE, "v", ".."),
}
Row = dict[str, str]


def train_step(rows: list[Row]) -> Figure:
    """A panel for each run: clips a second of every arm, with the extremes of its blocks."""
    runs: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["median_ms"]:
            runs.setdefault((row["machine"], row["command"], row["system"]), []).append(row)
    figure, axes = panels(len(runs), columns=3)
    for axis, members in zip(axes, runs.values(), strict=True):
        first = members[0]
        clips = int(first["clips"])
        bars(
            axis,
            [row["arm"] for row in members],
            [1e3 * clips / float(row["median_ms"]) for row in members],
            [1e3 * clips / float(row["max_ms"]) for row in members],
            [1e3 * clips / float(row["min_ms"]) for row in members],
        )
        device = first["machine"].split(", ")[-1] + (", huge pages" if on_huge_pages(first) else "")
        axis.set_title(
            f"{first['system'].replace('_', ' ')}, {clips} x {first['frame']} px\n{first['dtype']}, {device}"
        )
        axis.set_ylabel("clips a second")
    return figure


def roofline(rows: list[Row]) -> Figure:
    """Measured time of each kind of kernel beside what the machine could do."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["kernel"].startswith("every ") and row["measured_ms"]:
            runs.setdefault((row["machine"], row["command"]), []).append(row)
    figure, axes = panels(len(runs), columns=2)
    for axis, members in zip(axes, runs.values(), strict=True):
        for shift, column, colour, hatch in ((0.2, "measured_ms", VERMILION, "xx"), (-0.2, "ideal_ms", BLUE, "")):
            places = [place + shift for place in range(len(members))]
            values = [float(row[column]) for row in members]
            axis.barh(
                places, values, 0.4, color=colour, hatch=hatch, edgecolor="white", label=column.removesuffix("_ms")
            )
        axis.set_yticks(range(len(members)), [f"{row['kind']} ({row['kernels']})" for row in members])
        first = members[0]
        axis.set_title(f"{first['system'].replace('_', ' ')}, {first['clips']} x {first['frame']} px, {first['dtype']}")
        axis.set_xlabel("milliseconds of a step")
        axis.legend(frameon=False)
    return figure


def game(rows: list[Row]) -> Figure:
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["of"] == "student":
            runs.setdefault((row["machine"], row["command"]), []).append(row)
    figure, axes = panels(len(runs), columns=2)
    for axis, members in zip(axes, runs.values(), strict=True):
        columns = ([float(row[key]) for row in members] for key in ("time_ratio", "time_ratio_min", "time_ratio_max"))
        bars(axis, [row["arm"] for row in members], *columns)
        axis.axhline(4 / 3, color=GREY, linestyle="--", linewidth=1)
        axis.annotate("theory, 4/3", (-0.4, 4 / 3), va="bottom", color=GREY)
        axis.set_title(f"{members[0]['clips']} x {members[0]['frame']} px, {members[0]['dtype']}")
        axis.set_ylabel("time of a step over the student's")
    return figure


def input(rows: list[Row]) -> Figure:
    """Clips a second and core with one thread, by the length of the clips; by the clock, by threads."""
    figure, axes = panels(2, columns=2)
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["clips_per_s"]))
    for arm in arms:
        mine = [row for row in rows if row["arm"] == arm and row["clips_per_s"]]
        single = sorted(
            (int(row["length"]), float(row["clips_per_s_and_core"])) for row in mine if row["threads"] == "1"
        )
        curve(axes[0], arm, [each[0] for each in single], [each[1] for each in single])
        usual = min((row["length"] for row in mine if row["threads"] != "1"), default=mine[0]["length"])
        threaded = sorted((int(row["threads"]), float(row["clips_per_s"])) for row in mine if row["length"] == usual)
        curve(axes[1], arm, [each[0] for each in threaded], [each[1] for each in threaded])
    axes[0].set(xlabel="frames a clip", ylabel="clips a second and core", xscale="log", yscale="log")
    axes[1].set(xlabel="threads or workers", ylabel="clips a second", yscale="log")
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def scale(rows: list[Row]) -> Figure:
    names = {
        "devices": ("simulated devices, the same batch", "time of a step, 1 device = 1"),
        "processes": ("processes, the same batch", "time of a step, 1 process = 1"),
        "batch": ("clips a batch", "time a clip, the smallest batch = 1"),
        "frames": ("frames a clip", "time of a step, 1 frame = 1"),
        "clips": ("clips in the dataset", "time to the first batch, 1e3 clips = 1"),
    }
    curves = {name: [row for row in rows if row["curve"] == name and row["ratio"]] for name in names}
    curves = {name: points for name, points in curves.items() if points}
    figure, axes = panels(len(curves), columns=3)
    for axis, (name, points) in zip(axes, curves.items(), strict=True):
        for (device, _), members in by_machine(points).items():
            places = [int(row["point"]) for row in members]
            middle, low, high = ([float(row[key]) for row in members] for key in ("ratio", "ratio_min", "ratio_max"))
            axis.plot(places, middle, marker="o", color=BLUE if device == "cpu" else VERMILION, label=device)
            axis.fill_between(places, low, high, color=BLUE if device == "cpu" else VERMILION, alpha=0.2, linewidth=0)
        axis.set(xlabel=names[name][0], ylabel=names[name][1], xscale="log", ylim=(0, None))
        axis.set_xticks(places, [f"{place:g}" for place in places], minor=False)
        axis.minorticks_off()
        axis.legend(frameon=False)
    return figure


def startup(rows: list[Row]) -> Figure:
    kinds = ("cold", "warm", "imports"), ("step", "save_stall", "restore")
    sizes = list(dict.fromkeys((row["clips"], row["frame"]) for row in rows))
    figure, axes = panels(2 * len(sizes), columns=2)
    for axis, (size, wanted) in zip(axes, itertools.product(sizes, kinds), strict=True):
        members = [row for row in rows if row["what"] in wanted and (row["clips"], row["frame"]) == size]
        axis.set_title(f"{size[0]} clips, {size[1]} px", fontsize="small")
        names = [row["what"].replace("_", " ") for row in members]
        bars(axis, names, *([float(row[key]) for row in members] for key in ("median_ms", "min_ms", "max_ms")))
        axis.set_ylabel("milliseconds")
    return figure


def inference(rows: list[Row]) -> Figure:
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["machine"], row["command"]), []).append(row)
    figure, axes = panels(len(runs), columns=2)
    for axis, members in zip(axes, runs.values(), strict=True):
        for arm in dict.fromkeys(row["arm"] for row in members):
            mine = [row for row in members if row["arm"] == arm]
            curve(axis, arm, [int(row["batch"]) for row in mine], [float(row["clips_per_s"]) for row in mine])
        arguments = members[0]["command"].partition(".py ")[2] or "as it is"
        axis.set_title(arguments.partition(" --batches")[0], fontsize="small")
        axis.set(xlabel="clips a batch", ylabel="clips a second", xscale="log", ylim=(0, None))
        axis.legend(frameon=False)
    return figure


FIGURES: tuple[Callable[[list[Row]], Figure], ...] = (train_step, roofline, game, input, scale, startup, inference)


def by_machine(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["machine"].split(", ")[-1], row["command"]), []).append(row)
    return found


def panels(count: int, columns: int) -> tuple[Figure, list]:
    columns = min(columns, max(count, 1))
    lines = -(-max(count, 1) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False)
    axes = list(axes.flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def bars(axis, names: Sequence[str], middle: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
    below = [value - least for value, least in zip(middle, low, strict=True)]
    above = [most - value for value, most in zip(middle, high, strict=True)]
    places = range(len(names))
    drawn = axis.bar(places, middle, yerr=[below, above], capsize=3, edgecolor="white", error_kw={"linewidth": 1})
    for name, bar in zip(names, drawn, strict=True):
        colour, _, hatch = STYLES.get(name, (BLUE, "o", ""))
        bar.set(facecolor=colour, hatch=hatch)
    axis.set_xticks(places, [name.replace("_", "\n") for name in names])


def curve(axis, arm: str, places: Sequence[float], values: Sequence[float]) -> None:
    colour, marker, _ = STYLES.get(arm, (GREY, ".", ""))
    axis.plot(places, values, marker=marker, color=colour, label=arm)


def draw(results: Path, out: Path) -> list[Path]:
    """Every figure that there are results for."""
    plt.rcParams |= {"svg.hashsalt": "hallujax", "svg.fonttype": "path", "font.size": 9, "figure.autolayout": True}
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for figure_of in FIGURES:
        rows = read(results / f"{figure_of.__name__}.csv")
        if rows:
            figure, path = figure_of(rows), out / f"{figure_of.__name__}.svg"
            figure.savefig(path, metadata={"Date": None}, facecolor="white")
            plt.close(figure)
            written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    for path in draw(args.results, args.out):
        print(path)


if __name__ == "__main__":
    main()
