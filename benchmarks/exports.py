"""What each export of a run is worth: bytes, accuracy on the test clips, and how far it is from the run itself.

    python benchmarks/exports.py runs/table/seed0 --data data/standard --system "Hallucination + RGB (step 4)"

Every format that `hallujax.load` reads is written in every precision it has, read back from its file, and asked for the
same clips, batch by batch. Rows are appended to benchmarks/results/exports.csv with machine, versions and command.
"""

import argparse
import datetime
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
from recording import machine, versions, write

import hallujax
from hallujax.data.pipeline import ClipLoader, evaluation_batches
from hallujax.data.protocols import split
from hallujax.deploy.export import MODEL_FILES, PRECISIONS, write_export
from hallujax.deploy.run import read_run
from hallujax.evaluation.finished import open_dataset, read_experiment

RESULTS = Path(__file__).parent / "results" / "exports.csv"
PACKAGES = ("jax", "jaxlib", "flax", "onnx", "onnxruntime")
FORMATS = [to for to in PRECISIONS if to != "saved_model"]  # those that hallujax loads
BATCH = 32


def main() -> None:
    args = parse_arguments()
    trained = read_run(args.run, args.system)
    experiment = read_experiment(args.run)
    dataset = open_dataset(experiment, args.data)
    clips = split(dataset, experiment.data.protocol)["test"]
    if args.clips:  # drawn, since clips lie camera after camera: every third would be of one
        clips = np.sort(np.random.default_rng(0).choice(clips, min(args.clips, len(clips)), replace=False))
    loader = ClipLoader(dataset, ["rgb"], frames=experiment.data.frames, sampling="uniform", seed=0)
    labels = dataset.index["label"][clips]

    def probabilities(path: Path) -> np.ndarray:
        predictor, found = hallujax.load(path, trained.system.name), []
        for batch in evaluation_batches(loader, clips, batch_size=BATCH):
            predictions = predictor.predict_many(batch["rgb"], batch_size=BATCH)
            found += [prediction.probabilities for prediction in predictions]
        return np.stack(found[: len(clips)])

    run = probabilities(args.run)
    print(f"the run itself: {100 * np.mean(run.argmax(1) == labels):.2f} % of {len(clips)} clips", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for to, precision in [(name, precision) for name in args.to for precision in PRECISIONS[name]]:
            out = Path(scratch) / f"{to}_{precision}"
            write_export(trained, to, out, precision)
            found = probabilities(out)
            rows.append(
                {
                    "date": datetime.date.today().isoformat(),
                    "machine": machine(),
                    "versions": versions(PACKAGES),
                    "command": "python benchmarks/exports.py " + shlex.join(sys.argv[1:]),
                    "system": trained.system.name,
                    "clips": len(clips),
                    "format": to,
                    "precision": precision,
                    "bytes": (out / MODEL_FILES[to]).stat().st_size,
                    "accuracy": f"{np.mean(found.argmax(1) == labels):.4f}",
                    "agreement_with_run": f"{np.mean(found.argmax(1) == run.argmax(1)):.4f}",
                    "largest_probability_difference": f"{np.abs(found - run).max():.2g}",
                }
            )
            print("  ".join(f"{key} {rows[-1][key]}" for key in list(rows[-1])[6:]), flush=True)
    write(rows, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="its workdir")
    parser.add_argument("--data", type=Path, help="folder of the prepared datasets, if it has moved")
    parser.add_argument("--system", help="a row of the table (the one that `hallujax.load` chooses)")
    parser.add_argument("--clips", type=int, help="at most so many test clips, drawn with seed 0 (all)")
    parser.add_argument("--to", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
