"""What distillation adds: every model taught by more than RGB against each that was not, on the same test clips.

"[RGB + hallucination] outperforms [RGB + RGB]", so distillation is more than regularisation (slides). A reference that
starts from the teacher's weights and sees labels alone says how much of that is the warm start's, one with label
smoothing how much regularisation does by itself; `passes_ratio` says at what budget.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hallujax import paths
from hallujax.errors import UsageError
from hallujax.evaluation.claim_figures import forest
from hallujax.evaluation.comparison import Difference, best_first, compare, role
from hallujax.evaluation.figures import require_matplotlib, svg_text
from hallujax.evaluation.runs import Run, read_run
from hallujax.evaluation.written import as_csv

REFERENCES = {  # role: what it is called over a panel
    "rgb": "RGB alone",
    "ensemble": "RGB + RGB",
    "smoothing": "Label smoothing",
    "control": "The control",
    "rgb+control": "RGB + control",
}
COLUMNS = ("run", "system", "reference", "role", "seeds", "accuracy", "reference_accuracy")
COLUMNS += ("points", "low", "high", "clip_passes", "passes_ratio")


def advantages(run: Run, name: str = "") -> list[dict[str, Any]]:
    """A line, of COLUMNS, for each taught row and each reference, the best reference of a role on validation first.

    `low` and `high` are the 95 % interval of a paired bootstrap, None where the two have not the same seeds.
    """
    found = [row for row in run.rows if row.mean is not None]
    references = [each for wanted in REFERENCES for each in best_first([row for row in found if role(row) == wanted])]
    lines = []
    for reference in references:
        for row in (row for row in found if role(row) == "privileged"):
            difference = compare(run, row, reference)
            passes = (row.clip_passes, reference.clip_passes)
            lines.append(
                {
                    "run": name,
                    "system": row.method,
                    "reference": reference.method,
                    "role": role(reference),
                    "seeds": " ".join(sorted(row.accuracies)),
                    "accuracy": row.mean,
                    "reference_accuracy": reference.mean,
                    "points": difference.points,
                    "low": difference.low,
                    "high": difference.high,
                    "clip_passes": row.clip_passes,
                    "passes_ratio": passes[0] / passes[1] if all(passes) else None,
                }
            )
    return lines


def pictures(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """`(reference, picture)` of each role's best reference: forests of one panel each."""
    return [(panel["title"], _draw([panel], lines)) for panel in _panels(lines)]


def compare_runs(folders: Sequence[pathlib.Path], out: pathlib.Path) -> None:
    """Writes `compare.csv` and `compare.svg` of one or several tables' folders, or workdirs, into `out`.

    Raises:
      UsageError: if no run has a taught model and one to compare it with, or two folders have the same name.
      DataError: as `runs.read_run`.
    """
    require_matplotlib()
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"two of the folders have the same name ({', '.join(names)}), which is to tell them apart")
    lines = [line for folder, name in zip(folders, names, strict=True) for line in advantages(read_run(folder), name)]
    if not lines:
        raise UsageError(
            f"{', '.join(map(str, folders))}: no finished model taught by more than RGB beside one that was not; "
            "train configs/table.py or configs/equal_budget.py"
        )
    out.mkdir(parents=True, exist_ok=True)
    paths.write(out / "compare.csv", as_csv(lines, COLUMNS))
    paths.write(out / "compare.svg", svg_text(_draw(_panels(lines), lines)))
    for line in strongest(lines):
        budget = f", {line['passes_ratio']:.2f} times its clip-passes" if line["passes_ratio"] else ""
        print(f"{line['run']}: {line['system']} against {line['reference']}: {_points(line)}{budget}")
    print(out / "compare.svg")


def strongest(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of each role's best reference, run by run."""
    best = {}
    for line in lines:
        best.setdefault((line["run"], line["role"]), line["reference"])
    return [line for line in lines if best[line["run"], line["role"]] == line["reference"]]


def _points(line: Mapping[str, Any]) -> str:
    interval = f" ({line['low']:+.1f} to {line['high']:+.1f})" if line["low"] is not None else ", no common seeds"
    return f"{line['points']:+.1f} points{interval}"


def _panels(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    shown, panels = strongest(lines), []
    for wanted, title in REFERENCES.items():
        members = [line for line in shown if line["role"] == wanted]
        references = list(dict.fromkeys(line["reference"] for line in members))
        if members:
            panels.append(
                {
                    "title": references[0] if len(references) == 1 else title,
                    "differences": {
                        (line["system"], line["run"]): Difference(line["points"], line["low"], line["high"])
                        for line in members
                    },
                }
            )
    return panels


def _draw(panels: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]) -> str:
    labels, runs = (list(dict.fromkeys(line[key] for line in lines)) for key in ("system", "run"))
    return forest(panels, labels, runs, xlabel="points above it")
