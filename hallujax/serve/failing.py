"""Failing depth, watched: what an ADMD stage's streams make of a clip as its depth gets worse, and when to switch."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hallujax.data.noise import NOISES, Noise, encode_noisy
from hallujax.data.pipeline import NumpyBatch, evaluation_batches
from hallujax.data.transforms import TransformOptions, encode
from hallujax.evaluation import finished
from hallujax.evaluation.evaluate import evaluation_step
from hallujax.evaluation.noisy import teacher_of
from hallujax.evaluation.robustness_systems import choose_systems
from hallujax.evaluation.switching import calibrate, switch
from hallujax.methods import Method, clip_logits
from hallujax.models.streams import Networks
from hallujax.serve.benchmark import Benchmark, shown_depth
from hallujax.training.start import build_method

Array = jax.Array

FALSE_ALARMS = 0.05  # of clean validation clips, as `hallujax robustness` has it
STEPS = 11  # of a noise's slider, from none
VALIDATION_CLIPS = 512  # at most: the start waits for them
KINDS: Mapping[str, str] = {
    "dropout": "holes and lost pixels, as a Kinect's",
    "multiplicative": "every value times a random factor",
    "blur": "blur",
    "missing": "lost frames",
}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One clip under one kind of noise, at STEPS levels.

    Attributes:
      levels: `[L]`, growing from 0.
      depth: what the depth network sees, uint8 `[L, T, H, W, 3]`.
      doubt: `[L]`, the discriminator's probability that the depth features are hallucinated.
      switched: `[L]`, whether that is above the threshold.
      trusted, fallback, chosen: probabilities `[L, K]` of RGB with depth, of RGB with the hallucination, and of the
        switch between them.
      features: `[L, 2]`, the depth features on the axes of `Features`.
    """

    levels: np.ndarray
    depth: np.ndarray
    doubt: np.ndarray
    switched: np.ndarray
    trusted: np.ndarray
    fallback: np.ndarray
    chosen: np.ndarray
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class Features:
    """Clip features (means over frames) on the two axes along which real and hallucinated ones vary most.

    Attributes:
      mean, axes: `[D]` and `[2, D]` of the projection.
      explained: share of the variance that the axes hold.
      real, hallucinated: `[N, 2]` of validation clips.
      label: their classes, `[N]`.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: float
    real: np.ndarray
    hallucinated: np.ndarray
    label: np.ndarray

    def project(self, features: np.ndarray) -> np.ndarray:
        """`[..., 2]` of `[..., D]`."""
        return (features - self.mean) @ self.axes.T


def judge(params: dict, batch_stats: dict, batch: Mapping[str, Array], *, admd: Method) -> dict[str, Array]:
    """What an ADMD stage makes of encoded `depth` `[B, ...]` or `rgb`: features `[B, D]`, logits `[B, K]`, doubt `[B]`.

    `real` and `teacher` and `doubt` are there with depth, `hallucinated` and `student` with RGB.
    """
    teacher = teacher_of(admd)
    outputs = admd.forward(Networks(admd.networks, params, batch_stats), batch)
    found = {}
    if "depth" in batch:
        found["real"], found["teacher"] = outputs[teacher].features.mean(axis=1), clip_logits(outputs[teacher])
        found["doubt"] = jax.nn.softmax(outputs[f"discriminator/{teacher}"])[..., -1].mean(axis=1)
    if "rgb" in batch:
        found["hallucinated"] = outputs["hallucination"].features.mean(axis=1)
        found["student"] = admd.predict(outputs)
    return found


def noisy_depth(
    depth: Array, place: Array, levels: Array, key: Array, *, noise: Noise, transforms: TransformOptions
) -> Array:
    """One clip's depth `[T, H, W]`, corrupted by the same draw at every level and encoded: `[L, T, h, w, 3]`."""
    batch = {"depth": depth[None], "sample": place[None]}
    corrupt = functools.partial(encode_noisy, noise=noise, options=transforms)
    return jax.vmap(lambda level: corrupt(batch, key, level)["depth"][0])(levels)


