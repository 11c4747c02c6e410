"""Exports stand alone, say what they are, hold no depth, and refuse to be half there."""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import onnx
import pytest
from encoded import pictures
from safetensors.numpy import load_file

import hallujax
from hallujax.cli import main
from hallujax.deploy import export
from hallujax.deploy.card import PRECISIONS as PRECISION_WORDS
from hallujax.deploy.export import MODEL_FILES, PRECISIONS, write_export
from hallujax.deploy.run import read_run
from hallujax.deploy.weights import HALVES, fold_batch_norm
from hallujax.errors import CheckpointError, UsageError
from hallujax.models import VideoResNet
from hallujax.models.discriminator import Discriminator
from hallujax.training.checkpoint import Checkpoints

STEP4 = "Hallucination + RGB (step 4)"
LOWER = [(to, low) for to, each in PRECISIONS.items() if to != "saved_model" for low in each[1:]]
CLIPS = [pictures(count, height=32) for count in (3, 5, 8)]


@pytest.fixture(scope="module", params=["safetensors", "stablehlo", "onnx"])
def exported(request, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / request.param
    write_export(read_run(trained, STEP4), request.param, out)
    return out


@pytest.fixture(scope="module")
def expected(trained):
    return list(hallujax.load(trained, STEP4).predict_many(CLIPS))


def test_an_export_predicts_what_its_run_does(exported, expected):
    predictor = hallujax.load(exported)
    assert predictor.system.name == STEP4
    for found, run in zip(predictor.predict_many(CLIPS), expected, strict=True):
        np.testing.assert_allclose(found.probabilities, run.probabilities, atol=1e-5)
        if exported.name == "safetensors":
            assert set(found.scores) == set(run.scores)
            np.testing.assert_allclose(found.logits, run.logits, atol=1e-5)
    windows = predictor(pictures(12, height=32), window=4)
    assert len(windows.timeline) == 5 and windows.probabilities.sum() == pytest.approx(1)


def test_no_other_modality_is_inside(exported):
    assert "depth" not in json.dumps(json.loads((exported / "config.json").read_text())["system"]["members"])
    if exported.name == "safetensors":
        names = load_file(exported / "model.safetensors")
        assert {name.split("/")[2] for name in names} == {"hallucination", "rgb"}
        assert not [name for name in names if "depth" in name or "discriminator" in name]


def classifier(trained, stage, network):
    """The kernel before a network's logits, which folding leaves alone."""
    checkpoints = Checkpoints(trained / stage / "checkpoints")
    variables = checkpoints.restore_best(networks=[network])
    checkpoints.close()
    return np.asarray(variables["params"][network]["logits"]["kernel"])


def model_file(folder):
    (file,) = (folder / name for name in MODEL_FILES.values() if (folder / name).exists())
    return file.read_bytes()


def test_not_a_byte_of_depth_is_inside(exported, trained):
    written = model_file(exported)
    for stage, network in (("step4", "rgb"), ("step4", "hallucination")):
        assert classifier(trained, stage, network).tobytes() in written
    for stage, network in (("hallucination", "depth"), ("depth", "depth")):
        assert classifier(trained, stage, network).tobytes() not in written


def test_an_admd_export_holds_the_student_alone(trained, tmp_path):
    write_export(read_run(trained, "ADMD hallucination"), "safetensors", tmp_path / "admd")
    assert {name.split("/")[2] for name in load_file(tmp_path / "admd" / "model.safetensors")} == {"hallucination"}


def test_stablehlo_runs_with_jax_alone(trained, expected, tmp_path):
    out = tmp_path / "export"
    write_export(read_run(trained, STEP4), "stablehlo", out)
    np.save(tmp_path / "clips.npy", np.stack([hallujax.load(out).read(clip) for clip in CLIPS]))
    program = """
import sys
for name in ("hallujax", "flax", "orbax"):
    sys.modules[name] = None  # importing it fails from here on
import jax.export, numpy
clips = numpy.load(sys.argv[2])
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
assert program.platforms == ("cpu", "cuda", "tpu"), program.platforms
assert clips.dtype == numpy.uint8
both = [numpy.asarray(program.call(clips)), numpy.concatenate([program.call(clip[None]) for clip in clips])]
numpy.save(sys.argv[3], numpy.stack(both))
"""
    files = [out / "model.stablehlo", tmp_path / "clips.npy", tmp_path / "probabilities.npy"]
    subprocess.run([sys.executable, "-c", program, *map(str, files)], check=True, cwd=tmp_path, timeout=300)
    together, one_by_one = np.load(files[-1])
    np.testing.assert_allclose(together, [run.probabilities for run in expected], atol=1e-5)
    np.testing.assert_allclose(one_by_one, together, atol=1e-6)


def test_an_export_needs_neither_run_nor_data(exported):
    """In a process of its own, which may not even import what training needs."""
    program = """
import sys
for name in ("orbax", "grain", "tensorflow_datasets", "ml_collections"):
    sys.modules[name] = None
import hallujax, numpy
print(hallujax.load(sys.argv[1])(numpy.zeros((5, 40, 50, 3), numpy.uint8)).label)
"""
    run = [sys.executable, "-c", program, str(exported)]
    label = subprocess.run(run, check=True, capture_output=True, text=True, timeout=300).stdout.strip()
    assert label in hallujax.load(exported).classes


def test_the_documentation_runs(trained, tmp_path):
    for to, precision in (("safetensors", "fp32"), ("stablehlo", "fp32"), ("onnx", "fp16")):
        write_export(read_run(trained, STEP4), to, tmp_path / "exports" / to, precision)
    page = (pathlib.Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(snippets)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    *tops, stablehlo, onnx_label = run.stdout.split("\n")[:-1]
    classes = hallujax.load(tmp_path / "exports" / "onnx").classes
    assert len(snippets) == 3 and len(tops) == 3 and {stablehlo, onnx_label} <= set(classes)


def test_the_card_says_what_the_run_says(exported, trained):
    card = (exported / "MODEL_CARD.md").read_text()
    row = read_run(trained, STEP4).facts
    for fact in (
        "jump, kick, punch, walk",
        "`mocap_rgbd`, preset `tiny`",
        "protocol `cross_subject`, seed 0",
        "modalities seen in training: rgb + depth",
        f"| validation | 12 | rgb | {100 * row['validation_accuracy']:.2f} |",
        f"| test | 24 | rgb | {100 * row['test_accuracy']:.2f} |",
        "## Limits",
        "## Licence",
    ):
        assert fact in card
    if exported.name == "safetensors":
        numbers = [v.size for k, v in load_file(exported / "model.safetensors").items() if "/params/" in k]
        assert f"{sum(numbers):,} parameters" in card
    sums = (exported / "SHA256SUMS").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}  config\.json\n[0-9a-f]{64}  model\.(safetensors|stablehlo|onnx)\n", sums)


def test_damage_is_found(exported, tmp_path):
    out = shutil.copytree(exported, tmp_path / "export")
    model = MODEL_FILES[exported.name]
    for name, message in ((model, "differs"), ("config.json", "differs"), ("SHA256SUMS", "SHA-?256")):
        path = out / name
        whole = path.read_bytes()
        path.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
        with pytest.raises(CheckpointError, match=message):
            hallujax.load(out)
        path.unlink()
        with pytest.raises((CheckpointError, UsageError), match=r"missing|neither run.json nor SHA256SUMS"):
            hallujax.load(out)
        path.write_bytes(whole)
    hallujax.load(out)
    with pytest.raises(UsageError, match="holds the system"):
        hallujax.load(out, "RGB")


def test_a_program_of_other_clips_is_refused(exported, tmp_path):
    """Checksums and all made anew: config.json says another length of clips, or another class, than the file."""
    out = shutil.copytree(exported, tmp_path / "export")
    config = json.loads((out / "config.json").read_text())
    for key, value in (("frames", 4), ("frame_size", [32, 48]), ("classes", ["jump", "kick"])):
        changed = config | {"system": config["system"] | {key: value}}
        (out / "config.json").write_text(json.dumps(changed))
        sums = [
            (hashlib.sha256((out / name).read_bytes()), name) for name in ("config.json", MODEL_FILES[exported.name])
        ]
        (out / "SHA256SUMS").write_text("".join(f"{digest.hexdigest()}  {name}\n" for digest, name in sums))
        if exported.name == "safetensors":
            if key == "classes":  # weights know no sizes but this one
                with pytest.raises(CheckpointError, match="logits/bias is float32"):
                    hallujax.load(out)
        else:
            with pytest.raises(CheckpointError, match=r"model\.\w+: it (takes|gives) .*config\.json says") as error:
                hallujax.load(out)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(("to", "precision"), LOWER)
def test_lower_precision_is_smaller_and_close(trained, expected, tmp_path, to, precision):
    out, whole = tmp_path / "export", classifier(trained, "step4", "rgb")
    write_export(read_run(trained, STEP4), to, out, precision)
    found = [prediction.probabilities for prediction in hallujax.load(out).predict_many(CLIPS)]
    difference = np.abs(np.array(found) - [run.probabilities for run in expected]).max()
    assert 1e-7 < difference < {"bf16": 2e-2, "fp16": 2e-3, "int8": 5e-2}[precision]
    assert whole.tobytes() not in model_file(out)
    if precision == "int8":
        kernels = {t.data_type for t in onnx.load(out / "model.onnx").graph.initializer if "kernel_quantized" in t.name}
        assert kernels == {onnx.TensorProto.UINT8}
    else:
        assert whole.astype(HALVES[precision]).tobytes() in model_file(out)
    assert f"precision: {PRECISION_WORDS[precision]}" in (out / "MODEL_CARD.md").read_text()


def test_a_precision_that_a_format_has_not_is_refused(trained, tmp_path, capsys):
    arguments = ["export", str(trained), "--system", STEP4, "--out", str(tmp_path / "export")]
    assert main([*arguments, "--to", "onnx", "--precision", "bf16"]) == UsageError.exit_code
    assert capsys.readouterr().err == "hallujax: onnx has no precision bf16; it has fp32, fp16, int8\n"
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_nothing(trained, tmp_path, monkeypatch):
    run = read_run(trained, STEP4)

    def fails(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "model_card", fails)
        with pytest.raises(OSError, match="No space"):
            write_export(run, "safetensors", tmp_path / "export")
    assert not list(tmp_path.iterdir())
    (tmp_path / "export").mkdir()
    write_export(run, "safetensors", tmp_path / "export")  # an empty folder may be filled
    with pytest.raises(UsageError, match="exists already"):
        write_export(run, "safetensors", tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_the_command(trained, tmp_path, capsys):
    out = str(tmp_path / "export")
    assert main(["export", str(trained), "--system", STEP4, "--out", out]) == 0
    assert main(["export", str(trained), "--system", STEP4, "--out", out]) == UsageError.exit_code
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--out", out + "2"]) == UsageError.exit_code
    (tmp_path / "pictures").mkdir()
    assert main(["predict", "--model", out, str(tmp_path / "pictures")]) == 3
    assert "no pictures" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["torchvision", "slim"])
def test_folded_batch_norm_changes_nothing(layout):
    network = VideoResNet(5, stage_sizes=(2, 1), width=4, bottleneck=8, layout=layout)
    clip = jax.random.normal(jax.random.key(0), (2, 3, 32, 32, 3))
    variables = jax.jit(network.init)(jax.random.key(1), clip)
    # Statistics and gains of a network that has been trained are not those of a fresh one.
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf) + rng.uniform(0.1, 0.5, leaf.shape).astype("f"), variables)
    params, batch_stats = fold_batch_norm(variables["params"], variables["batch_stats"])
    before = jax.jit(network.apply)(variables, clip).logits
    after = jax.jit(network.apply)({"params": params, "batch_stats": batch_stats}, clip).logits
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())
    gains = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "scale"]
    assert len(gains) == 13 and all((gain == 1).all() for gain in gains)


def test_a_norm_without_a_convolution_stays():
    network = Discriminator(4, batch_norm=True)
    variables = network.init(jax.random.key(0), np.ones((2, 3, 8), np.float32))
    params, batch_stats = fold_batch_norm(variables["params"], variables["batch_stats"])
    assert jax.tree.all(
        jax.tree.map(
            lambda a, b: (a == b).all(), (params, batch_stats), (variables["params"], variables["batch_stats"])
        )
    )
