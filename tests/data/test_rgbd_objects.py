"""The rendered objects: reproducible, physically plausible, and trained by the objects' table."""

import hashlib
import json

import numpy as np
import pytest

from configs import objects
from data_prep.mocap_rgbd.world import World
from data_prep.rgbd_objects import CLASSES, PRESETS, prepare, render, shapes
from hallujax.cli import main
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import UsageError
from hallujax.evaluation import published
from hallujax.experiment import read_config
from hallujax.training.start import build_method


@pytest.fixture(scope="module")
def tiny_objects(tmp_path_factory):
    """48 images of 32x32; read-only."""
    return prepare(tmp_path_factory.mktemp("objects"), preset="tiny", workers=2, progress=False)


def digests(directory):
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_do_not_depend_on_the_workers(tiny_objects, tmp_path):
    assert digests(prepare(tmp_path, preset="tiny", workers=1, progress=False)) == digests(tiny_objects)


def test_what_is_in_it(tiny_objects, capsys):
    dataset = PreparedDataset.open(tiny_objects)
    assert dataset.classes == ["chair", "lamp", "mug", "table"] and len(dataset) == 4 * 4 * 3
    assert set(dataset.length("rgb")) == set(dataset.length("depth")) == {1} and dataset.verify() == []
    assert dataset.index["clip"][1] == b"chair_001_02"
    rows = np.arange(len(dataset))
    depth = dataset.read("depth", rows, np.zeros((48, 1), int))[:, 0]
    assert (depth == 0).mean() < 0.3 and 500 < np.median(depth[depth > 0]) < 6000
    # What stands in the middle is nearer than what is seen above it.
    middle, above = depth[:, 12:20, 12:20], depth[:, :8]
    nearer = [np.median(m[m > 0]) < np.median(a[a > 0]) for m, a in zip(middle, above, strict=True)]
    assert np.mean(nearer) > 0.7
    assert main(["inspect", str(tiny_objects), f"--sheet={tiny_objects.parent}/sheet.png"]) == 0
    said = capsys.readouterr().out
    assert "suspicious: nothing found" in said and "clips a class: chair 12, lamp 12, mug 12, table 12" in said


def test_protocols(tiny_objects):
    dataset = PreparedDataset.open(tiny_objects)
    parts = split(dataset, "unseen_instances")
    instances = {part: set(dataset.index["subject"][rows].tolist()) for part, rows in parts.items()}
    assert instances == {"train": {1}, "validation": {2}, "test": {3, 4}}
    parts = split(dataset, "unseen_views")
    assert set(dataset.index["camera"][parts["test"]]) == {1} and len(parts["test"]) == 16
    assert not set(parts["train"]) & set(parts["validation"]) and 1 not in dataset.index["camera"][parts["train"]]


@pytest.mark.parametrize("name", CLASSES)
def test_instances_of_a_class_differ_and_stand_on_the_floor(name):
    found = [render.standing(CLASSES[name](np.random.default_rng(seed)), across=1.0) for seed in range(4)]
    extents = []
    for parts in found:
        low, high = render.bounds(parts)
        assert abs(low[1]) < 1e-9 and np.linalg.norm(high - low) == pytest.approx(1.0)
        assert np.allclose((low + high)[[0, 2]], 0) and all((part.size > 0).all() for part in parts)
        extents.append(tuple(np.round(high - low, 6)))
    assert len(set(extents)) == 4


def test_drawn_where_it_is_said_to_be():
    """A ball and a mesh, seen by the renderer: the nearest depth is that of their extents."""
    camera = render.cameras.Camera(np.array([0.0, 0.5, 3.0]), np.diag([1.0, -1.0, -1.0]), 64)
    mug = render.standing(CLASSES["mug"](np.random.default_rng(0)), across=1.0)
    for parts in ([shapes.ball(0, 0.5, 0, 1.0)], mug, [shapes.box(0, 0, 0, 0.4, 1.0, 0.8)]):
        low, high = render.bounds(parts)
        with World() as world:
            numbers = render._place(world, parts)
            picture = render._draw(world, camera, 1, np.array([0.0, 1.0, 0.0]), 0.5, numbers)
        assert set(picture.link) == {0}
        assert picture.depth.min() == pytest.approx(3 - high[2], abs=0.04)
        row, column = np.divmod(picture.pixel, 64)
        # Edges seen at the depth they have: to a pixel, perspective included.
        for pixels, edge in ((column, (high - low)[0]), (row, (high - low)[1])):
            spread = (np.ptp(pixels) + 1) / camera.focal
            assert edge / 3.5 * 0.9 < spread < edge / (3 - high[2]) * 1.1 + 1 / 30


