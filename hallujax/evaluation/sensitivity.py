"""How much step 3 depends on its settings, beside ADMD: accuracy over the values of one setting at a time.

Stages are found by what they are made from: those of one method that differ in one number, and in nothing else.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hallujax import paths
from hallujax.errors import UsageError
from hallujax.evaluation.claim_figures import settings_curves
from hallujax.evaluation.comparison import compare, role
from hallujax.evaluation.figures import require_matplotlib, svg_text
from hallujax.evaluation.runs import Row, Run, read_run
from hallujax.evaluation.written import as_csv

METHODS = {"hallucination": "Step 3", "admd": "ADMD"}
COLUMNS = ("method", "setting", "value", "system", "own", "seeds", "accuracy", "deviation", "points", "low", "high")
Settings = dict[str, Any]  # {key: value} of all that makes a stage


def sensitivity(run: Run) -> list[dict[str, Any]]:
    """A line, of COLUMNS, for each value of each setting that was varied, by rising value.

    `own` says whose value the others vary; `points` are to it, with the bounds of their 95 % interval.
    """
    stages = run.settings.get("config", {}).get("stages", {})
    rows = {row.stages[0]: row for row in run.rows if len(row.stages) == 1 and row.mean is not None}
    lines = []
    for method in METHODS:
        made = {n: _settings(stage) for n, stage in stages.items() if stage["method"] == method and n in rows}
        near = {base: {n: key for n in made if (key := _one_number(made[base], made[n]))} for base in made}
        base = next((name for name in near if near[name]), None)  # the table's own is declared first
        if base is None:
            continue
        for key in dict.fromkeys(near[base].values()):
            tried = [base, *(name for name in near[base] if near[base][name] == key)]
            for name in sorted(tried, key=lambda name: made[name][key]):
                lines.append(_line(run, METHODS[method], key, made[name][key], rows[name], rows[base]))
    return lines


def measure_sensitivity(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Writes `sensitivity.csv` and `sensitivity.svg` of a table's folder, or a workdir, into `out`.

    Raises:
      UsageError: if no two stages there differ in one number alone.
      DataError: as `runs.read_run`.
    """
    require_matplotlib()
    run = read_run(folder)
    lines = sensitivity(run)
    if not lines:
        raise UsageError(
            f"{folder}: no two stages of step 3 or ADMD differ in one number; train configs/sensitivity.py"
        )
    out.mkdir(parents=True, exist_ok=True)
    paths.write(out / "sensitivity.csv", as_csv(lines, COLUMNS))
    paths.write(out / "sensitivity.svg", svg_text(draw(run, lines)))
    for method, key in _curves(lines):
        values = [line for line in lines if (line["method"], line["setting"]) == (method, key)]
        least, most = (pick(values, key=lambda line: line["accuracy"]) for pick in (min, max))
        print(
            f"{method}, {key}: from {100 * least['accuracy']:.1f} % at {least['value']:g} to "
            f"{100 * most['accuracy']:.1f} % at {most['value']:g}, over {len(values)} values"
        )
    print(out / "sensitivity.svg")


def draw(run: Run, lines: Sequence[Mapping[str, Any]]) -> str:
    """A panel a setting, on one scale; ADMD as it is and the control across all of them."""
    panels = []
    for method, key in _curves(lines):
        values = [line for line in lines if (line["method"], line["setting"]) == (method, key)]
        panels.append(
            {
                "title": f"{method}: {key.removeprefix('options.').replace('learning_rates.', 'rate of the ')}",
                "values": [_short(line["value"]) for line in values],
                "own": next(place for place, line in enumerate(values) if line["own"]),
                "means": [100 * line["accuracy"] for line in values],
                "deviations": [100 * (line["deviation"] or 0.0) for line in values],
            }
        )
    across = [next((row for row in run.rows if row.stages == ("admd",)), None)]
    across += [next((row for row in run.rows if role(row) == "control"), None)]
    bands = {
        row.method: (100 * row.mean, 100 * (row.deviation or 0.0)) for row in across if row and row.mean is not None
    }
    return settings_curves(panels, bands)


def _short(value: float) -> str:
    """`0.75`, `4`, `2e-4`: seven of them fit under a panel."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:g}"
    digits, exponent = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _curves(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((line["method"], line["setting"]) for line in lines))


def _settings(stage: Mapping[str, Any]) -> Settings:
    """All that makes a stage but its name, flat, every player with a learning rate of its own."""
    rest = {key: value for key, value in stage.items() if key not in ("name", "optimizer")}
    optimizer = dict(stage["optimizer"])
    players = ("student", "discriminator") if stage["method"] == "admd" else ("student",)
    rates = dict.fromkeys(players, optimizer["learning_rate"])
    rates |= optimizer.pop("learning_rates", {})
    del optimizer["learning_rate"]
    return _flat(rest | {"optimizer": optimizer, "learning_rates": rates})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Settings:
    flat: Settings = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _one_number(base: Settings, other: Settings) -> str | None:
    """The one key in which two stages differ, if its values are numbers."""
    different = [key for key in base.keys() | other.keys() if base.get(key) != other.get(key)]
    if len(different) != 1:
        return None
    values = (base.get(different[0]), other.get(different[0]))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return different[0] if numbers else None


def _line(run: Run, method: str, key: str, value: float, row: Row, base: Row) -> dict[str, Any]:
    difference = None if row is base else compare(run, row, base)
    return {
        "method": method,
        "setting": key,
        "value": float(value),
        "system": row.method,
        "own": row is base,
        "seeds": " ".join(sorted(row.accuracies)),
        "accuracy": row.mean,
        "deviation": row.deviation,
        "points": difference.points if difference else None,
        "low": difference.low if difference else None,
        "high": difference.high if difference else None,
    }
