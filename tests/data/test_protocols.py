"""What the protocols of `mocap_rgbd` promise about performers and cameras."""

import numpy as np
import pytest

from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError


def _performers(dataset, rows):
    return set(dataset.index["subject"][rows].tolist())


@pytest.mark.parametrize("protocol", ["cross_subject", "cross_view"])
def test_parts_are_disjoint_and_complete(tiny, protocol):
    dataset = PreparedDataset.open(tiny)
    parts = split(dataset, protocol)
    assert list(parts) == ["train", "validation", "test"]
    for rows in parts.values():
        assert set(dataset.index["label"][rows].tolist()) == {0, 1, 2, 3}
        assert np.all(np.diff(rows) > 0)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(48))


def test_cross_subject_shares_no_performer(tiny):
    dataset = PreparedDataset.open(tiny)
    parts = split(dataset, "cross_subject")
    assert [_performers(dataset, rows) for rows in parts.values()] == [{1}, {2}, {3, 4}]


def test_cross_view_tests_on_the_middle_camera(tiny):
    dataset = PreparedDataset.open(tiny)
    parts = split(dataset, "cross_view")
    cameras = [set(dataset.index["camera"][rows].tolist()) for rows in parts.values()]
    assert cameras == [{2, 3}, {2, 3}, {1}]
    assert _performers(dataset, parts["validation"]) == {2}
    assert _performers(dataset, parts["train"]) == {1, 3, 4}
    assert _performers(dataset, parts["test"]) == {1, 2, 3, 4}


def test_unknown_protocol_names_the_known_ones(tiny):
    with pytest.raises(UsageError, match=r"cross_setup.*cross_subject, cross_view"):
        split(PreparedDataset.open(tiny), "cross_setup")
