"""What the whole suite shares: quick compilation and the smallest rendered dataset."""

import os

# The suite compiles hundreds of programs and runs each a few times: unoptimised code halves its time.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILATION}".strip()

import pytest  # noqa: E402
from small_config import get_config  # noqa: E402

from data_prep.mocap_rgbd import prepare  # noqa: E402
from hallujax.console import Console  # noqa: E402
from hallujax.experiment import read_config  # noqa: E402
from hallujax.training.stages import train  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A prepared dataset of 48 clips of 5 frames of 32x32; read-only, copy it before damaging it."""
    return prepare(tmp_path_factory.mktemp("mocap"), preset="tiny", workers=2, progress=False)


@pytest.fixture(scope="session")
def experiment(tiny):
    """The shipped table configuration, shrunk."""
    return read_config(get_config(str(tiny.parent)))


@pytest.fixture(scope="session")
def trained(experiment, tmp_path_factory):
    """A workdir with every stage of the table trained; copy it before changing it."""
    workdir = tmp_path_factory.mktemp("trained") / "seed0"
    train(experiment, workdir, Console())
    return workdir
