"""Evaluation: the clip logits of a split, seen through the test modalities alone."""

import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from hallujax import paths
from hallujax.data.pipeline import ClipLoader, evaluation_batches
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, encode
from hallujax.errors import CheckpointError, DataError, NotFiniteError
from hallujax.evaluation.metrics import accuracy
from hallujax.experiment import DataOptions
from hallujax.methods import Method
from hallujax.models.streams import Networks
from hallujax.training import processes
from hallujax.training.sharding import check_batch_size, lay_out, own_part, replicated, split_over_data, to_devices

_NAMED = 8  # clips in an error


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says of a split.

    Attributes:
      clip: ids, `[N]` bytes.
      label: `[N]`.
      logits: clip logits `[N, K]` float32.
    """

    clip: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    @property
    def accuracy(self) -> float:
        return accuracy(self.logits, self.label)

    def save(self, path: pathlib.Path) -> None:
        """Writes an .npz, whole or not at all, with a checksum that says too whose it is."""
        written = io.BytesIO()
        np.savez(written, clip=self.clip, label=self.label, logits=self.logits, sha256=self._seal(path))
        paths.write(path, written.getvalue())

    @classmethod
    def load(cls, path: pathlib.Path) -> "Predictions":
        """What `save` wrote. Files of before there were checksums have none, and are taken as they are.

        Raises:
          FileNotFoundError: if there is no such file.
          CheckpointError: if it is damaged, or of another stage or split.
        """
        remedy = "`hallujax evaluate` writes it again"
        try:
            with np.load(io.BytesIO(paths.read(path)), allow_pickle=False) as arrays:
                found = cls(arrays["clip"], arrays["label"], arrays["logits"])
                seal = arrays["sha256"] if "sha256" in arrays else None
        except FileNotFoundError:
            raise
        except Exception as error:  # zipfile and NumPy's reader raise many kinds for a damaged file
            raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error
        if seal is not None and not np.array_equal(seal, found._seal(path)):
            raise CheckpointError(f"{path} is damaged: it is not what was written there; {remedy}")
        return found

    def _seal(self, path: pathlib.Path) -> np.ndarray:
        digest = hashlib.sha256(f"{paths.absolute(path).parent.name}/{path.name}".encode())
        for array in (self.clip, self.label, self.logits):
            digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return np.frombuffer(digest.digest(), np.uint8)


def fuse(members: list[Predictions]) -> Predictions:
    """The mean of several models' clip logits on the same clips (both papers' fusion).

    Raises:
      DataError: if the members were not evaluated on the same clips, or know different classes.
    """
    first = members[0]
    for other in members[1:]:
        if not np.array_equal(first.clip, other.clip) or first.logits.shape != other.logits.shape:
            raise DataError("systems evaluated on different clips or classes cannot be fused or compared")
    return Predictions(first.clip, first.label, np.mean([member.logits for member in members], axis=0))


def check_comparable(found: Mapping[str, Predictions]) -> None:
    """Refuses runs that no one table can hold.

    Args:
      found: `{name of the run: its predictions of one split}`.

    Raises:
      DataError: naming two that were evaluated on different clips, or know different classes.
    """
    names = list(found)
    for name in names[1:]:
        first, other = found[names[0]], found[name]
        if not np.array_equal(first.clip, other.clip) or first.logits.shape[1] != other.logits.shape[1]:
            said = [f"{len(each.clip)} clips of {each.logits.shape[1]} classes" for each in (first, other)]
            same = " (others)" if said[0] == said[1] else ""
            raise DataError(
                f"{names[0]} and {name} do not belong in one table: {said[0]} were predicted there, {said[1]}{same} "
                "here; train both on the same dataset and protocol"
            )


def seen_by(tested_on: Iterable[str], row: Iterable[str]) -> tuple[str, ...]:
    """Which of a stage's test modalities a row that is tested on `row` shows it; none for all of them."""
    seen = set(tested_on) & set(row)
    return () if seen == set(tested_on) else tuple(sorted(seen))


def predictions_path(folder: pathlib.Path, split: str, seen: tuple[str, ...] = ()) -> pathlib.Path:
    """Where a stage's predictions are kept, from all its test modalities or from the few of `seen_by`."""
    return folder / f"predictions_{split}{'_' if seen else ''}{'+'.join(seen)}.npz"


def evaluation_step(
    params: dict, batch_stats: dict, batch: dict[str, jax.Array], *, method: Method, transforms: TransformOptions
) -> jax.Array:
    """Clip logits `[B, K]`, from the method's test modalities alone: everything else in the batch is dropped."""
    seen = {modality: batch[modality] for modality in method.test_modalities}
    nets = Networks(method.networks, params, batch_stats)
    return method.predict(method.forward(nets, encode(seen, transforms)))


class Evaluator:
    """Runs one method over splits; compiled once."""

    def __init__(
        self,
        method: Method,
        dataset: PreparedDataset,
        options: DataOptions,
        transforms: TransformOptions,
        mesh: jax.sharding.Mesh,
    ):
        check_batch_size(options.evaluation_batch_size, mesh, "data.evaluation_batch_size")
        # Privileged data cannot leak: the loader never reads what the method is not tested with.
        self._loader = ClipLoader(
            dataset,
            method.test_modalities,
            frames=options.frames,
            sampling="uniform",
            seed=0,
            rgb_noise=options.rgb_noise,
        )
        self._dataset, self._batch_size = dataset, options.evaluation_batch_size
        self._mesh = mesh
        # Every process gets all logits: validation decides what each of them does next.
        self._step = jax.jit(
            functools.partial(evaluation_step, method=method, transforms=transforms), out_shardings=replicated(mesh)
        )

    def predict(self, params: dict, batch_stats: dict, rows: np.ndarray) -> Predictions:
        """Predictions of every clip of `rows`; the variables may lie anywhere.

        Raises:
          NotFiniteError: if a logit is not, naming the clips.
          DataError: if a record is damaged: a score over fewer clips would not be the protocol's.
        """
        params, batch_stats = lay_out((params, batch_stats), replicated(self._mesh))
        split, logits = split_over_data(self._mesh), []
        part = own_part(self._batch_size, split)
        for batch in evaluation_batches(self._loader, rows, batch_size=self._batch_size, part=part):
            logits.append(np.asarray(self._step(params, batch_stats, to_devices(batch, split))))
            processes.progress("evaluation")
        logits = np.concatenate(logits)[: len(rows)]  # without what filled up the last batch
        index = self._dataset.index
        predictions = Predictions(np.array(index["clip"][rows]), np.array(index["label"][rows]), logits)
        infinite = ~np.isfinite(logits).all(axis=1)
        if infinite.any():
            some = ", ".join(clip.decode() for clip in predictions.clip[infinite][:_NAMED])
            more = f" and {infinite.sum() - _NAMED} more" if infinite.sum() > _NAMED else ""
            raise NotFiniteError(f"{infinite.sum()} of {len(rows)} clips have logits that are not finite: {some}{more}")
        return predictions


def evaluators(method: Method, *arguments: Any) -> dict[tuple[str, ...], Evaluator]:
    """A method's evaluators: `()` sees all its test modalities, the others fewer; `arguments` as for `Evaluator`."""
    narrowed = {
        seen_by(method.test_modalities, few): dataclasses.replace(method, test_modalities=few)
        for few in method.also_tested_on
    }
    return {seen: Evaluator(version, *arguments) for seen, version in {(): method, **narrowed}.items()}
