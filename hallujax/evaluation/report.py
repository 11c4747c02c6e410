"""One self-contained page for a run: what was measured, how it compares, and what it was trained on.

A pure function of the files in the run folder. The page asks the network for nothing: style, figures and
sample frames are inside it. It needs the extra `demo` (matplotlib, jinja2).
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from hallujax import paths
from hallujax.errors import HallujaxError, UsageError
from hallujax.evaluation import advantage, comparison, figures, lessons, runs, sensitivity
from hallujax.evaluation.changed_clips import changed_clips
from hallujax.evaluation.comparison import Difference
from hallujax.evaluation.feature_space import feature_spaces
from hallujax.evaluation.metrics import confusion_matrix
from hallujax.evaluation.report_text import count, duration, flatten, memory
from hallujax.evaluation.runs import Row, Run, Stage

SAMPLE_CLIPS = 4
SAMPLE_FRAMES = 5

COLORS = {
    "rgb": figures.SKY,
    "ensemble": figures.SKY,
    "control": figures.ORANGE,
    "rgb+control": figures.ORANGE,
    "privileged": figures.BLUE,
    "other": figures.GREY,
}


def write_report(out: Path) -> Path:
    """Writes `out`/report.html from what `out` holds, finished or not, and returns its path.

    Raises:
      UsageError: `out` holds no run, or the extra `demo` is not installed.
      DataError: its table.json or results.json is not what the format says.
    """
    out = paths.as_path(out)
    page = _environment().get_template("report.html").render(_page(runs.read_run(out)))
    path = out / "report.html"
    paths.write(path, page)  # a reader never meets half a page
    return path


def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise UsageError("the report needs jinja2; install it: pip install 'hallujax[demo]'") from error
    here = resources.files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = here.joinpath("report.css").read_text(encoding="utf-8")
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    environment.filters["count"] = count
    environment.filters["duration"] = duration
    environment.filters["memory"] = memory
    return environment


def _page(run: Run) -> dict[str, Any]:
    dataset, reason = _open_dataset(run)
    classes = run.classes
    if dataset is not None and len(dataset.classes) == len(classes):
        classes = dataset.classes  # a run without a table knows their number alone
    chance = 1 / len(classes) if classes else None
    return {
        "takeaway": comparison.takeaway(run),
        "facts": _facts(run, len(classes)),
        "tiles": _tiles(run),
        "rows": _table(run),
        "published_column": run.published_column,
        "several_seeds": any(len(row.accuracies) > 1 for row in run.rows),
        "bars": figures.accuracy_bars(_bars(run), chance) if run.rows else None,
        "samples": _samples(run, dataset, reason),
        "noise_mm": int(figures.NOISE_MM),
        "changed": _changed(run, dataset),
        "curves": _curves(run, chance),
        "confusion": _confusion(run, classes),
        "advantages": advantage.pictures(advantage.advantages(run)),
        "teachers": lessons.draw(lessons.lessons(run)),
        "sensitivity": _sensitivity(run),
        "features": _features(run, dataset),
        "robustness": _robustness(run),
        "stages": run.stages,
        "settings": list(flatten(run.settings)),
        "command": run.table.get("command"),
        "seconds": run.table.get("seconds"),
        "problems": run.problems,
    }


def _facts(run: Run, classes: int) -> list[tuple[str, str]]:
    data = run.settings.get("config", {}).get("data", {})
    counts = sorted({len(stage.test.clip) for stage in run.stages if stage.test is not None})
    facts = [
        ("dataset", run.table.get("dataset") or data.get("dataset")),
        ("protocol", str(run.table.get("protocol") or data.get("protocol") or "").replace("_", "-")),
        ("preset", run.table.get("preset")),
        ("classes", classes),
        ("test clips", " / ".join(map(str, counts))),
        ("seeds", len(run.seeds)),
        ("time", duration(run.table["seconds"]) if run.table.get("seconds") else None),
    ]
    return [(name, str(fact)) for name, fact in facts if fact]


def _tiles(run: Run) -> list[dict[str, Any]]:
    """The few numbers a reader came for: the references and the best model taught by depth."""
    tiles = []
    for wanted in ("rgb", "ensemble", "control", "rgb+control", "privileged"):
        for row in comparison.rows_by_role(run, wanted)[:1]:
            tiles.append({"label": row.method, "mean": row.mean, "color": COLORS[wanted], "role": wanted})
    return tiles


def _bars(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "label": row.method,
            "mean": row.mean,
            "deviation": row.deviation,
            "color": COLORS.get(comparison.role(row), figures.GREY),
        }
        for row in run.rows
    ]


def _table(run: Run) -> list[dict[str, Any]]:
    finished = (row for row in run.rows if row.mean is not None)
    ensemble = next((row for row in finished if comparison.role(row) == "ensemble"), None)  # the first, as in table.csv
    return [
        {
            "row": row,
            "role": comparison.role(row),
            "tested_on": " + ".join(_modality(name) for name in row.test_modalities) or "–",
            "accuracy": _accuracy(row),
            "difference": _difference(comparison.compare(run, row, ensemble))
            if ensemble is not None and row is not ensemble
            else None,
            "is_reference": row is ensemble,
        }
        for row in run.rows
    ]


def _accuracy(row: Row) -> str:
    if row.mean is None:
        return "missing"
    spread = "" if row.deviation is None else f" ± {100 * row.deviation:.1f}"
    done = len(row.accuracies)
    part = f" ({done} of {done + row.missing_seeds} seeds)" if row.missing_seeds else ""
    return f"{100 * row.mean:.1f}{spread}{part}"


def _difference(difference: Difference | None) -> dict[str, str] | None:
    if difference is None:
        return None
    interval = "" if difference.low is None else f"{_signed(difference.low)} to {_signed(difference.high)}"
    return {"points": _signed(difference.points), "interval": interval}


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}".replace("-", "\u2212")


def _modality(name: str) -> str:
    return name.upper() if len(name) <= 3 else name


def _curves(run: Run, chance: float | None) -> list[dict[str, Any]]:
    """One entry a seed: its stages, each with the curves' picture, or None where nothing was logged."""
    return [
        {
            "seed": seed,
            "stages": [
                {
                    "stage": stage,
                    "figure": figures.learning_curves(
                        stage.training,
                        stage.validation,
                        best_step=stage.info.get("best_step"),
                        chance=chance,
                    ),
                    "networks": _networks(stage),
                }
                for stage in run.stages
                if stage.seed == seed
            ],
        }
        for seed in sorted({stage.seed for stage in run.stages})
    ]


