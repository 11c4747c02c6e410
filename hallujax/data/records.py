"""Reads prepared datasets: which clips there are, and the frames of one modality of a batch of them.

The format is that of `data_prep/writer.py`: ArrayRecord files of one frame of one modality a record, a clip
index and a description. Nothing here imports JAX or TensorFlow, so that decoding threads and processes stay
light.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hallujax import paths, sealed
from hallujax.data.examples import Example
from hallujax.data.fingerprint import PREPARE, fingerprint, how_to_prepare
from hallujax.data.local_copy import local_copy
from hallujax.data.pictures import decode_picture
from hallujax.data.shards import Shards, count_records
from hallujax.errors import DamagedRecordError, DataError


class PreparedDataset:
    """A prepared dataset, opened with `open`; may be read from several threads at once.

    Attributes:
        name, classes: its name and the names of its labels. info: dataset.json as a dict (preset, seed,
        intrinsics, ...). index: structured array, one row a clip: `clip`, `label`, `subject`, `camera`,
        `setup`, `repetition`, and
            for each modality m `m_first` (its first record) and `m_length` (frames; 0 when the clip lacks
            it).
        modalities: names of the modalities.
        frame_size: (height, width) of pictures.
        fingerprint: SHA-256 over shards, index and classes, in hexadecimal.
    """

    def __init__(self, directory: pathlib.Path, info: dict, index: np.ndarray, sources: dict):
        self.directory, self.info = directory, info
        self.index = np.asarray(index)  # still in its file: np.memmap alone is slow to index
        self._decoded: dict[str, tuple[np.ndarray, np.ndarray]] | None = None
        self.name: str = info["name"]
        self.classes: list[str] = info["classes"]
        self.modalities: tuple[str, ...] = tuple(info["modalities"])
        self.frame_size: tuple[int, int] = tuple(info["frame_size"])
        self.fingerprint: str = info["fingerprint"]
        self._sources = sources
        self._stamps: dict[pathlib.Path, _Stamp] = {}

    @classmethod
    def open(cls, directory) -> "PreparedDataset":
        """Opens ROOT/NAME, and checks sizes and counts of files and the whole index; digests are for `verify`.

        One at gs://BUCKET/ROOT/NAME is copied to a disk first, unless it is there; see `local_copy`.

        It costs 0.2 ms a shard or less.

        Raises:
            DataError: something is missing, truncated, or contradicts dataset.json; the first such shard is named, and
                how many there are.
        """
        directory = paths.as_path(directory)
        if paths.in_bucket(directory):
            directory = local_copy(directory)
        try:
            info = json.loads((directory / "dataset.json").read_text())
            index = np.load(directory / "clips.npy", mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            missing = pathlib.Path(error.filename).name
            raise DataError(
                f"no prepared dataset at {directory} (no {missing}): {how_to_prepare(directory)}"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{directory}: dataset.json or clips.npy is damaged ({error}): {PREPARE} again") from error
        try:
            if not sealed.is_whole(info):
                raise DataError(f"{directory}/dataset.json is damaged: it is not what was written; {PREPARE} again")
            _check_index(directory, info, index)
            stamps = _stamps(directory, info)
            sources = {name: _open_shards(directory, name, entry) for name, entry in info["modalities"].items()}
            dataset = cls(directory, info, index, sources)
            dataset._stamps = stamps
            _check_fingerprint(directory, info, stamps)
            return dataset
        except KeyError as error:
            raise DataError(f"{directory}/dataset.json lacks {error}: {PREPARE} again") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{directory}: dataset.json or clips.npy is damaged ({error}): {PREPARE} again") from error

    def __len__(self) -> int:
        return len(self.index)

    def keep_decoded(self) -> None:
        """From now on every frame is decoded once and then kept in memory, as many bytes as its pixels."""
        if self._decoded is None:
            self._decoded = {}
            for name, entry in self.info["modalities"].items():
                # Pages that are never written cost nothing: a modality that nobody reads takes no memory.
                frames = np.empty((entry["records"], *entry["shape"]), _DTYPES[entry["kind"]])
                self._decoded[name] = frames, np.zeros(entry["records"], bool)

    def length(self, modality: str) -> np.ndarray:
        """Frames [clips] of `modality`; 0 where a clip lacks it."""
        self._source(modality)
        return self.index[f"{modality}_length"]

    def clip_id(self, row: int) -> str:
        return self.index["clip"][row].decode()

    def read(self, modality: str, rows: Sequence[int], frames) -> np.ndarray:
        """Decoded frames of a batch of clips.

        Args:
            rows: [B] rows of `index`.
            frames: [B,T] frame numbers within each clip.

        Returns:
            [B,T,...]: uint8 [H,W,3] for JPEG and 8-bit PNG, uint16 [H,W] for 16-bit PNG, float32 of the modality's
            shape.

        Raises:
            DataError: a frame the clip does not have, or a damaged record.
        """
        self._source(modality)
        rows, frames = np.asarray(rows, np.int64), np.asarray(frames, np.int64)
        lengths = self.index[f"{modality}_length"][rows]
        outside = (frames < 0) | (frames >= lengths[:, None])
        if outside.any():
            b, t = np.argwhere(outside)[0]
            raise DataError(
                f"{self.name}: clip {self.clip_id(rows[b])} has {lengths[b]} frames of {modality}, "
                f"frame {frames[b, t]} was asked for"
            )
        clips, wanted = np.repeat(rows, frames.shape[1]), frames.ravel()
        if self._decoded is None:
            out = self._decode_frames(modality, clips, wanted)
        else:
            kept, known = self._decoded[modality]
            records = self.index[f"{modality}_first"][clips] + wanted
            new = ~known[records]
            if new.any():
                # Two threads may decode the same frame: they write the same bytes, and mark it only afterwards.
                kept[records[new]] = self._decode_frames(modality, clips[new], wanted[new])
                known[records[new]] = True
            out = kept[records]
        return out.reshape(*frames.shape, *out.shape[1:])

    def _decode_frames(self, modality: str, rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Frame `frames[i]` of clip `rows[i]`, [N,...]."""
        source, entry = self._source(modality), self.info["modalities"][modality]
        records = (self.index[f"{modality}_first"][rows] + frames).tolist()
        out = np.empty((len(rows), *entry["shape"]), _DTYPES[entry["kind"]])
        for i, record in enumerate(records):
            problem = "unreadable"
            try:
                example = source[record]
                problem = "damaged"
                self._decode(modality, entry["kind"], example, rows[i], frames[i], out[i])
            except Exception as error:  # array_record, protobuf and Pillow raise many kinds over damaged bytes
                where = self._where(modality, rows[i], frames[i])
                raise DamagedRecordError(f"{where}: {problem} record ({_one_line(error)})") from error
        return out

    def changed(self) -> str:
        """The first file that is no longer what it was when the dataset was opened, or nothing.

        Size, time and inode say so at the price of a `stat` a file; a file that was only touched or copied is told by
        its digest.
        """
        for path, stamp in self._stamps.items():
            try:
                now = _Stamp.of(path, stamp.sha256)
                if now != stamp and _sha256(path) != stamp.sha256:
                    return f"{path} is no longer what it was"
            except OSError as error:
                return f"{path} can no longer be read ({error.strerror})"
            self._stamps[path] = now
        return ""

    def verify(self) -> list[str]:
        """Compares every shard's bytes with their digests and re-checks the index; returns what is wrong, a
        line each."""
        findings = []
        for entry in self.info["modalities"].values():
            for shard in entry["shards"]:
                if _sha256(self.directory / shard["file"]) != shard["sha256"]:
                    findings.append(f"{self.directory / shard['file']}: its bytes have changed since it was written")
        try:
            _check_index(self.directory, self.info, self.index)
        except DataError as error:
            findings.append(str(error))
        return findings

    def _source(self, modality: str):
        if modality not in self._sources:
            raise DataError(f"{self.name} has no modality {modality!r}: it has {', '.join(self.modalities)}")
        return self._sources[modality]

    def _decode(self, modality: str, kind: str, example: bytes, row: int, frame: int, out: np.ndarray) -> None:
        feature = Example.FromString(example).features.feature
        clip = feature["clip"].bytes_list.value[0]
        if clip != self.index["clip"][row] or feature["frame"].int64_list.value[0] != frame:
            found = f"{clip.decode(errors='replace')}, frame {feature['frame'].int64_list.value[0]}"
            raise ValueError(f"it belongs to clip {found}")
        if kind == "floats":
            out[...] = np.array(feature[modality].float_list.value, np.float32).reshape(out.shape)
            if not np.isfinite(out).all():
                raise ValueError("it holds numbers that are not finite")
        else:
            decode_picture(feature[modality].bytes_list.value[0], out)

    def _where(self, modality: str, row: int, frame: int) -> str:
        record = int(self.index[f"{modality}_first"][row] + frame)
        for shard in self.info["modalities"][modality]["shards"]:
            if record < shard["records"]:
                break
            record -= shard["records"]
        return f"{self.directory / shard['file']}, {modality} of clip {self.clip_id(row)}, frame {frame}"


