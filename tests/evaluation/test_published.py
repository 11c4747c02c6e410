"""Literals below are read off the slides, not off the CSV."""

import pytest

from hallujax.data.protocols import PROTOCOLS
from hallujax.errors import UsageError
from hallujax.evaluation import published


@pytest.mark.parametrize(
    ("table", "method", "column", "percent"),
    [
        ("eccv18-3", "Ours - step 4", "ntu_cross_subject", 73.42),
        ("eccv18-3", "Ours - step 4", "nw_ucla", 86.72),
        ("eccv18-3", "Ours - RGB step 1", "ntu_cross_view", 71.39),
        (
            "admd-4",
            "RGB stream [11]",
            "ntu_cross_view",
            80.01,
        ),  # the slides contradict themselves; kept as printed
        ("admd-4", "ADMD - Hall. stream alone", "ntu_cross_subject", 67.57),
        ("admd-4", "ADMD - RGB stream", "ntu_cross_subject", 67.95),
        ("admd-nyud", "RGB ensemble", "nyud", 54.14),
        ("eccv18-3", "Rahmani [22]", "ntu_cross_subject", None),
    ],
)
def test_literals(table, method, column, percent):
    assert published.value(table, method, column) == percent


def test_a_method_listed_twice_needs_its_test_modalities():
    assert published.value("admd-nyud", "ModDrop [22]", "nyud", ("rgb",)) == 53.73
    assert published.value("admd-nyud", "ModDrop [22]", "nyud", ("rgb", "depth")) == 58.93
    with pytest.raises(UsageError, match=r"2 rows .* 'ModDrop \[22\]'"):
        published.value("admd-nyud", "ModDrop [22]", "nyud")


def test_each_dataset_is_shown_beside_its_own_column():
    assert {published.column(*case) for case in published._COMPARED} == set(published.COLUMNS)
    assert published.column("nw_ucla", "cross_view") == published.column("nw_ucla", "cross_view_12_3") == "nw_ucla"
    assert published.column("ntu_rgbd60", "cross_view") == "ntu_cross_view"
    for nothing in (("folder", "own"), ("ntu_rgbd120", "cross_setup"), ("nw_ucla", "cross_view_13_2")):
        assert published.column(*nothing) is None
    for dataset, protocol in published._COMPARED:
        assert protocol in PROTOCOLS[dataset]


def test_every_row_is_there_and_within_bounds():
    rows = published.load()
    assert [sum(row.table == t for row in rows) for t in ("eccv18-3", "admd-4", "admd-nyud")] == [18, 13, 10]
    cells = [cell for row in rows for cell in row.accuracies.values() if cell is not None]
    assert len(cells) == 90 and all(20 < cell < 100 for cell in cells)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("admd-4", "Ours - step 4", "ntu_cross_subject"), "its methods are"),
        (("cvpr-1", "Ours - step 4", "ntu_cross_subject"), "tables: eccv18-3"),
        (("eccv18-3", "Ours - step 4", "kinetics"), "no column 'kinetics'"),
    ],
)
def test_unknown_names_are_one_clear_line(arguments, message):
    with pytest.raises(UsageError, match=message):
        published.value(*arguments)
