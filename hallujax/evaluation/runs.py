"""Reads what a run folder holds: its table, its stages, their curves and predictions; writes nothing.

Whatever is absent, unfinished or unreadable is named in `Run.problems`; nothing is dropped in silence.
"""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from hallujax import paths, sealed
from hallujax.errors import CheckpointError, DataError, UsageError
from hallujax.evaluation import published
from hallujax.evaluation.evaluate import Predictions, check_comparable, fuse, predictions_path, seen_by
from hallujax.experiment import IMAGENET
from hallujax.training.metrics_log import read_metrics
from hallujax.training.summary import read_summary

STAGE_FILES = ("stage.json", "metrics.jsonl", "config.json")  # one of them makes a folder a stage's


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of one seed: `state` finished, not evaluated, unfinished, missing; `info` its stage.json.

    `test` are its predictions from all its test modalities, `test_on` those from fewer (`evaluate.seen_by`).
    """

    seed: str
    name: str
    state: str
    info: dict[str, Any]
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: Predictions | None
    test_on: dict[tuple[str, ...], Predictions] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      mean: of `accuracies` (fractions), None where no seed is done.
      deviation: over seeds, None where one is done.
      validation: mean accuracy on validation clips, None where unknown.
      published: percent in `Run.published_column`.
      stages: whose mean clip logits predict.
      role: what it is compared as, where the configuration says so; see `comparison.role`.
      missing_seeds: of the table, that have no number yet.
      recovered: share of the way from RGB alone to the table's teacher; see `table.tabulate`.
    """

    method: str
    test_modalities: tuple[str, ...]
    accuracies: dict[str, float]
    mean: float | None
    deviation: float | None
    validation: float | None = None
    clip_passes: int | None = None
    published: float | None = None
    note: str = ""
    stages: tuple[str, ...] = ()
    role: str | None = None
    missing_seeds: int = 0
    recovered: float | None = None


@dataclasses.dataclass
class Run:
    """A run folder as read: `table` is table.json, `settings` run.json; both empty where there is none."""

    folder: pathlib.Path
    table: dict[str, Any]
    rows: list[Row]
    stages: list[Stage]
    settings: dict[str, Any]
    problems: list[str]

    @property
    def classes(self) -> list[str]:
        """Class names; numbers where the table names none."""
        widths = [stage.test.logits.shape[1] for stage in self.stages if stage.test is not None]
        return [str(name) for name in self.table.get("classes") or range(max(widths, default=0))]

    @property
    def published_column(self) -> str | None:
        """What the published column of the table is called; None where it has none."""
        found = next((list(entry.get("published") or {}) for entry in self.table.get("rows", [])), [])
        return published.COLUMNS.get(found[0], found[0]) if found else None

    @property
    def seeds(self) -> list[str]:
        """All seeds that left a number or a stage."""
        return sorted({s for row in self.rows for s in row.accuracies} | {stage.seed for stage in self.stages})

    def predictions(self, row: Row) -> dict[str, Predictions]:
        """{seed: test predictions} of a row; a seed in which one of its stages left none is not in it."""
        return _predictions(self.stages, row.stages, row.test_modalities)


