"""One point of `scale.py clips`: how long opening a dataset takes until its first batch, and how the process grows.

    python benchmarks/scale_dataset.py DATASET

Prints JSON: milliseconds; MiB of private memory, the process's own; MiB that are mapped, what it looked at of the index
file, which the system may drop.
"""

import json
import sys
import time
from pathlib import Path

from hallujax.data.labels import training_labels
from hallujax.data.pipeline import ClipLoader, check_clips, training_batches
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset

MODALITIES, FRAMES, BATCH = ("depth", "rgb"), 5, 16


def main(directory: str) -> None:
    before, begun = memory(), time.perf_counter()
    dataset = PreparedDataset.open(directory)
    parts = split(dataset, "cross_subject")
    labels = training_labels(
        dataset.index["clip"],
        dataset.index["label"],
        parts["train"],
        classes=len(dataset.classes),
        labelled=1.0,
        noise=0.0,
    )
    for rows in parts.values():
        check_clips(dataset, rows, MODALITIES, FRAMES, "repeat")
    loader = ClipLoader(dataset, MODALITIES, frames=FRAMES, sampling="mixed", seed=0, labels=labels)
    batches = training_batches(loader, parts["train"], batch_size=BATCH, seed=0)
    next(batches)
    ms, after = 1e3 * (time.perf_counter() - begun), memory()
    batches.close()
    print(json.dumps({"ms": ms} | {key: after[key] - before[key] for key in after}))


def memory() -> dict[str, float]:
    """Of this process, from /proc."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: int(status[key].split()[0]) / 1024
        for name, key in (("private_mib", "RssAnon"), ("mapped_mib", "RssFile"))
    }


if __name__ == "__main__":
    main(sys.argv[1])
