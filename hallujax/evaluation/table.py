"""The table: every system of an experiment over its seeds, with its budget and what was published."""

import csv
import io
import json
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from hallujax.evaluation import published
from hallujax.evaluation.evaluate import Predictions, fuse, predictions_path, seen_by
from hallujax.experiment import Experiment, System

PUBLISHED_COLUMN = "ntu_cross_subject"  # the slides' first protocol, shown beside our own benchmark's numbers


def tabulate(experiment: Experiment, workdirs: Mapping[int, pathlib.Path]) -> list[dict[str, Any]]:
    """A row a system, in the configuration's order.

    Args:
      experiment: whose systems are tabulated.
      workdirs: `{seed: folder of the stages}`.

    Returns:
      Rows `{"method", "role", "stages", "test_modalities", "accuracies": {seed: fraction or None where it is missing},
      "mean", "deviation" (sample standard deviation, None below two seeds), "validation" (mean accuracy on validation
      clips, what a choice among rows may rest on), "test_clips", "clip_passes" (of training,
      ancestors included), "published": {column: percent or None}}`.

    Raises:
      DataError: if a system's stages were evaluated on different clips or classes.
    """
    return [_row(experiment, system, workdirs) for system in experiment.systems]


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
        validation.append(system_predictions(system, workdir, "validation").accuracy)
        stages = {name: json.loads(path.read_text()) for name, path in summaries.items()}
        passes = sum(stage["clip_passes"] for stage in stages.values())
        modalities |= {m for name in system.stages for m in stages[name]["test_modalities"]}
    seen = sorted(system.test_modalities or modalities, key=lambda m: (m != "rgb", m))
    found = [value for value in accuracies.values() if value is not None]
    table, method = system.published
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
        "published": {
            PUBLISHED_COLUMN: published.value(table, method, PUBLISHED_COLUMN, system.test_modalities or None)
            if table
            else None
        },
    }


def system_predictions(system: System, workdir: pathlib.Path, split: str) -> Predictions | None:
    """What a system's stages, all finished, say of a split, fused; None if one left no predictions.

    Raises:
      DataError: as `fuse`.
    """
    paths = []
    for name in system.stages:
        tested_on = json.loads((workdir / name / "stage.json").read_text())["test_modalities"]
        paths.append(predictions_path(workdir / name, split, seen_by(tested_on, system.test_modalities)))
    return fuse([Predictions.load(path) for path in paths]) if all(path.exists() for path in paths) else None


def write_table(out: pathlib.Path, rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    """Writes `results.json`, `table.json`, `table.csv` and `table.md` at the root of `out`.

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
    _write(out / "results.json", json.dumps(results, indent=1) + "\n")
    _write(out / "table.json", json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    _write(out / "table.csv", as_csv(rows))
    _write(out / "table.md", as_markdown(rows))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """One line a row, one accuracy column a seed; empty where a seed is missing."""
    seeds = list(rows[0]["accuracies"]) if rows else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "method",
            "test_modalities",
            *(f"seed{s}" for s in seeds),
            "mean",
            "deviation",
            "test_clips",
            "clip_passes",
            PUBLISHED_COLUMN,
        ]
    )
    for row in rows:
        values = [row["accuracies"][seed] for seed in seeds] + [row["mean"], row["deviation"]]
        writer.writerow(
            [row["method"], "+".join(row["test_modalities"])]
            + ["" if value is None else f"{value:.4f}" for value in values]
            + [row["test_clips"], row["clip_passes"], row["published"][PUBLISHED_COLUMN] or ""]
        )
    return text.getvalue()


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people: percentages, mean and standard deviation, seeds counted where some are missing."""
    lines = [
        "| system | tested on | accuracy % | clip-passes | NTU cross-subject, published % |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['method']} | {' + '.join(row['test_modalities'])} | {accuracy_text(row)} "
            f"| {row['clip_passes'] or '-'} | {row['published'][PUBLISHED_COLUMN] or '-'} |"
        )
    return "\n".join(lines) + "\n"


def accuracy_text(row: Mapping[str, Any]) -> str:
    """`61.2`, `61.2 ± 1.4`, `missing`, and how many seeds there are where some are missing."""
    if row["mean"] is None:
        return "missing"
    text = f"{100 * row['mean']:.1f}"
    if row["deviation"] is not None:
        text += f" ± {100 * row['deviation']:.1f}"
    found = sum(value is not None for value in row["accuracies"].values())
    return text if found == len(row["accuracies"]) else f"{text} ({found} of {len(row['accuracies'])} seeds)"


def _write(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
