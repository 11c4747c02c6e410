"""SavedModels: TensorFlow loads them, and it alone. Run where the extra `saved_model` is installed."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from encoded import pictures

import hallujax
from hallujax.cli import main
from hallujax.deploy.export import write_export
from hallujax.deploy.run import read_run
from hallujax.errors import CheckpointError, UsageError

STEP4 = "Hallucination + RGB (step 4)"
has_tensorflow = importlib.util.find_spec("tensorflow") is not None


@pytest.mark.skipif(has_tensorflow, reason="TensorFlow is installed")
def test_without_tensorflow_one_line_says_so(trained, tmp_path, capsys):
    assert main(["export", str(trained), "--to", "saved_model", "--out", str(tmp_path / "export")]) == 2
    said = "hallujax: this export needs tensorflow: pip install 'hallujax[saved_model]'\n"
    assert capsys.readouterr().err.endswith(said)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not has_tensorflow, reason="needs the extra `saved_model`")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_tensorflow_says_what_the_run_says(trained, tmp_path, precision, bound):
    """In a process without jax and hallujax."""
    out, predictor = tmp_path / "export", hallujax.load(trained, STEP4)
    write_export(read_run(trained, STEP4), "saved_model", out, precision)
    clips = np.stack([predictor.read(pictures(count, height=32)) for count in (3, 5, 8)])
    np.save(tmp_path / "clips.npy", clips)
    program = """
import sys
for name in ("hallujax", "jax", "flax"):
    sys.modules[name] = None
import numpy, tensorflow
model = tensorflow.saved_model.load("export/saved_model").signatures["serving_default"]
clips = numpy.load("clips.npy")
assert [spec.dtype for spec in model.structured_input_signature[1].values()] == [tensorflow.uint8]
one = [model(frames=tensorflow.constant(clip[None]))["probabilities"].numpy() for clip in clips]
together = model(frames=tensorflow.constant(clips))["probabilities"]
numpy.testing.assert_allclose(numpy.concatenate(one), together, atol=1e-5)
numpy.save("probabilities.npy", numpy.concatenate(one))
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=300)
    expected = [prediction.probabilities for prediction in predictor.predict_many(clips)]
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, atol=bound)
    with pytest.raises(UsageError, match="TensorFlow's to load"):
        hallujax.load(out)
    (out / "saved_model" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"saved_model\.pb is not what was written"):
        hallujax.load(out)
