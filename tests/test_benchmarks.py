"""The benchmarks run: their smallest forms, each in a process of its own, for rows and not for numbers."""

import csv
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPTS = ROOT / "benchmarks"
sys.path.append(str(SCRIPTS))

import hlo  # noqa: E402
import pages  # noqa: E402
import plots  # noqa: E402
import recording  # noqa: E402
import suite  # noqa: E402
import tfrecord  # noqa: E402

TORCH = importlib.util.find_spec("torch") is not None


def run_python(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def rows_of(tmp_path, script, *flags):
    out = tmp_path / "rows.csv"
    run_python(SCRIPTS / script, *flags, "--out", out)
    rows = recording.read(out)
    assert rows and all(row["machine"] and row["versions"] and row["command"] and row["date"] for row in rows)
    assert not any(str(tmp_path) in row["command"] for row in rows)
    return rows


@pytest.mark.parametrize(
    "script, flags, arms",
    [
        ("inference.py", ["--quick", "--arms", "hallujax", "onnxruntime"], {"hallujax", "onnxruntime"}),
        ("conversion.py", ["--quick", "--arms", "hallujax", "tfds"], {"hallujax", "tfds"}),
        ("input.py", ["--quick", "--arms", "hallujax", "grain_tfds", "authors"], {"hallujax", "grain_tfds", "authors"}),
        (
            "train_step.py",
            ["--quick", "--huge-pages", "--systems", "single_stream", "--arms", "hallujax", "flax"],
            {"hallujax", "flax"},
        ),
        pytest.param(
            "train_step.py",
            ["--quick", "--systems", "single_stream", "two_stream", "hallucination", "admd"],
            {"hallujax", "flax", "torch"},
            marks=[pytest.mark.slow, pytest.mark.parity],
        ),
        pytest.param(
            "game.py",
            ["--quick"],
            {"student", "hallucination", "admd", "admd_by_hand"},
            marks=pytest.mark.slow,
        ),
        pytest.param("seeds.py", ["--quick"], {"sequence", "vmapped", "divided", "a_device"}, marks=pytest.mark.slow),
        pytest.param("end_to_end.py", ["--quick"], {"synthetic", "kept", "decoded"}, marks=pytest.mark.slow),
    ],
)
def test_a_benchmark_writes_a_row_for_every_arm(script, flags, arms, tmp_path):
    if "torch" in arms and not TORCH:
        pytest.skip("needs PyTorch")
    rows = rows_of(tmp_path, script, *flags)
    assert {row["arm"] for row in rows} == arms
    assert not any(row.get("failed") for row in rows)


def test_the_roofline_is_of_every_kind_of_kernel(tmp_path):
    rows = rows_of(tmp_path, "roofline.py", "--quick", "--steps", "1")
    whole = rows[0]
    kinds = [row for row in rows if row["kernel"].startswith("every ")]
    assert {"convolution", "product", "reduction"} <= {row["kind"] for row in kinds}
    assert sum(int(row["kernels"]) for row in kinds) == int(whole["kernels"])
    assert sum(float(row["ideal_ms"]) for row in kinds) == pytest.approx(float(whole["ideal_ms"]), abs=0.01)
    assert all(float(row["measured_ms"]) > 0 for row in kinds)


@pytest.mark.parametrize(
    "curve, points",
    [
        ("clips", ["1000", "10000"]),
        pytest.param("devices", ["1", "2", "4", "8"], marks=pytest.mark.slow),
        pytest.param("batch", ["4", "8"], marks=pytest.mark.slow),
        pytest.param("frames", ["1", "3"], marks=pytest.mark.slow),
        pytest.param("processes", ["1", "2"], marks=pytest.mark.slow),
    ],
)
def test_a_curve_has_its_points(curve, points, tmp_path):
    rows = rows_of(tmp_path, "scale.py", curve, "--quick")
    assert [row["point"] for row in rows] == points
    assert float(rows[0]["ratio"]) > 0


@pytest.mark.slow
def test_starts_and_checkpoints_are_timed(tmp_path):
    rows = {row["what"]: row for row in rows_of(tmp_path, "startup.py", "--quick")}
    assert list(rows) == ["cold", "warm", "imports", "step", "save_stall", "restore"]
    assert float(rows["save_stall"]["mib"]) > 0


def test_what_a_gpu_machine_runs_imports_without_readers_of_data():
    """jax, flax, optax and torch are all that such a machine may have."""
    scripts = sorted({line.split()[0] for line in suite.GPU})
    data = ("grain", "tensorflow_datasets", "ml_collections", "array_record", "simplejpeg")
    blocked = (*data, "tensorboardX", "matplotlib", "onnx")
    code = f"""
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not there")
sys.meta_path.insert(0, Blocked())
for script in {scripts!r}:
    sys.argv = [script, "--help"]
    sys.path.insert(0, {str(SCRIPTS)!r})
    try:
        runpy.run_path({str(SCRIPTS)!r} + "/" + script, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, script
"""
    assert run_python("-c", code).count("usage:") == len(scripts)


def test_the_suites_commands_are_understood():
    """Every command's script is there and knows its flags."""
    listed = run_python(SCRIPTS / "suite.py", "gpu", "--list").splitlines()
    assert listed == [f"python benchmarks/{line}" for line in suite.GPU]
    for line in (*suite.CPU, *suite.GPU):
        script, *flags = line.split()
        assert (SCRIPTS / script).exists()
        text = (SCRIPTS / script).read_text() + (SCRIPTS / "systems.py").read_text()
        assert all(f'"{flag}"' in text for flag in flags if flag.startswith("--")), line


HLO = """
HloModule example

%inside (p0: f32[4,8], p1: f32[8,6]) -> f32[4,6] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = f32[8,6]{1,0} parameter(1)
  ROOT %dot.1 = f32[4,6]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (s: (s32[])) -> (s32[]) {
  %s = (s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %next = s32[] add(%i, %i)
  ROOT %t = (s32[]) tuple(%next)
}

ENTRY %main (a: f32[4,8], b: f32[8,6], x: bf16[2,5,5,3], k: bf16[3,3,3,7]) -> f32[4,6] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[8,6]{1,0} parameter(1)
  %x = bf16[2,5,5,3]{3,2,1,0} parameter(2)
  %k = bf16[3,3,3,7]{3,2,1,0} parameter(3)
  %moved = bf16[2,5,5,3]{2,1,3,0} copy(%x)
  %same = f32[8,4]{0,1} transpose(%a), dimensions={1,0}
  %conv = bf16[2,3,3,7]{3,2,1,0} convolution(%moved, %k), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  %cudnn = (bf16[3,3,3,7]{3,2,1,0}, u8[0]{0}) custom-call(%x, %conv), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %cublas = f32[4,6]{1,0} custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %start = s32[] constant(0)
  %state = (s32[]) tuple(%start)
  %loop = (s32[]) while(%state), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %fused = f32[4,6]{1,0} fusion(%a, %b), kind=kOutput, calls=%inside
}
"""  # noqa: E501


def test_kernels_of_a_module_by_hand():
    found = {kernel.name: kernel for kernel in hlo.kernels(HLO)}
    assert set(found) == {"moved", "same", "conv", "cudnn", "cublas", "next", "fused"}
    assert found["moved"].transposed == 2 * 150 and found["moved"].convolution_near
    assert found["same"].transposed == 0  # the layout follows the dimensions: nothing moves
    # Taps that meet a value along one axis of 5 with stride 2 and padding 1: 2 + 3 + 2.
    assert found["conv"].flops == 2 * 2 * 7**2 * 3 * 7
    assert found["conv"].bytes == 2 * (150 + 189 + 126) and found["conv"].dtype == "bf16"
    assert found["cudnn"].flops == 2 * 126 * 3 * 3 * 3 and found["cudnn"].kind == "convolution"
    assert found["cublas"].flops == found["fused"].flops == 2 * 4 * 8 * 6
    assert found["fused"].kind == "product" and found["fused"].bytes == 4 * (32 + 48 + 24)
    assert found["next"].bytes == 3 * 12  # three times round the loop


def test_records_carry_the_checksum_of_their_format(tmp_path):
    assert tfrecord.crc32c(b"123456789") == 0xE3069283  # the checksum's published example
    data = np.random.default_rng(0).bytes(70_001)
    slowly = 0xFFFFFFFF
    for byte in data:
        slowly ^= byte
        for _ in range(8):
            slowly = slowly >> 1 ^ (0x82F63B78 if slowly & 1 else 0)
    assert tfrecord.crc32c(data) == slowly ^ 0xFFFFFFFF
    for compress in (False, True):
        tfrecord.write_records(tmp_path / "records", [data, b"second"], compress=compress)
        assert list(tfrecord.read_records(tmp_path / "records", compress=compress)) == [data, b"second"]
    (tmp_path / "records").write_bytes((tmp_path / "records").read_bytes()[:-2])
    with pytest.raises(EOFError):
        list(tfrecord.read_records(tmp_path / "records", compress=True))


def test_a_command_replaces_its_own_rows_alone(tmp_path):
    path = tmp_path / "rows.csv"
    mine, other = ({"command": name, "machine": "m", "value": "1"} for name in ("mine", "other"))
    recording.write([mine, mine], path)
    recording.write([other], path)
    recording.write([mine | {"value": "2"}], path)
    assert [(row["command"], row["value"]) for row in recording.read(path)] == [("other", "1"), ("mine", "2")]
    with pytest.raises(SystemExit, match="other columns"):
        recording.write([{"command": "mine", "machine": "m", "speed": "3"}], path)
    assert len(recording.read(path)) == 2


def test_goals_are_judged_by_their_ratios(tmp_path):
    """Two arms of one run: 80 ms against PyTorch's 100 and flax's 120, by hand."""
    columns = ["command", "machine", "system", "dtype", "clips", "frame", "arm", "median_ms"]
    run = ["c", "CPU, 2 cores, cpu", "single_stream", "float32", "2", "224"]
    with (tmp_path / "train_step.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                columns,
                [*run, "hallujax", "80"],
                [*run, "torch", "100"],
                [*run, "flax", "120"],
                [*run, "torch_compile", ""],
            ]
        )
    cells = {line.goal: line.cells() for line in pages.lines(tmp_path)}
    setting = "single stream, 2 clips, 224 px, float32, 2 cores"
    torch = cells["5. CPU training step against PyTorch channels-last"]
    assert torch[1:] == [setting, "≥ 1.00", "80 ms", "torch 100 ms", "1.25", "met", "`c`"]
    assert cells["5. the same against plain flax"][5:7] == ["1.50", "**not met**"]
    row = dict(zip(columns, [*run, "hallujax", "80"], strict=True)) | {"command": "c --huge-pages"}
    assert pages.setting_of(row) == f"{setting}, huge pages"
    assert cells["1. GPU training step against the best peer"][3] == "not measured: no GPU"


def test_the_page_of_goals_is_what_the_results_say():
    page = pages.PAGE.read_text()
    assert pages.filled(page) == page, "run python benchmarks/pages.py"


def test_every_result_has_its_figure(tmp_path):
    drawn = {path.name: path for path in plots.draw(pages.RESULTS, tmp_path)}
    assert {path.name for path in plots.OUT.glob("*.svg")} == set(drawn), "run python benchmarks/plots.py"
    again = plots.draw(pages.RESULTS, tmp_path / "again")
    for path in again:
        assert path.read_bytes() == drawn[path.name].read_bytes()  # the same results, the same file
        assert re.search("<path", path.read_text())
