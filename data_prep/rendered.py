"""What the rendered datasets share: the renderer must be there, and what is complete is left alone."""

import importlib.util
import pathlib
from collections.abc import Callable

from data_prep import engine
from hallujax.errors import UsageError


def render(
    name: str,
    out: pathlib.Path,
    seed: int,
    job: Callable[[], engine.Job],
    said: str,
    workers: int | None,
    progress: bool,
) -> pathlib.Path:
    """Renders `job()` to `out`/`name` and returns that path; `said` tells people which of its kinds it is.

    Raises:
      UsageError: pybullet is missing, the seed is negative, or another dataset is there.
      DataError: the disk is full or has too little space, or a worker died.
    """
    if importlib.util.find_spec("pybullet") is None:
        raise UsageError(f"rendering {name} needs pybullet: pip install 'hallujax[demo]' (Python 3.11 has wheels)")
    if seed < 0:
        raise UsageError(f"the seed of {name} must not be negative: {seed}")
    described = job()
    if engine.is_complete(out, described):
        if progress:
            print(f"{out / name}: already complete ({said})")
        return out / name
    return engine.write(out, described, workers, progress)
