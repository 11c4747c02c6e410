import importlib.metadata
import sys

import jax
import pytest
from evaluation.synthetic_run import write_dataset

from hallujax import doctor


def by_name(checks):
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


@pytest.fixture
def versions(monkeypatch):
    """A dict that overrides what is installed: a version, or None for a package that is not there."""
    overrides, real = {}, importlib.metadata.version

    def version(name):
        found = overrides[name] if name in overrides else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    return overrides


def test_this_machine_runs_the_core(capsys):
    checks = by_name(doctor.diagnose())
    assert [c.name for c in checks.values() if c.status == "broken"] == []
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"):
        assert checks[package].status == "ok"
        assert checks[package].found == importlib.metadata.version(package)
    assert checks["devices"].found.startswith(jax.default_backend())
    assert doctor.report() == 0
    assert "The core works" in capsys.readouterr().out


def test_a_core_package_outside_its_range_is_broken(versions, capsys):
    versions["optax"] = "0.1.0"
    check = by_name(doctor.diagnose())["optax"]
    assert check.status == "broken" and check.found.startswith("0.1.0, outside") and "0.2.8" in check.found
    assert doctor.report() == 1
    assert "The core does not work: optax" in capsys.readouterr().out


def test_a_missing_extra_says_what_it_is_for_and_how_to_get_it(versions, capsys):
    versions["pybullet"] = None
    check = by_name(doctor.diagnose())["pybullet"]
    assert check.status == "missing" and "renders mocap_rgbd" in check.found
    assert check.remedy == "pip install 'hallujax[demo]'"
    assert doctor.report() == 0
    assert "hallujax[demo]" in capsys.readouterr().out  # brackets are no markup


def test_without_packaging_it_is_a_finding(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "packaging"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert by_name(doctor.diagnose())["packaging"].status == "broken"


def test_a_jax_that_does_not_run_is_a_finding(monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", devices)
    check = by_name(doctor.diagnose())["devices"]
    assert check.status == "broken" and "Unable to initialize backend 'cuda'" in check.found


def test_compile_cache(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
        assert by_name(doctor.diagnose())["compile cache"].found.endswith("cache, not made yet")
        monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
        check = by_name(doctor.diagnose())["compile cache"]
        assert check.status == "missing" and "cannot be written to" in check.found
        jax.config.update("jax_compilation_cache_dir", None)
        assert by_name(doctor.diagnose())["compile cache"].status == "info"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_datasets_whole_damaged_and_absent(tmp_path):
    write_dataset(tmp_path / "discs", ("a", "b"), [b"first", b"second"], [0, 1], frames=2, size=16)
    for place in (tmp_path, tmp_path / "discs"):
        check = by_name(doctor.diagnose([place]))["dataset discs"]
        assert check.status == "ok" and check.found.startswith("2 clips, 2 classes, rgb, depth")
    shard = next(tmp_path.glob("discs/depth/*/*.array_record-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    check = by_name(doctor.diagnose([tmp_path]))["dataset discs"]
    assert check.status == "missing" and shard.name in check.found
    assert by_name(doctor.diagnose([tmp_path / "absent"]))["datasets"].found.endswith("absent does not exist")