def read_run(folder: pathlib.Path) -> Run:
    """Reads a demo's output folder, or any folder that holds stages.

    Raises:
      UsageError: `folder` is not a folder, holds neither a table nor a stage, or is a stage's own.
      DataError: table.json or results.json is not what its format says, or stages predicted different clips or classes.
    """
    folder = paths.as_path(folder)
    if not folder.is_dir():
        raise UsageError(f"no run folder at {folder}: `hallujax table --workdir={folder} --config=...` makes one")
    if (folder / "stage.json").exists():
        raise UsageError(f"{folder} is one stage; give the workdir it lies in, {paths.absolute(folder).parent}")
    problems: list[str] = []
    seeds = {path.name.removeprefix("seed"): path for path in sorted(folder.glob("seed*")) if path.is_dir()}
    table = _read_sealed(folder / "table.json", problems)
    results = _read_json(folder / "results.json", problems)
    homes = [home for home in (folder, *seeds.values()) if (home / "run.json").exists()]
    settings = _read_sealed((homes or [folder])[0] / "run.json", problems)
    stages = [stage for seed, home in (seeds or {"0": folder}).items() for stage in _read_stages(home, seed, problems)]
    check_comparable({f"seed {s.seed}, stage {s.name}": s.test for s in stages if s.test is not None})
    if not stages and not table and not results:
        raise UsageError(f"{folder} holds no run: no table.json, no results.json, no stage's folder")
    if not table:
        source = "results.json" if results else "the predictions its stages left"
        problems.append(f"no table.json: accuracies are from {source}, budgets and published figures are left out")
    if stages and "config" not in settings:
        problems.append("run.json is missing or holds no configuration: what made this run is left out")
    declared = settings.get("config", {}).get("systems", [])
    systems = {system["name"]: tuple(system["stages"]) for system in declared}
    systems = systems or {stage.name: (stage.name,) for stage in stages}
    tested_on = {system["name"]: tuple(system.get("test_modalities") or ()) for system in declared}
    roles = {system["name"]: system.get("role") for system in declared}
    try:
        if table:
            rows = [_row_from_table(entry, systems) for entry in table["rows"]]
        else:
            rows = _rows_from_results(results or _results_from_stages(stages, systems, tested_on), systems)
            rows = [dataclasses.replace(row, role=roles.get(row.method)) for row in rows]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = "table.json" if table else "results.json"
        raise DataError(f"{folder / name} is not a table of results ({error!r}): evaluate again") from error
    run = Run(folder, table, rows, stages, settings, problems)
    _compare_with_predictions(run)
    return run


