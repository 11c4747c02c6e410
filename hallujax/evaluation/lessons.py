"""What a teacher is worth: each student against the same network that learned from labels alone.

Teachers may be weak, of the student's own modality, worse than it (the inverted order) or several. A student's
reference is a single stream of its size and modality that starts where the student does: from nothing, or from the same
weights.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hallujax import paths
from hallujax.errors import UsageError
from hallujax.evaluation.claim_figures import forest
from hallujax.evaluation.comparison import Difference, compare, role
from hallujax.evaluation.evaluate import Predictions, fuse
from hallujax.evaluation.figures import require_matplotlib, svg_text
from hallujax.evaluation.runs import Row, Run, Stage, read_run
from hallujax.evaluation.written import as_csv
from hallujax.experiment import IMAGENET

TAUGHT = ("hallucination", "distillation", "graph_distillation", "admd", "adversarial")  # methods with frozen teachers
COLUMNS = ("system", "student", "teachers", "teacher_accuracy", "accuracy", "reference", "reference_accuracy", "seeds")
COLUMNS += ("lead", "points", "low", "high", "passes_ratio")


def lessons(run: Run) -> list[dict[str, Any]]:
    """A line, of COLUMNS, for each row of one stage that frozen teachers taught; the worst teacher first.

    `lead` is by how many points the teachers, fused, are above the reference, `points` by how many the student is, with
    the bounds of its 95 % interval (paired bootstrap). A teacher that was fine-tuned with others counts as what it was
    before. All four are None where the run has no such reference, or not in the same seeds.
    """
    lines = []
    for row in run.rows:
        stage = _stage_of(run, row)
        if stage is None or stage.info.get("method") not in TAUGHT or row.mean is None:
            continue
        networks, players = stage.info["networks"], stage.info["players"]
        (student,) = (name for name in networks if name in players)
        sources = [_alone(run, *stage.info["init_from"][name]) for name in networks if name not in players]
        teachers = _accuracy(run, sources, sorted(row.accuracies))
        reference = _reference(run, stage, student)
        difference = compare(run, row, reference) if reference else None
        same = difference is not None and difference.low is not None and teachers is not None
        lines.append(
            {
                "system": row.method,
                "student": networks[student],
                "teachers": " + ".join(source or "?" for source in sources),
                "teacher_accuracy": teachers,
                "accuracy": row.mean,
                "reference": reference.method if reference else None,
                "reference_accuracy": reference.mean if reference else None,
                "seeds": " ".join(sorted(row.accuracies)),
                "lead": 100 * (teachers - reference.mean) if same else None,
                "points": difference.points if same else None,
                "low": difference.low if same else None,
                "high": difference.high if same else None,
                "passes_ratio": row.clip_passes / reference.clip_passes
                if reference and row.clip_passes and reference.clip_passes
                else None,
            }
        )
    return sorted(lines, key=lambda line: np.inf if line["lead"] is None else line["lead"])


def measure_lessons(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Writes `teachers.csv` and `teachers.svg` of a table's folder, or a workdir, into `out`.

    Raises:
      UsageError: if nothing there was taught by a frozen teacher beside its reference.
      DataError: as `runs.read_run`.
    """
    require_matplotlib()
    lines = lessons(read_run(folder))
    picture = draw(lines)
    if picture is None:
        raise UsageError(
            f"{folder} has no student of a frozen teacher beside the same network that learned from labels alone; "
            "train configs/weak_teachers.py"
        )
    out.mkdir(parents=True, exist_ok=True)
    paths.write(out / "teachers.csv", as_csv(lines, COLUMNS))
    paths.write(out / "teachers.svg", svg_text(picture))
    for line in lines:
        if line["points"] is not None:
            gain = f"{line['points']:+.1f} points ({line['low']:+.1f} to {line['high']:+.1f})"
            print(f"{line['system']}: {gain} over {line['reference']}; its teacher has {line['lead']:+.1f}")
    print(out / "teachers.svg")


def draw(lines: list[Mapping[str, Any]]) -> str | None:
    """Gains with their intervals, and the lead of each teacher; None if there is none to show."""
    shown = [line for line in lines if line["points"] is not None]
    if not shown:
        return None
    panel = {
        "title": "",
        "differences": {(line["system"], ""): Difference(line["points"], line["low"], line["high"]) for line in shown},
        "marks": {line["system"]: line["lead"] for line in shown},
    }
    labels = [line["system"] for line in shown]
    xlabel = "points above the same network without a teacher"
    return forest([panel], labels, [""], xlabel=xlabel, mark="its teacher")


def _stage_of(run: Run, row: Row) -> Stage | None:
    """The stage of a row that has one, finished in some seed."""
    found = [stage for stage in run.stages if row.stages == (stage.name,) and stage.test is not None]
    return found[0] if found else None


def _alone(run: Run, stage: str, network: str) -> str | None:
    """The stage whose predictions are a network's alone, back from where the network was taken."""
    if stage == IMAGENET:
        return None
    found = next((each for each in run.stages if each.name == stage and each.info), None)
    if found is None:
        return None
    networks = found.info.get("networks", {})
    student = network in found.info.get("players", {}) and found.info.get("method") in TAUGHT
    if len(networks) == 1 or student:
        return stage
    return _alone(run, *found.info["init_from"][network]) if network in found.info.get("init_from", {}) else None


def _accuracy(run: Run, stages: list[str | None], seeds: list[str]) -> float | None:
    """Of stages fused, mean over seeds; None unless all predicted in every one of them."""
    tests: dict[str, list[Predictions]] = {seed: [] for seed in seeds}
    for stage in run.stages:
        if stage.seed in tests and stage.test is not None:
            tests[stage.seed] += [stage.test] * stages.count(stage.name)
    if any(len(found) != len(stages) for found in tests.values()):
        return None
    return float(np.mean([fuse(found).accuracy for found in tests.values()]))


def _reference(run: Run, taught: Stage, student: str) -> Row | None:
    """The first row of a single stream like a student that saw labels alone and started where the student did."""
    modality, size = taught.info["networks"][student], taught.info["parameters"][student]
    started = taught.info["init_from"].get(student)
    for row in run.rows:
        stage = _stage_of(run, row)
        if stage is None or stage.info.get("method") != "single_stream" or role(row) == "smoothing":
            continue
        source = stage.info["init_from"].get(modality)
        alike = stage.info["networks"] == {modality: modality} and stage.info["parameters"].get(modality) == size
        both = (source is None) == (started is None)
        if (
            alike
            and both
            and (source is None or _alone(run, *source) == _alone(run, *started))
            and row.mean is not None
        ):
            return row
    return None
