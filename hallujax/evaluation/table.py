"""The table: every system of an experiment over its seeds, with its budget and what was published."""

import csv
import dataclasses
import functools
import html
import io
import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from hallujax import paths, sealed
from hallujax.errors import CheckpointError
from hallujax.evaluation import published
from hallujax.evaluation.comparison import paired_bootstrap
from hallujax.evaluation.evaluate import Predictions, check_comparable, fuse, predictions_path, seen_by
from hallujax.experiment import Experiment, System
from hallujax.training.summary import FILE, read_summary

REFERENCES = ("ensemble", "rgb", "teacher")  # roles whose first row the others are measured by


def tabulate(
    experiment: Experiment,
    workdirs: Mapping[int, pathlib.Path],
    failures: Mapping[int, Mapping[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """A row a system, in the configuration's order.

    Args:
      experiment: whose systems are tabulated.
      workdirs: `{seed: folder of the stages}`.
      failures: `{seed: {stage: why}}` of the stages that were tried and failed.

    Returns:
      Rows `{"method", "role", "stages", "test_modalities", "accuracies": {seed: fraction or None where it is missing},
      "mean", "deviation" (sample standard deviation, None below two seeds), "validation" (mean accuracy on validation
      clips, what a choice among rows may rest on), "test_clips", "clip_passes" (of training, ancestors included),
      "published": {column: percent or None} (empty where the papers report nothing of the protocol), "difference" (to
      the first row of role `ensemble`, as `comparison.Difference`; None unless the two have the same seeds),
      "recovered" (see `_recovered`), "note" (which of its stages failed, and how)}`.

    Raises:
      DataError: if stages were evaluated on different clips or classes, naming two of their folders.
      CheckpointError: if what a finished stage wrote is damaged or gone.
    """
    _check_comparable(experiment, workdirs)
    rows = [_row(experiment, system, workdirs) for system in experiment.systems]
    first = {role: next((i for i, row in enumerate(rows) if row["role"] == role), None) for role in REFERENCES}
    correct = functools.cache(lambda i: _correct(experiment.systems[i], workdirs, rows[i]))
    reference = first["ensemble"]
    ends = [rows[first[role]] for role in ("rgb", "teacher") if first[role] is not None]
    for i, row in enumerate(rows):
        row["difference"] = None
        if reference not in (None, i) and row["mean"] is not None and _seeds(row) == _seeds(rows[reference]):
            row["difference"] = dataclasses.asdict(paired_bootstrap(correct(i), correct(reference)))
        row["recovered"] = _recovered(row, *ends)
        row["note"] = _failed(experiment, experiment.systems[i], failures or {})
    return rows


def _check_comparable(experiment: Experiment, workdirs: Mapping[int, pathlib.Path]) -> None:
    stages = dict.fromkeys(stage for system in experiment.systems for stage in system.stages)
    folders = [workdir / stage for workdir in workdirs.values() for stage in stages]
    paths = {folder: predictions_path(folder, "test") for folder in folders if (folder / FILE).exists()}
    check_comparable({str(folder): Predictions.load(path) for folder, path in paths.items() if path.exists()})


def _failed(experiment: Experiment, system: System, failures: Mapping[int, Mapping[str, str]]) -> str:
    needed = {name for stage in system.stages for name in experiment.ancestors(stage)}
    return "; ".join(
        f"seed {seed} failed: {why}"
        for seed, stages in failures.items()
        for name, why in stages.items()
        if name in needed
    )


def _seeds(row: Mapping[str, Any]) -> set[str]:
    return {seed for seed, accuracy in row["accuracies"].items() if accuracy is not None}


def _correct(system: System, workdirs: Mapping[int, pathlib.Path], row: Mapping[str, Any]) -> np.ndarray:
    """The share of a row's finished seeds that were right about each test clip, `[N]`."""
    found = [system_predictions(system, workdirs[int(seed)], "test") for seed in sorted(_seeds(row))]
    return np.mean([each.logits.argmax(-1) == each.label for each in found], axis=0)


def _recovered(row: Mapping[str, Any], *ends: Mapping[str, Any]) -> float | None:
    """How much of the way from RGB alone to the table's teacher (roles `rgb` and `teacher`) a row has come.

    1 is the "full recovery of the teacher's accuracy" of the slides. None for rows not tested on RGB alone, and unless
    the teacher is the better of the two.
    """
    if len(ends) < 2 or row["test_modalities"] != ["rgb"] or row["role"] == "rgb":
        return None
    rgb, teacher = (end["mean"] for end in ends)
    if row["mean"] is None or rgb is None or teacher is None or teacher <= rgb:
        return None
    return (row["mean"] - rgb) / (teacher - rgb)


def _row(experiment: Experiment, system: System, workdirs: Mapping[int, pathlib.Path]) -> dict[str, Any]:
    accuracies: dict[str, float | None] = {}
    clips, passes, modalities, validation = None, None, set(), []
    needed = list(dict.fromkeys(name for stage in system.stages for name in experiment.ancestors(stage)))
    for seed, workdir in workdirs.items():
        summaries = {name: workdir / name / "stage.json" for name in needed}
        done = all(path.exists() for path in summaries.values())
        test = system_predictions(system, workdir, "test") if done else None
        if test is None:
            accuracies[str(seed)] = None
            continue
        accuracies[str(seed)], clips = test.accuracy, len(test.label)
        on_validation = system_predictions(system, workdir, "validation")
        if on_validation is None:
            raise CheckpointError(
                f"{workdir}: a finished stage of {system.name!r} has no predictions_validation.npz; "
                "`hallujax evaluate --split validation` writes it again"
            )
        validation.append(on_validation.accuracy)
        stages = {name: read_summary(path.parent) for name, path in summaries.items()}
        passes = sum(stage["clip_passes"] for stage in stages.values())
        modalities |= {m for name in system.stages for m in stages[name]["test_modalities"]}
    seen = sorted(system.test_modalities or modalities, key=lambda m: (m != "rgb", m))
    found = [value for value in accuracies.values() if value is not None]
    table, method = system.published
    column = published.column(experiment.data.dataset, experiment.data.protocol)
    known = published.value(table, method, column, system.test_modalities or None) if table and column else None
    return {
        "method": system.name,
        "role": system.role,
        "stages": list(system.stages),
        "test_modalities": seen,
        "accuracies": accuracies,
        "mean": statistics.fmean(found) if found else None,
        "deviation": statistics.stdev(found) if len(found) > 1 else None,
        "validation": statistics.fmean(validation) if validation else None,
        "test_clips": clips,
        "clip_passes": passes,
        "published": {column: known} if column else {},
    }


def system_predictions(system: System, workdir: pathlib.Path, split: str) -> Predictions | None:
    """What a system's stages, all finished, say of a split, fused; None if one left no predictions.

    Raises:
      DataError: as `fuse`.
    """
    paths = []
    for name in system.stages:
        tested_on = read_summary(workdir / name)["test_modalities"]
        paths.append(predictions_path(workdir / name, split, seen_by(tested_on, system.test_modalities)))
    return fuse([Predictions.load(path) for path in paths]) if all(path.exists() for path in paths) else None


def write_table(out: pathlib.Path, rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    """Writes `results.json`, `table.json`, `table.csv`, `table.md` and `table.html` at the root of `out`.

    Args:
      facts: dataset, protocol, preset, classes, command, seconds: what `table.json` says beside the rows.
    """
    results = [
        {
            "method": row["method"],
            "test_modalities": row["test_modalities"],
            "seed": int(seed),
            "accuracy": accuracy,
            "test_clips": row["test_clips"],
        }
        for row in rows
        for seed, accuracy in row["accuracies"].items()
        if accuracy is not None
    ]
    paths.write(out / "results.json", json.dumps(results, indent=1) + "\n")
    sealed.write(out / "table.json", {**facts, "rows": rows})
    paths.write(out / "table.csv", as_csv(rows))
    paths.write(out / "table.md", as_markdown(rows))
    paths.write(out / "table.html", as_html(rows, facts))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """One line a row, one accuracy column a seed; empty where a seed is missing."""
    seeds, columns = (list(rows[0]["accuracies"]), list(rows[0]["published"])) if rows else ([], [])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "method",
            "test_modalities",
            *(f"seed{s}" for s in seeds),
            "mean",
            "deviation",
            "difference",
            "difference_low",
            "difference_high",
            "recovered",
            "test_clips",
            "clip_passes",
            *columns,
        ]
    )
    for row in rows:
        difference = row["difference"] or dict.fromkeys(("points", "low", "high"))
        values = [row["accuracies"][seed] for seed in seeds] + [row["mean"], row["deviation"]]
        values += [None if value is None else value / 100 for value in difference.values()] + [row["recovered"]]
        writer.writerow(
            [row["method"], "+".join(row["test_modalities"])]
            + ["" if value is None else f"{value:.4f}" for value in values]
            + [row["test_clips"], row["clip_passes"], *(row["published"][column] or "" for column in columns)]
        )
    return text.getvalue()


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people: percentages, mean and standard deviation, seeds counted where some are missing."""
    header, *lines = cells(rows)
    made = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(line)} |" for line in lines)]
    notes = [f"{row['method']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join(made) + "\n" + "".join(f"\n{note}\n" for note in notes)


def as_html(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> str:
    """The same table as a page of its own, and what else the papers report in its column.

    The papers' tables repeat rows of each other, so rows are told apart by what they were tested on and their number.
    """
    (header, *lines), columns = cells(rows), list(rows[0]["published"]) if rows else []
    beside = {value for row in rows for value in row["published"].values()}
    others = {
        (each.test_modalities, each.accuracies[column]): each.method
        for column in columns
        for each in published.load()
        if each.accuracies[column] is not None and each.accuracies[column] not in beside
    }
    title = html.escape(f"{facts.get('dataset')}, {facts.get('protocol')}".replace("_", " "))
    made = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>',
        "<style>body{font:1rem/1.5 system-ui,sans-serif;margin:1rem}div{overflow-x:auto}",
        "table{border-collapse:collapse}th,td{padding:.3rem .7rem;text-align:left;border-bottom:1px solid #d5d9de}",
        "</style></head><body>",
        f"<h1>{title}</h1>",
        _html_table(header, lines),
    ]
    made += [f"<p>{html.escape(row['method'])}: {html.escape(row['note'])}</p>" for row in rows if row["note"]]
    if others:
        reported = [[method, " + ".join(seen), str(value)] for (seen, value), method in others.items()]
        made += ["<h2>Also reported there</h2>", _html_table([*header[:2], header[-1]], reported)]
    return "\n".join([*made, "</body></html>\n"])


def _html_table(header: list[str], lines: list[list[str]]) -> str:
    def row(kind, cells):
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    body = [row("td", line) for line in lines]
    return "\n".join(["<div><table><thead>", row("th", header), "</thead><tbody>", *body, "</tbody></table></div>"])


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The header's cells, then each row's."""
    columns = list(rows[0]["published"]) if rows else []
    header = ["system", "tested on", "accuracy %", "to the RGB ensemble, points (95 %)", "teacher recovered %"]
    header += ["clip-passes", *(f"{published.COLUMNS[column]}, published %" for column in columns)]
    lines = []
    for row in rows:
        cells = [row["method"], " + ".join(row["test_modalities"]), accuracy_text(row), difference_text(row)]
        cells += [_percent(row["recovered"]), str(row["clip_passes"] or "-")]
        lines.append(cells + [str(row["published"][column] or "-") for column in columns])
    return [header, *lines]


def accuracy_text(row: Mapping[str, Any]) -> str:
    """`61.2`, `61.2 ± 1.4`, `missing`, and how many seeds there are where some are missing."""
    if row["mean"] is None:
        return "missing"
    text = f"{100 * row['mean']:.1f}"
    if row["deviation"] is not None:
        text += f" ± {100 * row['deviation']:.1f}"
    found = sum(value is not None for value in row["accuracies"].values())
    return text if found == len(row["accuracies"]) else f"{text} ({found} of {len(row['accuracies'])} seeds)"


def difference_text(row: Mapping[str, Any]) -> str:
    """`+1.4 (+0.8 to +2.0)`, or a dash."""
    if row["difference"] is None:
        return "-"
    points, low, high = (f"{round(row['difference'][key], 1) + 0.0:+.1f}" for key in ("points", "low", "high"))
    return f"{points} ({low} to {high})"


def _percent(share: float | None) -> str:
    return "-" if share is None else str(round(100 * share))  # an int: no "-0"