def _networks(stage: Stage) -> list[str]:
    """One phrase a network: what it sees, whose loss it descends, what it started from."""
    info = stage.info
    sees, players, origins = (info.get(key) or {} for key in ("networks", "players", "init_from"))
    phrases = []
    for network in dict.fromkeys([*sees, *players]):
        parts = [f"sees {_modality(sees[network])}"] if sees.get(network) else []
        parts.append(f"player {players[network]}" if network in players else "frozen")
        if network in origins:
            source, its_network = origins[network]
            parts.append(f"starts from {source}" + (f" ({its_network})" if its_network != source else ""))
        phrases.append(f"{network}: {', '.join(parts)}")
    return phrases


def _confusion(run: Run, classes: list[str]) -> dict[str, Any] | None:
    """RGB alone beside the best other system tested on RGB, and the best of ADMD's; seeds summed, None without both."""
    plain = next(iter(comparison.rows_by_role(run, "rgb")), None)
    by_rgb = [row for row in run.rows if row.mean is not None and row.test_modalities == ("rgb",)]
    others = [row for row in by_rgb if row is not plain and run.predictions(row)]
    if plain is None or not others or not run.predictions(plain):
        return None
    games = {stage.name for stage in run.stages if stage.info.get("method") == "admd"}
    best, *rest = comparison.best_first(others)
    admd = [row for row in rest if games & set(row.stages)]
    chosen = [best] if games & set(best.stages) else [best, *admd[:1]]

    def counted(row: Row) -> np.ndarray:
        return sum(confusion_matrix(each.logits, each.label) for each in run.predictions(row).values())

    def recall(counts: np.ndarray) -> np.ndarray:
        return np.diag(counts) / np.maximum(counts.sum(axis=1), 1)

    before = counted(plain)
    compared = []
    for row in chosen:
        counts = counted(row)
        points = 100 * (recall(counts) - recall(before))
        compared.append(
            {
                "name": row.method,
                "matrix": figures.confusion_matrix(counts, classes),
                "changes": figures.class_changes(points, classes),
                "better": int((points > 0).sum()),
                "worse": int((points < 0).sum()),
                "same": int((points == 0).sum()),
            }
        )
    return {"name": plain.method, "matrix": figures.confusion_matrix(before, classes), "others": compared}


def _sensitivity(run: Run) -> str | None:
    lines = sensitivity.sensitivity(run)
    return sensitivity.draw(run, lines) if lines else None


def _features(run: Run, dataset: Any) -> list[dict[str, Any]]:
    try:
        return [] if dataset is None else feature_spaces(run, dataset)
    except HallujaxError as error:
        run.problems.append(f"features are left out: {error}")
        return []


def _robustness(run: Run) -> dict[str, Any] | None:
    """What `hallujax robustness` left in the run folder; None where it has not run, or its files are damaged."""
    paths = [run.folder / f"robustness.{kind}" for kind in ("json", "svg")]
    if not all(path.exists() for path in paths):
        return None
    try:
        found = json.loads(paths[0].read_text(encoding="utf-8"))
        regrets = {(line["system"], line["noise"]): line for line in found["regret"]}
        return {
            "figure": figures.svg_uri(paths[1].read_text(encoding="utf-8")),
            "noises": list(dict.fromkeys(noise for _, noise in regrets)),
            "regrets": {
                system: {
                    noise: _difference(Difference(line["points"], line["low"], line["high"]))
                    for (name, noise), line in regrets.items()
                    if name == system
                }
                for system in dict.fromkeys(system for system, _ in regrets)
            },
            **{key: found[key] for key in ("trusted", "fallback", "false_alarms", "seeds", "missing_seeds", "command")},
        }
    except (ValueError, KeyError, TypeError) as error:
        run.problems.append(f"robustness.json is damaged ({error!r}): run hallujax robustness again")
        return None


