"""The arms of `input.py`: each writes its layout of the same clips and reads all of them once a `run`."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2
from tfrecord import clip_record, read_records, write_records

from hallujax.data.clips import uniform_frames
from hallujax.data.pipeline import ClipLoader, training_batches
from hallujax.data.records import PreparedDataset

FRAMES = 5
SHARD = 16  # clips in a TFRecord


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the clips are and how they are read."""

    dataset: Path
    folder: Path  # for what an arm writes
    length: int
    side: int
    threads: int
    batch: int

    @property
    def clips(self) -> int:
        return len(np.load(self.dataset / "clips.npy", mmap_mode="r"))

    @property
    def chosen(self) -> list[int]:
        """The frames that are seen of every clip."""
        return uniform_frames(self.length, FRAMES).tolist()

    def encoded(self) -> Iterator[tuple[str, int, dict[str, list[bytes]]]]:
        """Every clip's id, label and frames as they lie in the prepared dataset: JPEG and PNG bytes."""
        dataset = PreparedDataset.open(self.dataset)
        sources = {name: _source(self.dataset, name) for name in ("rgb", "depth")}
        for row in range(len(dataset)):
            first = int(dataset.index["rgb_first"][row])
            numbers = range(first, first + self.length)
            frames = {name: [source[number][name] for number in numbers] for name, source in sources.items()}
            yield dataset.clip_id(row), int(dataset.index["label"][row]), frames


class HallujaxArm:
    def __init__(self, layout: Layout, keep: bool = False):
        dataset = PreparedDataset.open(layout.dataset)
        if keep:
            dataset.keep_decoded()
        self._loader = ClipLoader(dataset, ["rgb", "depth"], frames=FRAMES, sampling="uniform", seed=0)
        self._rows, self._layout = np.arange(len(dataset)), layout
        self.bytes = _bytes(layout.dataset.rglob("*.array_record*"))

    def run(self, passes: int) -> int:
        """A pipeline of its own each time, or it would read ahead while others are timed."""
        batch_size, threads = self._layout.batch, self._layout.threads
        count = passes * len(self._rows) // batch_size
        loader = UpTo(self._loader, count)
        batches = training_batches(loader, self._rows, batch_size=batch_size, seed=0, threads=threads)
        total = sum(checksum(next(batches)["rgb"]) for _ in range(count))
        batches.close()
        return total

    def close(self) -> None:
        pass


