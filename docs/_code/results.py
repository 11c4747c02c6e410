"""Tables of benchmarks/results as Markdown, read from the CSV files; `fill.py` writes them into the pages."""

import csv
import json
import pathlib
import statistics
from collections.abc import Sequence

from hallujax.evaluation.published import COLUMNS

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results"


def accuracies(name: str, each_seed: bool = True) -> str:
    """A table of systems: accuracy in percent, mean and standard deviation over the seeds, and each seed's."""
    rows = _read(name)
    seeds = [column for column in rows[0] if column.startswith("seed")]
    shown = seeds if each_seed else []
    header = ["system", "tested on", "accuracy %", *shown, "to the RGB ensemble, points (95 %)", "teacher recovered %"]
    *_, published = rows[0]
    header += ["clip-passes", f"{COLUMNS[published]}, published %"]
    lines = []
    for row in rows:
        # Not the columns as they are: what is rounded twice may come out wrong, and so many clips have one such share.
        clips = int(row["test_clips"])
        right = {seed: round(float(row[seed]) * clips) / clips for seed in seeds if row[seed]}
        found = list(right.values())
        mean = _percent(statistics.fmean(found))
        lines.append(
            [
                row["method"],
                row["test_modalities"].replace("+", " + "),
                f"{mean} ± {_percent(statistics.stdev(found))}" if len(found) > 1 else mean,
                *(_percent(right[seed]) if seed in right else "-" for seed in shown),
                _difference(row),
                str(round(100 * float(row["recovered"]))) if row["recovered"] else "-",
                f"{int(row['clip_passes']):,}",
                row[published] or "-",
            ]
        )
    return _table(header, lines)


def benchmark(name: str, columns: str) -> str:
    """Chosen columns of a CSV of timings as they are, a table for each machine and command; blanks part the columns.

    A sentence instead, if there is no such file yet.
    """
    chosen = columns.split()
    if not (RESULTS / name).exists():
        return f"*Not measured yet: no `benchmarks/results/{name}`.*"
    runs: dict[tuple[str, str, str], list[list[str]]] = {}
    for row in _read(name):
        run = row["command"], row["machine"], row["date"]
        runs.setdefault(run, []).append([row[column] for column in chosen])
    return "\n\n".join(
        f"`{command}`, {machine}, {date}:\n\n{_table(chosen, rows)}" for (command, machine, date), rows in runs.items()
    )


def regrets(name: str) -> str:
    """What `hallujax robustness` says in the JSON file of each way to predict, a column a kind of noise."""
    found = json.loads((RESULTS / name).read_text(encoding="utf-8"))["regret"]
    noises = list(dict.fromkeys(line["noise"] for line in found))
    cells = {
        (line["system"], line["noise"]): f"{line['points'] + 0.0:.1f} ({line['low']:.1f} to {line['high']:.1f})"
        for line in found
    }
    systems = sorted({line["system"] for line in found}, key=lambda system: float(cells[system, "all"].split()[0]))
    return _table(["", *noises], [[system, *(cells[system, noise] for noise in noises)] for system in systems])


def others() -> str:
    """Every file, folded up, as it is."""
    blocks = []
    for path in sorted(RESULTS.glob("*.csv")):
        rows = _read(path.name)
        table = _table(list(rows[0]), [list(row.values()) for row in rows])
        indented = "\n".join(f"    {line}" for line in table.splitlines())
        blocks.append(f'??? note "benchmarks/results/{path.name}"\n\n{indented}')
    return "\n\n".join(blocks)


def _read(name: str) -> list[dict[str, str]]:
    with open(RESULTS / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _difference(row: dict[str, str]) -> str:
    if not row["difference"]:
        return "-"
    points, low, high = (
        f"{round(100 * float(row[key]), 1) + 0.0:+.1f}" for key in ("difference", "difference_low", "difference_high")
    )
    return f"{points} ({low} to {high})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
