"""Tables of benchmarks/results as Markdown, read from the CSV files when the site is built."""

import csv
import pathlib
from collections.abc import Sequence

RESULTS = pathlib.Path(__file__).parents[2] / "benchmarks" / "results"


def accuracies(name: str) -> str:
    """A table of systems: accuracy in percent, mean and standard deviation over the seeds, and each seed's."""
    rows = _read(name)
    seeds = [column for column in rows[0] if column.startswith("seed")]
    header = ["system", "tested on", "accuracy %", *seeds, "clip-passes", "NTU cross-subject, published %"]
    lines = []
    for row in rows:
        mean = f"{_percent(row['mean'])} ± {_percent(row['deviation'])}" if row["deviation"] else _percent(row["mean"])
        lines.append(
            [
                row["method"],
                row["test_modalities"].replace("+", " + "),
                mean,
                *(_percent(row[seed]) if row[seed] else "-" for seed in seeds),
                f"{int(row['clip_passes']):,}",
                row["ntu_cross_subject"] or "-",
            ]
        )
    return _table(header, lines)


def benchmark(name: str, columns: str) -> str:
    """Chosen columns of a CSV as they are; `columns` are separated by blanks."""
    rows, chosen = _read(name), columns.split()
    return _table(chosen, [[row[column] for column in chosen] for row in rows])


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


def _percent(fraction: str) -> str:
    return f"{100 * float(fraction):.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