class FailingDepth:
    """The networks of a run that a switch from depth to its hallucination needs.

    Attributes:
      threshold: of the doubt, above which depth is given up.
      calibrated_on: how many validation clips that comes from.
      trusted, fallback: names of the two systems.
      features: of those clips.
    """

    def __init__(self, benchmark: Benchmark, run: pathlib.Path):
        """Reads the networks of the workdir `run`, and lets them see the validation clips.

        Raises:
          UsageError: if no system of the run averages an ADMD stage with RGB; see `choose_systems`.
          DataError, CheckpointError: if networks or clips cannot be read, or do not belong together.
        """
        experiment, dataset = benchmark.experiment, benchmark.dataset
        methods = {name: build_method(stage, len(dataset.classes)) for name, stage in experiment.stages.items()}
        systems = choose_systems(experiment, methods, None)
        self.trusted, self.fallback = systems.trusted, systems.fallback.name
        self._benchmark, self._transforms = benchmark, experiment.transforms
        restored = {stage: finished.restore(run / stage, dataset) for stage in (systems.admd, *systems.rgb)}
        networks = {stage: jax.device_put((each["params"], each["batch_stats"])) for stage, each in restored.items()}
        self._networks = networks[systems.admd]
        self._judge = jax.jit(functools.partial(judge, admd=methods[systems.admd]))
        self._encode = jax.jit(functools.partial(encode, options=self._transforms))
        self._rgb = [
            functools.partial(
                jax.jit(functools.partial(evaluation_step, method=methods[stage], transforms=self._transforms)),
                *networks[stage],
            )
            for stage in systems.rgb
        ]
        self._noisy = {
            kind: jax.jit(functools.partial(noisy_depth, noise=NOISES[kind], transforms=self._transforms))
            for kind in KINDS
        }
        self.threshold, self.calibrated_on, self.features = self._calibrate()

    def warm_up(self) -> None:
        """Compiles every kind of noise, and the networks at the sizes that requests bring."""
        clip = self._benchmark.batch(next(iter(self._benchmark.clips.values())))
        for kind in KINDS:
            self.sweep(clip, kind)
        self.compare(clip)

    def compare(self, clip: NumpyBatch) -> dict[str, np.ndarray]:
        """Features of a clip, from clean depth (`real`) and `hallucinated`, on the axes of `features`, `[2]` each."""
        found = self._judge(*self._networks, self._encode({name: clip[name] for name in ("rgb", "depth")}))
        return {name: self.features.project(np.asarray(found[name][0])) for name in ("real", "hallucinated")}

    def sweep(self, clip: NumpyBatch, kind: str) -> Sweep:
        """A clip, a batch of one, under noise of one of KINDS, from none to where little of the depth is left."""
        levels = np.linspace(0, strongest(kind), STEPS, dtype=np.float32)
        key = jax.random.fold_in(jax.random.key(0), zlib.crc32(kind.encode()))  # the noise of `hallujax robustness`
        depth = self._noisy[kind](clip["depth"][0], clip["sample"][0], levels, key)
        seen = jax.tree.map(np.asarray, self._judge(*self._networks, {"depth": depth}))
        student = self._judge(*self._networks, {"rgb": self._encode({"rgb": clip["rgb"]})["rgb"]})["student"]
        rgb = [np.asarray(predict({"rgb": clip["rgb"]})) for predict in self._rgb]
        trusted = np.mean([seen["teacher"], *(np.repeat(each, STEPS, 0) for each in rgb)], axis=0)
        fallback = np.repeat(np.mean([np.asarray(student), *rgb], axis=0), STEPS, 0)
        return Sweep(
            levels,
            shown_depth(np.asarray(depth), self._transforms),
            seen["doubt"],
            seen["doubt"] > self.threshold,
            softmax(trusted),
            softmax(fallback),
            softmax(switch(trusted, fallback, seen["doubt"], self.threshold)),
            self.features.project(seen["real"]),
        )

    def _calibrate(self) -> tuple[float, int, Features]:
        rows, options = self._benchmark.rows["validation"], self._benchmark.experiment.data
        if len(rows) > VALIDATION_CLIPS:
            rows = rows[np.linspace(0, len(rows) - 1, VALIDATION_CLIPS).astype(int)]
        found: list[dict[str, Any]] = []
        for batch in evaluation_batches(self._benchmark.loader, rows, batch_size=options.evaluation_batch_size):
            kept = batch["mask"] > 0
            seen = self._judge(*self._networks, self._encode({name: batch[name] for name in ("rgb", "depth")}))
            found.append(jax.tree.map(lambda x, kept=kept: np.asarray(x)[kept], seen))
        seen = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
        labels = np.asarray(self._benchmark.dataset.index["label"][rows])
        threshold = calibrate(seen["doubt"], FALSE_ALARMS)
        return threshold, len(rows), principal(seen["real"], seen["hallucinated"], labels)


def principal(real: np.ndarray, hallucinated: np.ndarray, label: np.ndarray) -> Features:
    """The two principal axes of real and hallucinated features `[N, D]` together."""
    both = np.concatenate([real, hallucinated]).astype(np.float64)
    mean = both.mean(axis=0)
    _, sizes, axes = np.linalg.svd(both - mean, full_matrices=False)
    explained = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-30))
    axes = axes[:2]
    return Features(mean, axes, explained, (real - mean) @ axes.T, (hallucinated - mean) @ axes.T, label)


def strongest(kind: str) -> float:
    """The highest level of a kind of noise; frames may all be lost, as under `blank`."""
    same = [noise for noise in NOISES.values() if noise.corrupt is NOISES[kind].corrupt]
    return max(level for noise in same for level in noise.levels)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[..., K]`."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
