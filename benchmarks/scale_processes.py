"""Points of `scale.py processes`: `hallujax train` in several processes of this machine.

All of them may use all cores: bound to a core each, two on two cores took 4 to 7 times as long as one, not 1.7.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from systems import Case

ROOT = Path(__file__).parents[1]
GROUPS = 2  # of clips that batch norm takes together: as many as there may be processes, which then sum gradients alone
TRAINING_CLIPS = 40  # of the 80 that `scale.py` writes


def step_times(folder: Path, count: int, case: Case, steps: int) -> list[float]:
    """Milliseconds of each step but the first three, which compile and fill the pipeline; of the first process.

    Raises:
      RuntimeError: with the last line that a process said before it failed.
    """
    workdir = folder / f"in{count}"
    flags = {
        "data.directory": folder / "data",
        "data.frames": case.frames,
        "training.model.stage_sizes": f"({','.join(map(str, case.stages))})",
        "training.model.width": case.width,
        "training.batch_size": case.batch,
        "training.ghost_batch": case.batch // GROUPS,
        "training.epochs": steps * case.batch / TRAINING_CLIPS,
        "training.evaluations": 1,
        "log_every": 1,
    }
    command = [
        sys.executable,
        "-m",
        "hallujax.cli",
        "train",
        "--config=benchmarks/one_stream.py:mocap_rgbd,cross_subject",
    ]
    command += [f"--workdir={workdir}", *(f"--config.{key}={value}" for key, value in flags.items())]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = []
    try:
        for number in range(count):
            together = ["--coordinator", address, "--processes", str(count), "--process", str(number)]
            log = tempfile.TemporaryFile("w+")
            process = subprocess.Popen(
                command + (together if count > 1 else []),
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": paths},
                stdout=log,
                stderr=log,
            )
            running.append((process, log))
        for process, log in running:
            if process.wait(timeout=600):
                log.seek(0)
                raise RuntimeError((log.read().strip().splitlines() or ["it ended without a word"])[-1][:200])
    finally:
        for process, log in running:
            process.kill()
            process.wait()
            log.close()
    lines = (workdir / "rgb" / "metrics.jsonl").read_text().splitlines()
    seconds = [line["seconds"] for line in map(json.loads, lines) if "seconds" in line]
    return [1e3 * (after - before) for before, after in itertools.pairwise(seconds[2:])]