_DTYPES = {"jpeg": np.uint8, "png": np.uint8, "png16": np.uint16, "floats": np.float32}


class _Stamp(NamedTuple):
    """By what a file is known again."""

    size: int
    time: int
    inode: int
    sha256: str

    @classmethod
    def of(cls, path: pathlib.Path, sha256: str) -> "_Stamp":
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, sha256)


def _stamps(directory: pathlib.Path, info: dict) -> dict[pathlib.Path, _Stamp]:
    """Every file of the dataset; raises DataError if shards are missing or of another size than dataset.json says."""
    files = [directory / "dataset.json", directory / "clips.npy"]
    stamps = {path: _Stamp.of(path, _sha256(path)) for path in files}
    wrong = []
    for entry in info["modalities"].values():
        for shard in entry["shards"]:
            path = directory / shard["file"]
            try:
                stamps[path] = stamp = _Stamp.of(path, shard["sha256"])
            except FileNotFoundError:
                wrong.append(f"{path} is missing")
                continue
            if stamp.size != shard["bytes"]:
                wrong.append(f"{path} is truncated or changed: {stamp.size} of {shard['bytes']} bytes")
    _raise_first(wrong)
    return stamps


def _check_fingerprint(directory: pathlib.Path, info: dict, stamps: dict[pathlib.Path, _Stamp]) -> None:
    """That the index is the one that was written: a flipped bit may make a valid label of another."""
    if fingerprint(info, stamps[directory / "clips.npy"].sha256) != info["fingerprint"]:
        raise DataError(f"{directory}: clips.npy is not the index that dataset.json was written with; {PREPARE} again")


