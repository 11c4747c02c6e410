"""The smallest `mocap_rgbd`, rendered once a test run."""

import pytest

from data_prep.mocap_rgbd import prepare


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A prepared dataset of 48 clips of 5 frames of 32x32; read-only, copy it before damaging it."""
    return prepare(tmp_path_factory.mktemp("mocap"), preset="tiny", workers=2, progress=False)
