"""TensorBoard's files, written without TensorFlow and without torch."""

import pathlib
import sys
from typing import Any


def summary_writer(folder: pathlib.Path, *, purge_step: int) -> Any:
    """tensorboardX's `SummaryWriter`.

    It imports torch wherever it is installed, to take its tensors too, which nobody gives it here: that was half of the
    processor time of all imports of a training.
    """
    torch = sys.modules.setdefault("torch", None)  # to import it fails now, which tensorboardX expects
    try:
        from tensorboardX import SummaryWriter
    finally:
        if torch is None:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=purge_step)