class UpTo:
    """Reads so many batches and no more: the pipeline has no end, and what it reads ahead nobody would count."""

    def __init__(self, loader: ClipLoader, batches: int):
        self._loader, self._left = loader, iter(range(batches))

    def __call__(self, samples: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        return self._loader(samples, rows) if next(self._left, None) is not None else {}


class GrainArm:
    """What one writes over a TFDS directory with grain: records one at a time, decoded in the pipeline's threads."""

    def __init__(self, layout: Layout):
        sources = {name: _source(layout.dataset, name) for name in ("rgb", "depth")}
        index = PreparedDataset.open(layout.dataset).index

        def read(row: int) -> dict[str, np.ndarray]:
            first = int(index["rgb_first"][row])
            clip = {
                name: np.stack([_decode(source[first + number][name]) for number in layout.chosen])
                for name, source in sources.items()
            }
            return clip | {"label": np.int32(index["label"][row])}

        self._pipeline, self._batch = grain.MapDataset.range(layout.clips).seed(0).shuffle().map(read), layout.batch
        self._options = grain.ReadOptions(num_threads=layout.threads, prefetch_buffer_size=2 * layout.threads)
        self.bytes = _bytes(layout.dataset.rglob("*.array_record*"))

    def run(self, passes: int) -> int:
        batches = self._pipeline.repeat(passes).batch(self._batch, drop_remainder=True).to_iter_dataset(self._options)
        return sum(checksum(batch["rgb"]) for batch in batches)

    def close(self) -> None:
        pass


class TorchArm:
    """A map-style dataset of files under PyTorch's loader."""

    def __init__(self, layout: Layout):
        import torch

        root = layout.folder / "files"
        for clip, _, frames in layout.encoded():
            for name, ending in (("rgb", "jpg"), ("depth", "png")):
                (root / clip / name).mkdir(parents=True, exist_ok=True)
                for number, frame in enumerate(frames[name]):
                    (root / clip / name / f"{number:04}.{ending}").write_bytes(frame)
        workers = layout.threads if layout.threads > 1 else 0
        self._loader = torch.utils.data.DataLoader(
            FileClips(sorted(root.iterdir()), layout.chosen),
            layout.batch,
            shuffle=True,
            num_workers=workers,
            persistent_workers=bool(workers),
        )
        self.bytes = _bytes(root.rglob("*.*"))

    def run(self, passes: int) -> int:
        return sum(checksum(rgb.numpy()) for _ in range(passes) for rgb, _ in self._loader)

    def close(self) -> None:
        del self._loader


class FileClips:
    """A clip's chosen frames, RGB and depth; at the module's top so that worker processes can be given it."""

    def __init__(self, clips: list[Path], chosen: list[int]):
        self._clips, self._chosen = clips, chosen

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        rgb, depth = (
            np.stack([_open(self._clips[row] / name / f"{number:04}.{ending}") for number in self._chosen])
            for name, ending in (("rgb", "jpg"), ("depth", "png"))
        )
        return rgb, depth


class AuthorsArm:
    """The released layout, read by Python: whole clips are inflated and parsed for the sake of five frames."""

    def __init__(self, layout: Layout):
        self._paths, self._layout = write_authors(layout), layout
        self.bytes = _bytes(self._paths)

    def run(self, passes: int) -> int:
        layout, total = self._layout, 0
        for path in passes * self._paths:
            for record in read_records(path, compress=True):
                lists = tf_example_pb2.SequenceExample.FromString(record).feature_lists.feature_list
                clip = {
                    name: np.stack(
                        [
                            np.frombuffer(lists[name].feature[number].bytes_list.value[0], np.uint8)
                            for number in layout.chosen
                        ]
                    ).reshape(FRAMES, layout.side, layout.side, 3)
                    for name in ("rgb", "depth")
                }
                total += checksum(clip["rgb"])
        return total

    def close(self) -> None:
        pass


class TensorFlowArm:
    """tf.data in a process of its own, by whichever Python has TensorFlow: `input_tensorflow.py`."""

    def __init__(self, layout: Layout, authors: bool):
        paths = write_authors(layout) if authors else write_examples(layout)
        self.bytes = _bytes(paths)
        said = {
            "authors": authors,
            "paths": list(map(str, paths)),
            "chosen": layout.chosen,
            "side": layout.side,
            "batch": layout.batch,
            "threads": layout.threads,
        }
        script = Path(__file__).with_name("input_tensorflow.py")
        self._process = subprocess.Popen(
            [os.environ.get("TENSORFLOW_PYTHON", sys.executable), str(script), json.dumps(said)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError(self._process.communicate()[1].strip() or "TensorFlow's process ended")

    def run(self, passes: int) -> int:
        self._process.stdin.write(f"{passes}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(self._process.communicate()[1].strip() or "TensorFlow's process ended")
        return int(answer)

    def close(self) -> None:
        self._process.communicate()


ARMS: dict[str, Callable[[Layout], HallujaxArm | GrainArm | TorchArm | AuthorsArm | TensorFlowArm]] = {
    "hallujax": HallujaxArm,
    "hallujax_kept": lambda layout: HallujaxArm(layout, keep=True),
    "grain_tfds": GrainArm,
    "torch_files": TorchArm,
    "tf_data": lambda layout: TensorFlowArm(layout, authors=False),
    "authors": AuthorsArm,
    "authors_tf": lambda layout: TensorFlowArm(layout, authors=True),
}


def checksum(rgb: np.ndarray) -> int:
    """By which arms are compared: of every eighth pixel `[..., H, W, 3]`, for summing all takes long beside reading."""
    return int(rgb[..., ::8, ::8, :].sum(dtype=np.int64))


def write_authors(layout: Layout) -> list[Path]:
    """GZIP TFRecords of raw frames; depth, as there, as three uint8 channels. Not written twice."""

    def records() -> Iterator[bytes]:
        for clip, label, frames in layout.encoded():
            rgb = [_decode(frame).tobytes() for frame in frames["rgb"]]
            grey = [(_decode(frame) >> 4).astype(np.uint8) for frame in frames["depth"]]
            yield clip_record(
                label, clip, rgb=rgb, depth=[np.repeat(each[..., None], 3, -1).tobytes() for each in grey]
            )

    return _sharded(layout.folder / "authors", records, compress=True)


def write_examples(layout: Layout) -> list[Path]:
    """TFRecords of a clip's JPEG and PNG bytes."""

    def records() -> Iterator[bytes]:
        for clip, label, frames in layout.encoded():
            example = tf_example_pb2.Example()
            example.features.feature["clip"].bytes_list.value.append(clip.encode())
            example.features.feature["label"].int64_list.value.append(label)
            for name in ("rgb", "depth"):
                example.features.feature[name].bytes_list.value.extend(frames[name])
            yield example.SerializeToString()

    return _sharded(layout.folder / "examples", records, compress=False)


def _sharded(folder: Path, records: Callable[[], Iterator[bytes]], *, compress: bool) -> list[Path]:
    if not folder.exists():
        folder.mkdir()
        listed = list(records())
        for start in range(0, len(listed), SHARD):
            write_records(folder / f"{start:06}.tfrecord", listed[start : start + SHARD], compress=compress)
    return sorted(folder.iterdir())


def processor_seconds() -> float:
    """Processor time so far of this process and the children that live."""
    total, ticks = 0, os.sysconf("SC_CLK_TCK")
    waiting = [os.getpid()]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            children = [task.read_text().split() for task in process.glob("task/*/children")]
        except FileNotFoundError:  # it has ended
            continue
        total += int(fields[11]) + int(fields[12])
        waiting += [child for each in children for child in each]
    return total / ticks


def _source(dataset: Path, modality: str):
    (version,) = (dataset / modality).iterdir()
    builder = tfds.builder_from_directory(version)
    return builder.as_data_source(split="frames", decoders={modality: tfds.decode.SkipDecoding()})


def _decode(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture)


def _open(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
