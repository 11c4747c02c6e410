"""The benchmarks run: their smallest forms, each in a process of its own, for rows and not for numbers."""

import csv
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    "script, flags, arms",
    [
        ("inference.py", ["--quick", "--arms", "hallujax", "onnxruntime"], {"hallujax", "onnxruntime"}),
        ("conversion.py", ["--quick", "--arms", "hallujax", "tfds"], {"hallujax", "tfds"}),
    ],
)
def test_a_benchmark_writes_a_row_for_every_arm(script, flags, arms, tmp_path):
    out = tmp_path / "rows.csv"
    command = [sys.executable, ROOT / "benchmarks" / script, *flags, "--out", out]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["arm"] for row in rows} == arms
    assert all(row["machine"] and row["versions"] and row["command"] and row["date"] for row in rows)
