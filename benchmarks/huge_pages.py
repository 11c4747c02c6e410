"""What the allocator's huge pages are worth: the training step with and without `hallujax.huge_pages.TUNABLE`.

    python benchmarks/huge_pages.py                     # the demo's network
    python benchmarks/huge_pages.py -- --size 224 --batch 2       # anything that train_step.py takes

Each round starts a process of `train_step.py` with and one without, in turn; medians over rounds of each process's own
median. PyTorch's arm runs in the same processes: its ratio says what the setting does for a peer.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from recording import write

from hallujax.huge_pages import TUNABLE

HERE = Path(__file__).parent
DEMO = "--stages 2 2 2 2 --width 16 --size 48 --batch 16 --classes 15 --steps 10 --blocks 4 --arms hallujax torch"
KEPT = (
    "glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=17179869184"  # no block goes back to the system
)
SETTINGS = {"none": "", "hugetlb": TUNABLE, "hugetlb and thresholds": f"{TUNABLE}:{KEPT}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "huge_pages.csv")
    parser.add_argument("step", nargs="*", default=DEMO.split(), help="arguments of train_step.py")
    args = parser.parse_args()
    rows = {}
    for number in range(args.rounds):
        for setting in list(SETTINGS) if number % 2 == 0 else reversed(SETTINGS):
            for row in measure(SETTINGS[setting], args.step):
                rows.setdefault((setting, row["arm"]), []).append(row)
                print(f"{setting}: {row['arm']} {row['median_ms']} ms", flush=True)
    summary = []
    for (setting, arm), found in rows.items():
        medians = [float(row["median_ms"]) for row in found]
        summary.append(
            {key: found[0][key] for key in ("date", "machine", "versions")}
            | {"command": "python benchmarks/huge_pages.py " + " ".join(sys.argv[1:])}
            | {"step": " ".join(args.step)}
            | {"setting": setting, "arm": arm, "rounds": len(medians), "median_ms": f"{statistics.median(medians):.1f}"}
            | {"min_ms": f"{min(medians):.1f}", "max_ms": f"{max(medians):.1f}"}
        )
        print(summary[-1])
    write(summary, args.out)


def measure(tunables: str, arguments: list[str]) -> list[dict[str, str]]:
    """The rows that one process of train_step.py writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.csv"
        command = [sys.executable, str(HERE / "train_step.py"), *arguments, "--out", str(out)]
        environment = os.environ | {"GLIBC_TUNABLES": tunables}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        with out.open(newline="") as file:
            return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
