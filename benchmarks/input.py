"""Reading clips: hallujax beside grain over TFDS, PyTorch's loader, tf.data and the released code's own layout.

    python benchmarks/input.py                                            # growth with threads and with clip length
    TENSORFLOW_PYTHON=~/tf/bin/python python benchmarks/input.py          # a Python that has TensorFlow, for tf.data
    python benchmarks/input.py --quick                                    # to see that it runs

All arms yield batches of the same clips, five frames evenly over each, as uint8 RGB and depth. What lies on the disk:

    hallujax        the prepared dataset: ArrayRecord, one JPEG or 16-bit PNG a record
    hallujax_kept   the same with data.keep_decoded, after the first epoch
    grain_tfds      the same files through TFDS's data source and a grain pipeline; Pillow decodes the frames asked for
    torch_files     a folder a clip, a file a frame, the same JPEG and PNG bytes; torch.utils.data.DataLoader, Pillow
    tf_data         a TFRecord of tf.Examples, a clip each, the same JPEG and PNG bytes; tf.data decodes the frames
    authors         the released layout: GZIP TFRecords of SequenceExamples, a clip each, raw uint8 frames; Python
    authors_tf      the same, read by tf.data

Before timing every arm reads all clips once, and the sums of their RGB, of every eighth pixel, must agree (to 0.2 %
where another library decodes JPEG). The arms take turns (ABBA). `clips_per_s` is by the clock, `clips_per_s_and_core`
by the processor time of the process and its children. With more than one thread PyTorch's loader has as many worker
processes, the others threads. Rows go to benchmarks/results/input.csv; an arm that cannot run has its reason there.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from input_arms import ARMS, Layout, processor_seconds
from recording import stamp, write
from synthetic import write_prepared

RESULTS = Path(__file__).parent / "results" / "input.csv"
PACKAGES = ("grain", "array-record", "tensorflow-datasets", "pillow", "simplejpeg", "torch")


def main() -> None:
    args = parse_arguments()
    rows = []
    for length in dict.fromkeys([args.length, *args.lengths]):
        with tempfile.TemporaryDirectory() as folder:
            dataset = write_prepared(Path(folder), args.clips, length, args.side)
            for threads in args.threads if length == args.length else args.threads[:1]:
                layout = Layout(dataset, Path(folder), length, args.side, threads, args.batch)
                rows += measure_setting(layout, args)
                write(rows, args.out)


def measure_setting(layout: Layout, args: argparse.Namespace) -> list[dict[str, str]]:
    arms, sums, failed = {}, {}, {}
    for name in args.arms:
        try:
            arms[name] = ARMS[name](layout)
            sums[name] = arms[name].run(1)
        except (ImportError, OSError, RuntimeError) as error:
            failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
            arms.pop(name, None)
    if sums and max(sums.values()) > 1.002 * min(sums.values()):
        sys.exit(f"the arms do not read the same: their sums of RGB are {sums}; nothing was timed")
    seconds, used = {name: [] for name in arms}, {name: [] for name in arms}
    for block in range(args.blocks):
        for name in list(arms) if block % 2 == 0 else reversed(arms):
            before, start = processor_seconds(), time.perf_counter()
            arms[name].run(args.passes)
            seconds[name].append(time.perf_counter() - start)
            used[name].append(processor_seconds() - before)
    rows = []
    for name in args.arms:
        row = stamp(PACKAGES) | {"arm": name, "threads": str(layout.threads), "length": str(layout.length)}
        row |= {"clips": str(layout.clips), "frame": str(layout.side)}
        row |= dict.fromkeys(("clips_per_s", "min_clips_per_s", "max_clips_per_s", "clips_per_s_and_core"), "")
        row |= {"mib_on_disk": "", "failed": failed.get(name, "")}
        if name in arms:
            rates = [args.passes * layout.clips / each for each in seconds[name]]
            row["clips_per_s"] = f"{statistics.median(rates):.1f}"
            row["min_clips_per_s"], row["max_clips_per_s"] = f"{min(rates):.1f}", f"{max(rates):.1f}"
            row["clips_per_s_and_core"] = f"{args.passes * layout.clips / max(statistics.median(used[name]), 1e-2):.1f}"
            row["mib_on_disk"] = f"{arms[name].bytes / 2**20:.1f}"
        rows.append(row)
        print(
            f"length {layout.length:3d}, threads {layout.threads}: {name:14s} {row['clips_per_s'] or '-':>8s} clips/s,"
            f" {row['clips_per_s_and_core'] or '-':>8s} a core  {row['failed']}",
            flush=True,
        )
    for arm in arms.values():
        arm.close()
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--clips", type=int, default=256, help="grain's shuffle takes 28 ms over any number of them")
    parser.add_argument("--length", type=int, default=30, help="frames a clip, where threads are varied")
    parser.add_argument("--lengths", nargs="+", type=int, default=[10, 30, 90], help="frames a clip, with one thread")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--side", type=int, default=112, help="height and width of a frame, pixels")
    parser.add_argument("--batch", type=int, default=16, help="clips; must divide --clips")
    parser.add_argument("--passes", type=int, default=1, help="over the clips, a block and arm")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="few small clips, to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.clips, args.length, args.lengths, args.threads, args.side = 4, 6, [6], [1], 32
        args.batch, args.blocks, args.passes = 2, 2, 1
    if args.clips % args.batch:
        parser.error(f"--batch {args.batch} does not divide --clips {args.clips}")
    return args


if __name__ == "__main__":
    main()