def _open_shards(directory: pathlib.Path, modality: str, entry: dict) -> Shards:
    """All shards of a modality. A truncated ArrayRecord opens with no records and no error: they are counted."""
    paths = [str(directory / shard["file"]) for shard in entry["shards"]]
    try:
        shards = Shards(paths)
        if len(shards) == entry["records"] == sum(shard["records"] for shard in entry["shards"]):
            return shards
    except (RuntimeError, ValueError):
        pass  # which one it is, is found below
    wrong = {path: _miscounted(shard, path) for path, shard in zip(paths, entry["shards"], strict=True)}
    _raise_first([f"{path}: {what}" for path, what in wrong.items() if what])
    raise DataError(f"{directory}/{modality}: {len(shards)} records, dataset.json says {entry['records']}")


def _miscounted(shard: dict, path: str) -> str:
    """What is wrong with a shard's count of records, if anything."""
    try:
        records = count_records(path)
    except Exception as error:  # array_record raises several kinds, closing a damaged file too
        return f"unreadable ({_one_line(error)})"
    return "" if records == shard["records"] else f"{records} records, dataset.json says {shard['records']}"


def _raise_first(wrong: Sequence[str]) -> None:
    if wrong:
        more = f" ({len(wrong)} shards are missing or damaged)" if len(wrong) > 1 else ""
        raise DataError(f"{wrong[0]}{more}: {PREPARE} again")


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_index(directory: pathlib.Path, info: dict, index: np.ndarray) -> None:
    """Labels name a class, and every clip's records exist."""
    missing = {"clip", "label", "subject", "camera", "setup", "repetition"} - set(index.dtype.names or ())
    if missing:
        raise DataError(f"{directory}/clips.npy lacks {', '.join(sorted(missing))}: {PREPARE} again")
    wrong = (index["label"] < 0) | (index["label"] >= len(info["classes"]))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{directory}/clips.npy: clip {index['clip'][row].decode()} has label {index['label'][row]}, "
            f"there are {len(info['classes'])} classes"
        )
    for name, entry in info["modalities"].items():
        first, length = index[f"{name}_first"], index[f"{name}_length"]
        wrong = (length < 0) | (first < 0) | (first + length > entry["records"])
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{directory}/clips.npy: clip {index['clip'][row].decode()} points at {name} records "
                f"{first[row]} to {first[row] + length[row] - 1}, there are {entry['records']}"
            )