def _open_dataset(run: Run) -> tuple[Any, str]:
    """The prepared dataset of a run, or None and why there is none."""
    from hallujax.data.local_copy import is_here  # a report without data needs no data readers
    from hallujax.data.records import PreparedDataset

    folders = [path for path in sorted((run.folder / "data").glob("*")) if path.is_dir()]
    named = run.settings.get("config", {}).get("data", {})
    try:
        if not folders and {"directory", "dataset"} <= named.keys():
            place = paths.reach(paths.as_path(named["directory"])) / named["dataset"]
            folders = [place] if place.is_dir() else []
        if not folders:
            return None, "the dataset is neither in this run folder nor where run.json says"
        if paths.in_bucket(folders[0]) and not is_here(folders[0]):
            return None, f"the dataset is in {folders[0].parent}, and has not been copied to this machine"
        return PreparedDataset.open(folders[0]), ""
    except HallujaxError as error:
        return None, str(error)


def _samples(run: Run, dataset: Any, reason: str) -> dict[str, Any]:
    """Strips of the first test clip of a few classes, evenly spread: no result takes part in the choice."""
    if dataset is None:
        return {"clips": [], "reason": reason}
    try:
        return _sample_strips(run, dataset)
    except HallujaxError as error:
        return {"clips": [], "reason": str(error)}


def _changed(run: Run, dataset: Any) -> dict[str, Any] | None:
    try:
        return None if dataset is None else changed_clips(run, dataset)
    except HallujaxError as error:
        run.problems.append(f"clips that changed are left out: {error}")
        return None


def _sample_strips(run: Run, dataset: Any) -> dict[str, Any]:
    index, classes = dataset.index, list(dataset.classes)
    tested = {clip for stage in run.stages if stage.test is not None for clip in stage.test.clip.tolist()}
    lengths = np.minimum(dataset.length("rgb"), dataset.length("depth"))
    usable = (lengths > 0) & (np.isin(index["clip"], list(tested)) if tested else True)
    present = [label for label in range(len(classes)) if (usable & (index["label"] == label)).any()]
    if not present:
        return {
            "clips": [],
            "reason": f"no clip of {dataset.directory} was tested and has both RGB and depth",
        }
    spread = np.unique(np.linspace(0, len(present) - 1, min(SAMPLE_CLIPS, len(present))).round().astype(int))
    rows = np.array([np.flatnonzero(usable & (index["label"] == present[i]))[0] for i in spread])
    count = min(SAMPLE_FRAMES, int(lengths[rows].max()))
    frames = [np.linspace(0, lengths[row] - 1, count).astype(int) for row in rows]
    rgb, depth = dataset.read("rgb", rows, frames), dataset.read("depth", rows, frames)
    near, far = np.percentile(depth[depth > 0], [2, 98]) if (depth > 0).any() else (0.0, 1.0)
    return {
        "reason": None,
        "kind": "test clip" if tested else "clip",
        "frames": count,
        "near": f"{near / 1000:.1f}",
        "far": f"{far / 1000:.1f}",
        "scale": figures.depth_scale(),
        "clips": [
            {
                "class": classes[int(index["label"][row])],
                "clip": _text(index["clip"][row]),
                "rgb": figures.rgb_strip(rgb[i]),
                "depth": figures.depth_strip(depth[i], near, far),
                "noise": figures.noise_strip(depth[i]),
                "no_return": f"{100 * float((depth[i] == 0).mean()):.1f}",
                "answers": _answers(run, index["clip"][row], classes),
            }
            for i, row in enumerate(rows)
        ],
    }


def _answers(run: Run, clip: Any, classes: list[str]) -> list[dict[str, Any]]:
    """What depth, RGB alone and the best model taught by depth say of a clip, each in its first seed."""
    depth_alone = [row for row in run.rows if row.test_modalities == ("depth",) and row.mean is not None]
    wanted = [*depth_alone[:1], *comparison.rows_by_role(run, "rgb")[:1]]
    wanted += comparison.rows_by_role(run, "privileged")[:1]
    answers = []
    for row in wanted:
        for _, predictions in sorted(run.predictions(row).items())[:1]:
            for place in np.flatnonzero(predictions.clip == clip)[:1]:
                said = int(predictions.logits[place].argmax())
                right = said == predictions.label[place]
                answers.append({"method": row.method, "class": classes[said], "right": right})
    return answers


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
