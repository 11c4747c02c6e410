"""R14: hours of training, validating and saving, bounded to what a test may take."""

import os
import pathlib
import signal
import time

import numpy as np
import pytest
from victims import Victim, train_command

MINUTES = float(os.environ.get("HALLUJAX_SOAK_MINUTES", "6"))


def resident(pid: int) -> float:
    """MiB."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_memory_and_files_do_not_grow(tiny, environment, tmp_path, figures):
    """After a third of the time, in which it warms up."""
    flags = ("--config.training.epochs=100000.0", "--config.training.evaluations=30000", "--config.log_every=10")
    victim = Victim(tmp_path, train_command(tiny.parent, tmp_path / "run", *flags), environment)
    assert victim.comes_to(lambda: victim.phase[0] == "training"), victim.said
    started, samples = time.monotonic(), []
    while time.monotonic() - started < 60 * MINUTES:
        assert victim.process.poll() is None, victim.said
        pid = victim.process.pid
        files = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        kept = len(list((tmp_path / "run" / "depth" / "checkpoints").glob("*/*")))
        samples.append((time.monotonic() - started, resident(pid), files, kept))
        time.sleep(2)
    victim.send(signal.SIGTERM)
    assert victim.end() == 143, victim.said
    warm = np.array([sample for sample in samples if sample[0] > 20 * MINUTES])
    slope = 60 * np.polyfit(warm[:, 0], warm[:, 1], 1)[0]
    steps = max(int(path.name) for path in (tmp_path / "run" / "depth" / "checkpoints" / "latest").glob("[0-9]*"))
    half = len(warm) // 2
    figures(
        "resident memory grows by less than 1 MiB a minute, open files and checkpoints stay as many",
        minutes=MINUTES,
        steps=steps,
        memory_mib=[round(float(warm[:, 1].min())), round(float(warm[:, 1].max()))],
        mib_a_minute=round(float(slope), 2),
        open_files=[int(warm[:, 2].min()), int(warm[:, 2].max())],
        checkpoints=[int(warm[:, 3].min()), int(warm[:, 3].max())],
    )
    assert slope < 1.0
    assert warm[half:, 2].max() <= warm[:half, 2].max()
    assert warm[:, 3].max() <= 8
