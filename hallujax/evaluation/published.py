"""The accuracies the two papers' tables report, as printed on the authors' slides.

`published.csv` holds one line a table row. Tables: `eccv18-3` (Table 3 of Garcia, Morerio and Murino, ECCV
2018), `admd-4` (Table 4 of the TPAMI article) and `admd-nyud` (its object recognition table). Two cells
contradict each other and are kept as printed: the ECCV RGB stream on NTU cross-view is 71.39 in `eccv18-3`
and 80.01 in `admd-4`.
"""

import csv
import dataclasses
import functools
from importlib import resources

from hallujax.errors import UsageError

COLUMNS = {  # of the tables, and what they are called
    "ntu_cross_subject": "NTU cross-subject",
    "ntu_cross_view": "NTU cross-view",
    "uwa3dii": "UWA3DII",
    "nw_ucla": "NW-UCLA",
    "nyud": "NYUD objects",
}
# The column that says most about a dataset's protocol. The rendered sets are shown beside what they were made after;
# the other protocols (NTU RGB+D 120, other views, a folder of one's own) were not reported.
_COMPARED = {
    ("ntu_rgbd60", "cross_subject"): "ntu_cross_subject",
    ("ntu_rgbd60", "cross_subject_5_percent"): "ntu_cross_subject",
    ("ntu_rgbd60", "cross_view"): "ntu_cross_view",
    ("uwa3dii", "cross_view"): "uwa3dii",
    ("nw_ucla", "cross_view"): "nw_ucla",
    ("nw_ucla", "cross_view_12_3"): "nw_ucla",
    ("nyud_objects", "official"): "nyud",
    ("mocap_rgbd", "cross_subject"): "ntu_cross_subject",
    ("mocap_rgbd", "cross_view"): "ntu_cross_view",
    ("rgbd_objects", "unseen_instances"): "nyud",
    ("rgbd_objects", "unseen_views"): "nyud",
}


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """One row of a table; `accuracies` maps each of COLUMNS to a percentage, or None where not reported."""

    table: str
    method: str
    supervision: str
    test_modalities: tuple[str, ...]
    accuracies: dict[str, float | None]


def column(dataset: str, protocol: str) -> str | None:
    """The one of COLUMNS to show beside a dataset's results; None where the papers report nothing comparable."""
    return _COMPARED.get((dataset, protocol))


@functools.cache
def load() -> list[PublishedRow]:
    """All rows, in the order of the tables."""
    text = resources.files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return [
        PublishedRow(
            table=line["table"],
            method=line["method"],
            supervision=line["supervision"],
            test_modalities=tuple(line["test_modalities"].split("+")),
            accuracies={column: float(line[column]) if line[column] else None for column in COLUMNS},
        )
        for line in csv.DictReader(text.splitlines())
    ]


def value(table: str, method: str, column: str, test_modalities: tuple[str, ...] | None = None) -> float | None:
    """The accuracy in percent that `table` reports for `method` in `column`; None where it reports none.

    `test_modalities` is needed only where a table lists a method twice (ModDrop, with and without depth).

    Raises:
      UsageError: no such table, method or column, or more than one row fits.
    """
    if column not in COLUMNS:
        raise UsageError(f"published tables have no column {column!r}; there are {', '.join(COLUMNS)}")
    rows = [row for row in load() if row.table == table and row.method == method]
    if test_modalities is not None:
        rows = [row for row in rows if set(row.test_modalities) == set(test_modalities)]
    if len(rows) != 1:
        known = ", ".join(repr(row.method) for row in load() if row.table == table)
        raise UsageError(
            f"{len(rows)} rows of published table {table!r} fit method {method!r}"
            + (f" tested on {'+'.join(test_modalities)}" if test_modalities else "")
            + (f"; its methods are {known}" if known else "; tables: eccv18-3, admd-4, admd-nyud")
        )
    return rows[0].accuracies[column]
