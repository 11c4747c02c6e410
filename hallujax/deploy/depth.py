"""Depth beside RGB at test time, while ADMD's discriminator believes it: clip by clip, depth or its hallucination.

The fused scores are the mean of the RGB streams and of the depth stream that taught the hallucination; where the
discriminator takes the depth features for hallucinated ones more surely than its threshold, the hallucination stands in
for depth. Threshold and systems are those that `hallujax robustness` calibrated and measured (`evaluation.switching`).
"""

import functools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax import paths
from hallujax.data.transforms import encode
from hallujax.deploy.container import one_line
from hallujax.deploy.predictor import Predictor, Scores, Trust, filled
from hallujax.deploy.run import read_run, read_settings
from hallujax.deploy.system import FUSED, Bound, RgbSystem, TrainedSystem, Variables
from hallujax.deploy.video import Clip, fit, fit_depth, open_clip, open_depth
from hallujax.errors import CheckpointError, DataError, UsageError
from hallujax.evaluation.noisy import judge_depth, teacher_of
from hallujax.evaluation.robustness import DISCRIMINATOR
from hallujax.evaluation.robustness_systems import choose_systems
from hallujax.training.checkpoint import read_networks
from hallujax.training.start import build_method

MISSING = 0.1  # share of frames that one modality may have more than the other
SHAPES = 0.02  # by how much their width to height may differ


class DepthPredictor(Predictor):
    """Predicts from RGB and depth; made by `load_with_depth`.

    A clip is a pair: RGB as a `Predictor` takes it, and depth in millimetres, 0 for no return, in line with it: a
    folder of 16-bit pictures, a video of 16 bits, or uint16 `[T, H, W]`. Frames pair by position. Predictions have the
    scores of `depth` too, and `prediction.depth` says whether it was believed.
    """

    def __init__(self, trained: TrainedSystem, admd: str, judge: Variables, calibration: Mapping[str, float]):
        """
        Args:
          trained: the system that does without depth; one of its stages is
          admd: whose teacher and discriminator are
          judge: `{"params", "batch_stats"}`.
          calibration: `threshold` and `false_alarms`; see `Trust`.
        """
        alone = Bound(trained.system, trained.variables)
        super().__init__(trained.system, alone, origin=trained.origin)
        self._calibration = calibration
        step = jax.jit(functools.partial(answer, trained.system, admd))
        self._step = functools.partial(step, alone.variables, jax.device_put(judge))

    def _open(self, clip: Any) -> Clip:
        if not (isinstance(clip, Sequence) and not isinstance(clip, str) and len(clip) == 2):
            raise DataError("a clip with depth is a pair: RGB, and depth in millimetres")
        return RgbAndDepth(open_clip(clip[0]), open_depth(clip[1]), self.system.frame_size)

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        return frame

    def _answers(self, clips: list[np.ndarray], batch_size: int) -> Iterator[tuple[dict[str, Scores], Trust | None]]:
        both = filled(clips, batch_size)
        logits, doubts = self._step(both[..., :3].astype(np.uint8), both[..., 3], self._calibration["threshold"])
        for scores, doubt in zip(self._scores(logits, len(clips)), np.asarray(doubts).tolist(), strict=False):
            yield scores, Trust(doubt, **self._calibration)