def _read_json(path: pathlib.Path, problems: list[str]) -> Any:
    """What a JSON file holds; {} where it is absent, or damaged, which is a problem."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problems.append(f"{path.name} is not valid JSON ({error})")
        return {}


def _read_sealed(path: pathlib.Path, problems: list[str]) -> dict[str, Any]:
    """As `_read_json`, for a file that has a checksum."""
    if not path.exists():
        return {}
    try:
        return sealed.read(path, "what it says is left out")
    except CheckpointError as error:
        problems.append(str(error))
        return {}


def _row_from_table(entry: dict[str, Any], systems: dict[str, tuple[str, ...]]) -> Row:
    method = str(entry["method"])
    stated = entry.get("accuracies") or {}
    accuracies = {str(seed): float(value) for seed, value in stated.items() if value is not None}
    return Row(
        method=method,
        test_modalities=tuple(entry["test_modalities"]),
        accuracies=accuracies,
        mean=entry.get("mean"),
        deviation=entry.get("deviation"),
        validation=entry.get("validation"),
        clip_passes=entry.get("clip_passes"),
        published=next(iter((entry.get("published") or {}).values()), None),
        note=entry.get("note") or "",
        stages=tuple(entry.get("stages") or systems.get(method, (method,))),
        role=entry.get("role"),
        missing_seeds=len(stated) - len(accuracies),
        recovered=entry.get("recovered"),
    )


def _rows_from_results(results: list[dict[str, Any]], systems: dict[str, tuple[str, ...]]) -> list[Row]:
    grouped: dict[tuple[str, tuple[str, ...]], dict[str, float]] = {}
    for result in results:
        key = (str(result["method"]), tuple(result["test_modalities"]))
        grouped.setdefault(key, {})[str(result["seed"])] = float(result["accuracy"])
    return [
        Row(
            method=method,
            test_modalities=modalities,
            accuracies=accuracies,
            mean=statistics.fmean(accuracies.values()),
            deviation=statistics.stdev(accuracies.values()) if len(accuracies) > 1 else None,
            stages=systems.get(method, (method,)),
        )
        for (method, modalities), accuracies in grouped.items()
    ]


def _results_from_stages(
    stages: Sequence[Stage], systems: dict[str, tuple[str, ...]], tested_on: dict[str, tuple[str, ...]]
) -> Iterator[dict[str, Any]]:
    modalities = {stage.name: stage.info.get("test_modalities", ()) for stage in stages}
    for name, members in systems.items():
        seen = tested_on.get(name) or tuple(dict.fromkeys(m for member in members for m in modalities.get(member, ())))
        for seed, predictions in _predictions(stages, members, seen).items():
            yield {
                "method": name,
                "test_modalities": list(seen),
                "seed": seed,
                "accuracy": predictions.accuracy,
            }


def _predictions(
    stages: Sequence[Stage], members: tuple[str, ...], modalities: tuple[str, ...]
) -> dict[str, Predictions]:
    found: dict[str, list[Predictions]] = {}
    for member in members:
        for stage in stages:
            seen = seen_by(stage.info.get("test_modalities", ()), modalities)
            test = stage.test_on.get(seen) if seen else stage.test
            if stage.name == member and test is not None:
                found.setdefault(stage.seed, []).append(test)
    return {seed: fuse(tests) for seed, tests in found.items() if len(tests) == len(members)}


def _compare_with_predictions(run: Run) -> None:
    for row in run.rows:
        for seed, predictions in run.predictions(row).items():
            stated = row.accuracies.get(seed)
            if stated is not None and abs(stated - predictions.accuracy) > 1e-6:
                run.problems.append(
                    f"{row.method}, seed {seed}: the table says {100 * stated:.2f} %, "
                    f"the stored predictions give {100 * predictions.accuracy:.2f} %"
                )


def _read_stages(home: pathlib.Path, seed: str, problems: list[str]) -> list[Stage]:
    """Every stage after those it starts from; then the "missing": started from, but without a folder."""
    folders = {path.parent for name in STAGE_FILES for path in home.glob(f"*/{name}")}
    if not folders and any((home / name).exists() for name in STAGE_FILES):
        folders = {home}
    stages = {path.name: _read_stage(path, seed, problems) for path in sorted(folders)}
    needed_by: dict[str, str] = {}
    for stage in stages.values():
        for source in _sources(stage) - stages.keys():
            needed_by.setdefault(source, stage.name)
    for name, user in sorted(needed_by.items()):
        problems.append(f"seed {seed}: stage {name}, which {user} starts from, has no folder here")
        stages[name] = Stage(seed, name, "missing", {}, [], [], None)
    return sorted(stages.values(), key=lambda s: (s.state == "missing", _depth(s.name, stages, ()), s.name))


def _sources(stage: Stage) -> set[str]:
    return {source for source, _ in (stage.info.get("init_from") or {}).values()} - {IMAGENET}


def _depth(name: str, stages: dict[str, Stage], seen: tuple[str, ...]) -> int:
    """How many stages come before this one along its longest line of ancestors."""
    if name in seen:
        return 0
    return max((1 + _depth(source, stages, (*seen, name)) for source in _sources(stages[name])), default=0)


def _read_stage(folder: pathlib.Path, seed: str, problems: list[str]) -> Stage:
    where = f"seed {seed}, stage {folder.name}"
    info: dict[str, Any] = {}
    if (folder / "stage.json").exists():
        try:
            info = read_summary(folder)
        except CheckpointError as error:
            problems.append(f"{where}: {error}")
    lines: list[dict[str, Any]] = []
    if (folder / "metrics.jsonl").exists():
        try:
            lines = read_metrics(folder)
        except CheckpointError as error:
            problems.append(f"{where}: no curves, {error}")
    elif info:
        problems.append(f"{where}: metrics.jsonl is missing, no curves")
    test = _read_predictions(predictions_path(folder, "test"), where, problems)
    narrowed = {
        tuple(path.stem.removeprefix("predictions_test_").split("+")): _read_predictions(path, where, problems)
        for path in sorted(folder.glob("predictions_test_*.npz"))
    }
    state = "unfinished" if not info else "not evaluated" if test is None else "finished"
    if state != "finished":
        problems.append(f"{where} is {state}")
    return Stage(
        seed=seed,
        name=folder.name,
        state=state,
        info=info,
        training=[line for line in lines if "validation/accuracy" not in line],
        validation=[line for line in lines if "validation/accuracy" in line],
        test=test,
        test_on={seen: predictions for seen, predictions in narrowed.items() if predictions is not None},
    )


def _read_predictions(path: pathlib.Path, where: str, problems: list[str]) -> Predictions | None:
    if not path.exists():
        return None
    try:
        found = Predictions.load(path)
    except CheckpointError as error:
        problems.append(f"{where}: {path.name} cannot be read ({error})")
        return None
    if not (found.logits.ndim == 2 and len(found.clip) == len(found.label) == len(found.logits) > 0):
        shapes = f"clip {found.clip.shape}, label {found.label.shape}, logits {found.logits.shape}"
        problems.append(f"{where}: shapes in {path.name} do not fit: {shapes}")
        return None
    return found
