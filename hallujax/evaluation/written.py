"""Text files of results, whole or not at all."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def write_whole(path: pathlib.Path, text: str) -> None:
    """A reader never meets half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Fractions and points with five decimals; empty where there is no number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.5f}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()