def answer(
    system: RgbSystem,
    admd: str,
    variables: Variables,
    judge: Variables,
    rgb: jax.Array,
    depth: jax.Array,
    threshold: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Clip logits `{name: [B, K]}` of all streams, depth's and the fused, and the discriminator's doubt `[B]`.

    Args:
      system, variables: those that do without depth; see `RgbSystem.logits`.
      admd, judge: see `DepthPredictor`.
      rgb: uint8 `[B, T, H, W, 3]`.
      depth: uint16 `[B, T, H, W]`.
      threshold: above it the doubt is too great.
    """
    method = system.methods[admd]
    outputs = system.outputs(variables, rgb)
    scores = system.scores(outputs)
    encoded = encode({"depth": depth}, system.transforms)["depth"]
    teacher, doubt = judge_depth(judge["params"], judge["batch_stats"], encoded, admd=method)
    others = [system.methods[stage].predict(outputs[stage]) for stage in outputs if stage != admd]
    trusted = jnp.mean(jnp.stack([teacher, *others]), axis=0)
    fused = jnp.where((doubt > threshold)[:, None], scores[FUSED], trusted)
    return {**scores, FUSED: fused, teacher_of(method): teacher}, doubt


class RgbAndDepth:
    """A clip whose frames are uint16 `[H, W, 4]`, RGB and millimetres, of the networks' size.

    Raises DataError if they differ in length by more than a tenth, or in shape.
    """

    def __init__(self, rgb: Clip, depth: Clip, size: tuple[int, int]):
        counts = len(rgb.times), len(depth.times)
        if max(counts) - min(counts) > MISSING * max(counts):
            raise DataError(f"RGB has {counts[0]} frames and depth {counts[1]}: they are not of one clip")
        self._rgb, self._depth, self._size = rgb, depth, size
        self.times, self.unit = rgb.times[: min(counts)], rgb.unit
        self.end = rgb.end if len(self.times) == counts[0] else float(rgb.times[min(counts)])

    def frames(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        for rgb, depth in zip(self._rgb.frames(wanted), self._depth.frames(wanted), strict=True):
            shapes = [frame.shape[1] / frame.shape[0] for frame in (rgb, depth)]
            if abs(shapes[0] - shapes[1]) > SHAPES * max(shapes):
                sizes = " and ".join(f"{frame.shape[1]}x{frame.shape[0]}" for frame in (rgb, depth))
                raise DataError(f"RGB and depth of {sizes} pixels are not in line: their shapes differ")
            yield np.dstack([fit(rgb, self._size), fit_depth(depth, self._size)])


def load_with_depth(path: str | pathlib.Path, system: str | None = None) -> DepthPredictor:
    """A predictor from a run that `hallujax robustness` has calibrated; `path` and `system` as there and for `load`.

    Raises:
      UsageError: if it is an export (these hold no depth), there is no such system, or no calibration of it.
      CheckpointError: if a file or a network is damaged.
    """
    path = paths.reach(paths.as_path(path))
    if (path / "SHA256SUMS").exists():
        raise UsageError(f"{path} is an export, which holds no depth stream; give the run it was made from")
    homes = [path] if (path / "run.json").exists() else sorted(file.parent for file in path.glob("seed*/run.json"))
    if not homes:
        read_run(path, system)  # which says what is wrong
    settings, experiment = read_settings(homes[0])
    classes = len(settings["dataset"]["classes"])
    methods = {name: build_method(stage, classes) for name, stage in experiment.stages.items()}
    systems = choose_systems(experiment, methods, system)
    trained = read_run(path, systems.fallback.name)
    calibration = read_calibration(trained, systems.fallback.name)
    method = methods[systems.admd]
    judge = read_networks(trained.workdir / systems.admd, (teacher_of(method), "discriminator"))
    return DepthPredictor(trained, systems.admd, judge, calibration)


def read_calibration(trained: TrainedSystem, fallback: str) -> dict[str, float]:
    """A seed's `threshold` of the discriminator, and its `false_alarms`, from the run's or the table's robustness.json.

    Raises:
      UsageError: if there is none for this seed, system and dataset.
      CheckpointError: if the file is damaged.
    """
    seed, fingerprint = trained.facts["seed"], trained.facts["dataset_fingerprint"]
    for folder in (trained.workdir, paths.absolute(trained.workdir).parent):
        path = folder / "robustness.json"
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if (found["fallback"], found["dataset"]["fingerprint"]) != (fallback, fingerprint):
                continue
            for line in found["thresholds"]:
                if (line["seed"], line["system"]) == (seed, DISCRIMINATOR):
                    return {"threshold": float(line["threshold"]), "false_alarms": float(found["false_alarms"])}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({one_line(error)}): run hallujax robustness again") from error
    raise UsageError(
        f"when to believe depth is not known for {fallback!r} of {trained.workdir}: "
        f"hallujax robustness --workdir {trained.workdir} calibrates it"
    )
