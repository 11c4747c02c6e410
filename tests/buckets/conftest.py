"""A bucket for the tests of this folder: a server of this process, which real clients speak to over HTTP."""

import pytest
from object_store import serving


@pytest.fixture(scope="session")
def server():
    """One for all: orbax and TensorStore keep the address that they were given first."""
    with serving() as store:
        yield store


@pytest.fixture(scope="module")
def store(server, tmp_path_factory):
    """The server, and an environment in which `gs://bucket` is in it; it is emptied for each file of tests."""
    server.buckets["bucket"].clear()
    copies = {"HALLUJAX_DATA_CACHE": str(tmp_path_factory.mktemp("copies"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (server.environment | copies).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def data(store, tiny):
    """The smallest rendered dataset, in the bucket: the address of its folder."""
    for path in tiny.rglob("*"):
        if path.is_file():
            store.put("bucket", f"data/{path.relative_to(tiny.parent).as_posix()}", path.read_bytes())
    return "gs://bucket/data"
