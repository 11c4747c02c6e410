"""What the numbers of a run say: which rows are compared, by how much they differ, one honest sentence."""

import dataclasses
import re

import numpy as np

from hallujax.evaluation.evaluate import Predictions
from hallujax.evaluation.runs import Row, Run

RESAMPLES = 10_000
NOISE = "within the noise of the test clips"

REFERENCE_NAMES = {
    "rgb": "RGB alone",
    "ensemble": "the RGB ensemble",
    "rgb+control": "RGB + control",
    "control": "the control",
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference of accuracies in points (hundredths), with the bounds of its 95 % interval where known."""

    points: float
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """ "above", "below" or "level with" the reference."""
        if round(self.points, 1) == 0:
            return "level with"
        return "above" if self.points > 0 else "below"

    @property
    def separated(self) -> bool | None:
        """Whether the interval leaves zero out; None without an interval."""
        return None if self.low is None else self.low > 0 or self.high < 0


def role(row: Row) -> str:
    """What a row is compared as, one of `experiment.ROLES`.

    The table may say so; else the names do: "RGB", "RGB ensemble", "control", "RGB + control". Every other
    system tested on RGB alone was taught by the privileged modality.
    """
    if row.role is not None:
        return row.role
    words = set(re.findall(r"[a-z0-9]+", row.method.lower()))
    if tuple(row.test_modalities) != ("rgb",):
        return "other"
    if "ensemble" in words:
        return "ensemble"
    if "control" in words or {"cross", "entropy"} <= words:
        return "rgb+control" if "rgb" in words and words <= {"rgb", "control", "and", "plus"} else "control"
    if words <= {"rgb", "alone", "only", "stream", "single", "from", "scratch"}:
        return "rgb"
    return "privileged"


def rows_by_role(run: Run, wanted: str) -> list[Row]:
    """Rows of one role that have a number, best first."""
    return best_first([row for row in run.rows if row.mean is not None and role(row) == wanted])


def best_first(rows: list[Row]) -> list[Row]:
    """Rows by their accuracy on validation clips, where all have it: the best of several on test clips flatters."""
    known = all(row.validation is not None for row in rows)
    return sorted(rows, key=lambda row: -row.validation if known else -row.mean)


def paired_bootstrap(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> Difference:
    """Mean of `first - second` over clips, with its 95 % percentile interval from resampling the clips.

    Both arrays are [N], one number a clip (1 right, 0 wrong, or the share of seeds that were right), the same
    clips in the same order: drawing a clip draws both systems' answers to it, so what they share cancels.
    """
    values, counts = np.unique(np.asarray(first, float) - np.asarray(second, float), return_counts=True)
    total = counts.sum()
    # Only the multiset of per-clip differences matters, so N draws with replacement are one multinomial draw.
    draws = np.random.default_rng(seed).multinomial(total, counts / total, size=RESAMPLES) @ values / total
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(100 * float(values @ counts) / total, 100 * float(low), 100 * float(high))


def compare(run: Run, row: Row, reference: Row) -> Difference | None:
    """`row` minus `reference`; an interval only where both left predictions for the same clips and seeds."""
    if row.mean is None or reference.mean is None:
        return None
    seeds = sorted(row.accuracies)
    ours, theirs = run.predictions(row), run.predictions(reference)
    used = [found.get(seed) for found in (ours, theirs) for seed in seeds]
    comparable = bool(used) and seeds == sorted(reference.accuracies) and not any(one is None for one in used)
    if not comparable or not all(np.array_equal(one.clip, used[0].clip) for one in used):
        return Difference(100 * (row.mean - reference.mean))
    return paired_bootstrap(
        np.mean([_correct(ours[seed]) for seed in seeds], axis=0),
        np.mean([_correct(theirs[seed]) for seed in seeds], axis=0),
    )


def _correct(predictions: Predictions) -> np.ndarray:
    return predictions.logits.argmax(axis=-1) == predictions.label


def takeaway(run: Run) -> str:
    """Computed: did an RGB-only model taught by depth beat the RGB ensemble and the stronger of the two controls?"""
    taught = rows_by_role(run, "privileged")
    if not taught:
        return "No RGB-only model taught by the privileged modality is finished, so nothing is compared yet."
    best = taught[0]
    where = "test" if best.validation is None else "validation"
    chosen = f", on {where} clips the best of {len(taught)} RGB-only models taught by depth," if len(taught) > 1 else ""
    clauses = []
    for wanted in (("ensemble",), ("control", "rgb+control")):
        references = best_first([row for name in wanted for row in rows_by_role(run, name)])
        if references:
            name = REFERENCE_NAMES[role(references[0])]
            clauses.append(_clause(compare(run, best, references[0]), name, references[0].mean))
        else:
            clauses.append(f"{REFERENCE_NAMES[wanted[0]]} is missing here")
    unsure = f" but {NOISE}"
    if all(clause.endswith(unsure) for clause in clauses):
        clauses = [clauses[0].removesuffix(unsure), f"{clauses[1].removesuffix(unsure)}, both {NOISE}"]
    seeds = len(best.accuracies)
    extent = f"mean of {seeds} seeds" if seeds > 1 else "one seed; another may differ"
    got = f"{best.method}{chosen} got {100 * best.mean:.1f} % right"
    return f"{got}: {', and '.join(clauses)} ({extent})."


def _clause(difference: Difference, name: str, mean: float) -> str:
    if difference.verdict == "level with":
        return f"level with {name} ({100 * mean:.1f} %)"
    text = f"{abs(difference.points):.1f} points {difference.verdict} {name} ({100 * mean:.1f} %)"
    return f"{text} but {NOISE}" if difference.separated is False else text
