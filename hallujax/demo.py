"""`hallujax demo`: the whole job in minutes on two CPU cores."""

import importlib
import importlib.util
import pathlib
import time

from hallujax.errors import UsageError
from hallujax.experiment import read_config
from hallujax.tables import train_table


def run(out: pathlib.Path, seeds: int = 1) -> None:
    """Renders the quick benchmark, trains every system of the table and writes table and report into `out`.

    A second start reuses whatever is finished.

    Raises:
      UsageError: if the renderer or the report's packages are not installed.
      HallujaxError: as the parts.
    """
    for package in ("pybullet", "matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"the demo needs {package}: pip install -e '.[demo]' (Python 3.11 has pybullet's wheels)")
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    importlib.import_module("data_prep.mocap_rgbd").prepare(out / "data", preset="quick")
    config = importlib.import_module("configs.demo").get_config()
    config.data.directory = str(out / "data")
    command = f"hallujax demo --out {out}" + (f" --seeds {seeds}" if seeds != 1 else "")
    train_table(read_config(config), out, seeds, command=command)
    from hallujax.evaluation.report import write_report

    page = write_report(out)
    print(f"{out / 'results.json'}, {page}: {time.monotonic() - started:.0f} s in all")
