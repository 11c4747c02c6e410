"""Speed of a conversion: clips a second and core, one worker against two, beside TFDS's own builders.

    python benchmarks/conversion.py                     # 96 clips of 30 frames, 640x480 video and depth, to 256x256
    python benchmarks/conversion.py --quick             # to see that it runs

All arms read the same written raw tree (an MPEG-4 AVI of RGB and 16-bit PNGs of depth a clip), cut the same squares and
encode the same JPEGs and PNGs; they differ in who writes the records:

    hallujax       `hallujax prepare folder`, with one and with two worker processes
    hallujax_beam  the same shards on Apache Beam's DirectRunner, one worker
    tfds           a GeneratorBasedBuilder of TFDS, array_record, one process
    tfds_beam      a builder whose examples are a Beam pipeline, on the DirectRunner, one worker

The arms take turns, forwards and backwards (ABBA). Rows go to benchmarks/results/conversion.csv; an arm that cannot run
has its reason there instead of a speed. TFDS stores a clip as two Sequence features, one example a clip.
"""

import argparse
import functools
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from recording import stamp, write

from data_prep import convert, folder, raw
from hallujax.errors import HallujaxError

RESULTS = Path(__file__).parent / "results" / "conversion.csv"
PACKAGES = ("tensorflow-datasets", "array-record", "pillow", "av", "apache-beam")
MEASURED = ("median_s", "min_s", "max_s", "clips_per_s", "clips_per_s_and_core")
DIRECT = ("--runner=DirectRunner",)


def write_raw(root: Path, clips: int, frames: int, width: int, height: int) -> Path:
    """Moving bands with noise, so that neither codec has it too easy."""
    import av

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 25, (height, width, 3), dtype=np.uint8)
    for number in range(clips):
        clip = root / f"class{number % 4}" / f"clip{number:04}"
        (clip / "depth").mkdir(parents=True)
        with av.open(str(clip / "rgb.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=30)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
            for t in range(frames):
                bands = np.add.outer(np.arange(height), 2 * np.arange(width)) // 3 + 5 * t + 11 * number
                picture = np.stack([bands, bands * 2, bands * 3], axis=-1).astype(np.uint8) // 2 + noise
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                depth = (1500 + bands % 2000 + noise[..., 0]).astype(np.uint16)
                Image.fromarray(depth).save(clip / "depth" / f"{t:04}.png", compress_level=1)
            container.mux(stream.encode())
    return root


class Clips(tfds.core.GeneratorBasedBuilder):
    """The clips of a raw tree, read as `folder` reads them; on Beam if `on_beam`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, tree: Path, size: int, on_beam: bool, **options):
        self._found, self._on_beam = folder.scan(tree, size=size), on_beam
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "rgb": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3))),
            "depth": tfds.features.Sequence(
                tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png")
            ),
            "label": np.int64,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"frames": self._generate_examples()}

    def _generate_examples(self):
        read = functools.partial(as_example, read=self._found.read)
        if self._on_beam:
            import apache_beam as beam

            return beam.Create(list(self._found.clips)) | beam.Map(read)
        return map(read, self._found.clips)


def as_example(clip: convert.Clip, *, read: Callable) -> tuple[str, dict]:
    frames = read(clip).frames
    return clip.id, {name: list(map(io.BytesIO, found)) for name, found in frames.items()} | {"label": clip.label}


def hallujax_arm(tree: Path, out: Path, size: int, workers: int) -> None:
    raw.prepare("folder", tree, out, size=size, workers=workers)


def hallujax_beam_arm(tree: Path, out: Path, size: int) -> None:
    raw.prepare("folder", tree, out, size=size, beam_flags=DIRECT)


def tfds_arm(tree: Path, out: Path, size: int, on_beam: bool) -> None:
    options = None
    if on_beam:
        from apache_beam.options.pipeline_options import PipelineOptions

        options = tfds.download.DownloadConfig(beam_options=PipelineOptions(list(DIRECT)))
    Clips(tree, size, on_beam, data_dir=out).download_and_prepare(download_config=options)


ARMS: dict[str, tuple[int, Callable]] = {  # (processes that convert, what is timed)
    "hallujax": (1, functools.partial(hallujax_arm, workers=1)),
    "hallujax_2": (2, functools.partial(hallujax_arm, workers=2)),
    "hallujax_beam": (1, hallujax_beam_arm),
    "tfds": (1, functools.partial(tfds_arm, on_beam=False)),
    "tfds_beam": (1, functools.partial(tfds_arm, on_beam=True)),
}


def measure(names: list[str], tree: Path, size: int, blocks: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of every run, and why an arm cannot run."""
    seconds, failed = {name: [] for name in names}, {}
    for block in range(blocks):
        for name in names if block % 2 == 0 else names[::-1]:
            if name in failed:
                continue
            with tempfile.TemporaryDirectory() as out:
                started = time.perf_counter()
                try:
                    ARMS[name][1](tree, Path(out), size)
                except (HallujaxError, ImportError, RuntimeError, ValueError, TypeError, AttributeError) as error:
                    failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
                    continue
                seconds[name].append(time.perf_counter() - started)
    return seconds, failed


def rows(seconds: dict[str, list[float]], failed: dict[str, str], clips: int) -> Iterator[dict[str, str]]:
    for name, found in seconds.items():
        row = stamp(PACKAGES) | {"arm": name, "processes": str(ARMS[name][0])} | dict.fromkeys(MEASURED, "")
        row["failed"] = failed.get(name, "")
        if found and name not in failed:
            median = statistics.median(found)
            numbers = median, min(found), max(found), clips / median, clips / median / ARMS[name][0]
            row |= {column: f"{number:.2f}" for column, number in zip(MEASURED, numbers, strict=True)}
        yield row


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as place:
        warm = write_raw(Path(place) / "few", 2, args.frames, args.width, args.height)
        tree = write_raw(Path(place) / "all", args.clips, args.frames, args.width, args.height)
        measure(args.arms, warm, args.size, 1)  # imports are paid once in a life
        seconds, failed = measure(args.arms, tree, args.size, args.blocks)
    found = list(rows(seconds, failed, args.clips))
    write(found, args.out)
    for row in found:
        print(f"{row['arm']:14} {row['clips_per_s'] or '-':>8} clips/s  {row['failed']}")
    one, two = (seconds.get(name) for name in ("hallujax", "hallujax_2"))
    if one and two:
        print(f"two workers are {statistics.median(one) / statistics.median(two):.2f} times as fast as one")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--frames", type=int, default=30, help="a clip")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size", type=int, default=256, help="of the stored frames, pixels a side")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.clips, args.frames, args.width, args.height, args.size, args.blocks = 8, 4, 64, 48, 32, 1
    return args


if __name__ == "__main__":
    main()
