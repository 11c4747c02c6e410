"""What the whole suite shares: quick compilation, a cache of compiled programs, and the smallest rendered dataset."""

import os
import shutil
import tempfile

# The suite compiles hundreds of programs and runs each a few times: unoptimised code halves its time.
FAST_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAST_COMPILATION}".strip()

# Many tests and the processes they start compile the same small programs: once a session, in a folder of its own,
# unless whoever runs it keeps a cache. Nothing is read from or left in the one that the command line makes.
PROGRAMS = "" if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="hallujax-programs-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", PROGRAMS)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402
import pytest  # noqa: E402
from filelock import FileLock  # noqa: E402
from small_config import get_config  # noqa: E402

from data_prep.mocap_rgbd import prepare  # noqa: E402
from hallujax.console import Console  # noqa: E402
from hallujax.experiment import read_config  # noqa: E402
from hallujax.training.stages import train  # noqa: E402


def pytest_unconfigure():
    if PROGRAMS:
        shutil.rmtree(PROGRAMS, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Folders of long tests first: at the end, one would keep a worker busy while the others have nothing left."""
    items.sort(key=lambda item: item.path.parent.name not in ("docs", "faults", "training", "deploy", "tests"))


@pytest.fixture(scope="module", autouse=True)
def _programs_of_a_file_are_forgotten():
    yield
    jax.clear_caches()  # hundreds of compiled programs are gigabytes


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """`once(name, make)`: the folder that `make(folder)` has filled, for all the workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()

    def once(name, make):
        folder = (base if worker_id == "master" else base.parent) / name
        with FileLock(folder.with_suffix(".lock")):
            if not folder.with_suffix(".made").exists():
                make(folder)
                folder.with_suffix(".made").touch()
        return folder

    return once


@pytest.fixture(scope="session")
def tiny(once):
    """A prepared dataset of 48 clips of 5 frames of 32x32; read-only, copy it before damaging it."""
    return once("mocap", lambda folder: prepare(folder, preset="tiny", workers=2, progress=False)) / "mocap_rgbd"


@pytest.fixture(scope="session")
def experiment(tiny):
    """The shipped table configuration, shrunk."""
    return read_config(get_config(str(tiny.parent)))


@pytest.fixture(scope="session")
def trained(experiment, once):
    """A workdir with every stage of the table trained; copy it before changing it."""
    return once("trained", lambda folder: train(experiment, folder / "seed0", Console())) / "seed0"
