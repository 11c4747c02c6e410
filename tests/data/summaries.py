"""Reads what `prepare` says of its clips."""

import json
import pathlib


def summary(out: pathlib.Path) -> dict[str, tuple[str, str]]:
    """(status, reason) of every clip, by the `summary.json` at the output's root."""
    outcomes = json.loads((out / "summary.json").read_text())
    assert all(set(outcome) == {"clip", "status", "reason"} for outcome in outcomes)
    return {outcome["clip"]: (outcome["status"], outcome["reason"]) for outcome in outcomes}
