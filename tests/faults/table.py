"""`python tests/faults/table.py [FIGURES.json ...]`: writes the figures that the tests left into docs/reliability.md.

Of a test with a short and a long form the long one counts, where it has run.
"""

import collections
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->\n"
ABOUT = ("target", "command", "date", "seconds", "machine", "revision")


def rows(found: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Lines of the table."""
    yield "| figure | found | command | date, seconds |"
    yield "|---|---|---|---|"
    forms = collections.defaultdict(dict)
    for name, entry in found.items():
        test, _, form = name.rstrip("]").partition("[")
        forms[test][form] = entry
    for entries in forms.values():
        if all(form.isdigit() for form in entries):
            entries = {"": entries[max(entries, key=int)]}
        for form, entry in entries.items():
            numbers = "; ".join(_said(key, value) for key, value in entry.items() if key not in ABOUT)
            what = entry["target"] + (f" ({form})" if form else "")
            yield f"| {what} | {numbers} | `{entry['command']}` | {entry['date']}, {entry['seconds']} |"


def _said(key: str, value: Any) -> str:
    if key == "outcomes":
        return _outcomes(value)
    if isinstance(value, dict):
        value = ", ".join(f"{count} {name}" for name, count in value.items())
    elif isinstance(value, list):
        value = " to ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return f"{key.replace('_', ' ')}: {value}"


def _outcomes(value: Mapping[str, Any]) -> str:
    """`identical 12, refused 30`; a group of them for each kind of file, where there are several."""
    if all(isinstance(count, int) for inner in value.values() for count in inner.values()):
        total = collections.Counter()
        for counts in value.values():
            total.update(counts)
        return ", ".join(f"{name} {count}" for name, count in sorted(total.items()))
    return "; ".join(f"{name}: {_outcomes(inner)}" for name, inner in value.items())


def main(paths: list[str]) -> None:
    found: dict[str, Any] = {}
    for path in paths or [str(ROOT / "reports" / "reliability.json")]:
        found |= json.loads(pathlib.Path(path).read_text())
    page = PAGE.read_text()
    lines = "\n".join(rows(found))
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    PAGE.write_text(re.sub(pattern, lambda _: f"{BEGIN}{lines}\n{END}", page, flags=re.S))


if __name__ == "__main__":
    main(sys.argv[1:])