def test_errors_for_people(tmp_path, capsys):
    with pytest.raises(UsageError, match=r"unknown preset 'full' of rgbd_objects: one of tiny, quick, standard"):
        prepare(tmp_path, preset="full")
    assert main(["prepare", "rgbd_objects", f"--out={tmp_path}", "--preset=tiny", "--seed=-1"]) == 2
    assert "must not be negative" in capsys.readouterr().err


def test_presets():
    for preset in PRESETS.values():
        assert preset.objects % preset.shards == 0
    assert len(PRESETS["quick"].classes) == len(CLASSES) == 14


@pytest.mark.parametrize("preset", ["", "paper", "authors_code"])
@pytest.mark.parametrize("dataset", ["rgbd_objects,unseen_instances", "nyud_objects,official"])
def test_the_objects_table_reads_and_builds(dataset, preset):
    experiment = read_config(objects.get_config(f"{dataset},{preset}"))
    assert experiment.data.frames == 1
    assert ("admd_small_discriminator" in experiment.stages) == (not preset)  # of neither source
    for stage in experiment.order():
        method = build_method(stage, 19)
        assert stage.model["bottleneck_pooling"] == "convolution" and stage.model["bottleneck"] == 128
        assert stage.model["bottleneck_norm"] == (not preset)
        for network, (source, its_network) in stage.init_from.items():
            assert its_network in build_method(experiment.stages[source], 19).networks and network in method.networks
            assert experiment.stages[source].model == stage.model
        if stage.method in ("admd", "adversarial"):
            small = stage.name == "admd_small_discriminator"
            assert method.networks["discriminator"].task == ("action" if small else "object")
    numbers = {
        system.name: published.value(*system.published, "nyud", system.test_modalities or None)
        for system in experiment.systems
        if system.published[0]
    }
    assert numbers["ADMD two-stream"] == 57.52 and numbers["RGB"] == 52.90 and numbers["Depth"] == 40.19
    assert numbers["ModDrop"] == 58.93 and numbers["ModDrop, RGB alone"] == 53.73
    assert numbers["Autoencoder, two-stream on generated depth"] == 50.52


def test_the_released_codes_budgets():
    stages = read_config(objects.get_config("nyud_objects,official,authors_code")).stages
    assert [stages[name].steps(2186) for name in ("rgb", "two_stream", "moddrop", "admd")] == [2000, 1000, 1000, 5000]
    assert stages["admd"].rounds == (("discriminator",), ("student",))
    assert stages["admd"].init_from["depth"] == ("two_stream", "depth")


def test_a_game_on_single_images_trains(tiny_objects, tmp_path):
    """Depth, then ADMD's discriminator and student with the object networks, a step or two each."""
    config = tmp_path / "one_game.py"
    config.write_text(
        "from configs import objects\n"
        "from small_config import shrunk\n"
        "def get_config(arguments):\n"
        "    config = shrunk(objects.get_config(arguments), '')\n"
        "    config.data.frames = 1\n"
        "    for name in list(config.stages):\n"
        "        if name not in ('depth', 'admd'):\n"
        "            del config.stages[name]\n"
        "    for name in list(config.systems):\n"
        "        if name not in ('Depth', 'ADMD hallucination'):\n"
        "            del config.systems[name]\n"
        "    return config\n"
    )
    command = ["train", f"--config={config}:rgbd_objects,unseen_instances", f"--workdir={tmp_path}/run"]
    assert main([*command, f"--config.data.directory={tiny_objects.parent}"]) == 0
    stage = json.loads((tmp_path / "run/admd/stage.json").read_text())
    assert stage["steps"] == 2 and 0 <= stage["best_validation_accuracy"] <= 1
