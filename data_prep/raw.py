"""Raw trees by the name of their dataset: what `hallujax prepare NAME --raw DIR` calls."""

import functools
import pathlib
from collections.abc import Sequence

from data_prep import beam, convert, folder, nw_ucla, nyud_objects, uwa3dii
from data_prep.ntu import dataset as ntu
from hallujax.errors import UsageError

SCANS = {
    "folder": folder.scan,
    **{name: functools.partial(ntu.scan, name=name) for name in ntu.SETUPS},
    **{module.NAME: module.scan for module in (nw_ucla, uwa3dii, nyud_objects)},
}


def prepare(
    name: str,
    raw: pathlib.Path,
    out: pathlib.Path,
    *,
    size: int = 256,
    modalities: Sequence[str] = (),
    workers: int | None = None,
    strict: bool = False,
    beam_flags: Sequence[str] | None = None,
) -> pathlib.Path:
    """Converts the raw tree in `raw` to `out`/NAME and returns that path; arguments as in `convert.convert`.

    With `beam_flags`, be they none, the shards are written by Apache Beam: see `beam.runner`.

    Raises:
      UsageError: there is no such tree, or a size that no frame can have.
      DataError: as `convert.convert`.
    """
    if not raw.exists():
        raise UsageError(f"--raw {raw} does not exist")
    if not 16 <= size <= 2048:
        raise UsageError(f"--size is {size}; it must lie between 16 and 2048 pixels")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers is {workers}; at least one is needed")
    run = None if beam_flags is None else beam.runner(beam_flags)
    tree = SCANS[name](raw, size=size, modalities=modalities)
    return convert.convert(tree, out, workers=workers, strict=strict, run=run)
