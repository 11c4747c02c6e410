"""Evaluation with failing depth: every noise level in one pass over the clips."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.data.noise import NOISES, encode_noisy
from hallujax.data.pipeline import ClipLoader, evaluation_batches
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, encode
from hallujax.experiment import DataOptions
from hallujax.methods import Method, clip_logits
from hallujax.models import StreamOutput
from hallujax.models.streams import Networks
from hallujax.training.sharding import check_batch_size, replicated, split_over_data, to_devices

Array = jax.Array
Condition = tuple[str, float]  # kind of noise, level
CLEAN: Condition = ("clean", 0.0)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What is said of N clips under one condition.

    Attributes:
      stages: `{stage: clip logits [N, K]}` of the systems that see RGB and depth.
      teacher: clip logits `[N, K]` of the network that ADMD's discriminator knows as real.
      fake: `[N]`, the discriminator's probability of "hallucinated" for that network's features, mean over frames.
    """

    stages: Mapping[str, np.ndarray]
    teacher: np.ndarray
    fake: np.ndarray


def teacher_of(admd: Method) -> str:
    """The frozen stream of an ADMD method."""
    return next(network for network in admd.modalities if network not in admd.players)


def judge_depth(params: dict, batch_stats: dict, depth: Array, *, admd: Method) -> tuple[Array, Array]:
    """The teacher's clip logits `[B, K]` and the mean over frames of "hallucinated" `[B]`, of encoded `depth`.

    The discriminator gets features and positions as in training, and runs on stored statistics where it has any.
    """
    teacher = teacher_of(admd)
    outputs = admd.forward(Networks(admd.networks, params, batch_stats), {"depth": depth})
    judged = outputs[f"discriminator/{teacher}"]
    return clip_logits(outputs[teacher]), jax.nn.softmax(judged)[..., -1].mean(axis=1)


def rgb_streams(params: dict, batch_stats: dict, rgb: Array, *, method: Method) -> dict[str, StreamOutput]:
    """What the streams that see RGB say of encoded `rgb`, without their maps.

    Not of one declared before a stream of depth, to which it may give its maps.
    """
    nets = Networks(method.networks, params, batch_stats)
    others = [i for i, modality in enumerate(method.modalities.values()) if modality != "rgb"]
    return {name: nets(name, rgb).replace(maps={}) for name in list(method.modalities)[max(others, default=-1) + 1 :]}


def predict_knowing(
    params: dict, batch_stats: dict, batch: dict[str, Array], known: dict[str, StreamOutput], *, method: Method
) -> Array:
    """Clip logits `[B, K]` of an encoded batch, with the outputs of streams that are `known` already."""
    nets = _Knowing(Networks(method.networks, params, batch_stats), known)
    return method.predict(method.forward(nets, batch))


class _Knowing:
    """Networks some of which have answered before; one that takes another stream's maps is asked again."""

    def __init__(self, nets: Networks, known: Mapping[str, StreamOutput]):
        self._nets, self._known = nets, known

    def __call__(self, name: str, *inputs: Any, **arguments: Any) -> Any:
        if name in self._known and all(argument is None for argument in arguments.values()):
            return self._known[name]
        return self._nets(name, *inputs, **arguments)


class NoisyEvaluator:
    """Runs the streams that see depth over clips whose depth fails in every way asked for.

    Frames are read once and RGB streams run once a batch, whatever the number of conditions; compiled once for all
    seeds.
    """

    def __init__(
        self,
        admd: tuple[str, Method],
        stages: Mapping[str, Method],
        dataset: PreparedDataset,
        options: DataOptions,
        transforms: TransformOptions,
        mesh: jax.sharding.Mesh,
    ):
        """`admd` is a stage's name and method, `stages` are those that see depth at test."""
        check_batch_size(options.evaluation_batch_size, mesh, "data.evaluation_batch_size")
        self._loader = ClipLoader(
            dataset, ("rgb", "depth"), frames=options.frames, sampling="uniform", seed=0, rgb_noise=options.rgb_noise
        )
        self._batch_size, self._mesh = options.evaluation_batch_size, mesh
        self._admd, method = admd
        self._judge = jax.jit(functools.partial(judge_depth, admd=method))
        self._rgb = {name: jax.jit(functools.partial(rgb_streams, method=each)) for name, each in stages.items()}
        self._predict = {
            name: jax.jit(functools.partial(predict_knowing, method=each)) for name, each in stages.items()
        }
        self._clean = jax.jit(functools.partial(encode, options=transforms))
        self._noisy = {
            name: jax.jit(functools.partial(encode_noisy, noise=noise, options=transforms))
            for name, noise in NOISES.items()
        }

    def __call__(
        self,
        networks: Mapping[str, dict[str, Any]],
        rows: np.ndarray,
        conditions: Sequence[Condition],
        advance: Callable[[int], None],
    ) -> dict[Condition, Answers]:
        """Answers to every clip of `rows` under every condition.

        Args:
          networks: `{stage: {"params", "batch_stats"}}`, wherever they lie.
          rows: of the clip index.
          conditions: kinds of `data.noise.NOISES` with a level, and CLEAN.
          advance: told the number of clips done with, under all conditions.
        """
        variables = {
            stage: jax.device_put((found["params"], found["batch_stats"]), replicated(self._mesh))
            for stage, found in networks.items()
        }
        said: dict[Condition, list[dict[str, Any]]] = {condition: [] for condition in conditions}
        for batch in evaluation_batches(self._loader, rows, batch_size=self._batch_size):
            kept = batch["mask"] > 0
            placed = to_devices(batch, split_over_data(self._mesh))
            rgb = self._clean({"rgb": placed["rgb"]})["rgb"]
            known = {stage: run(*variables[stage], rgb) for stage, run in self._rgb.items()}
            for condition in conditions:
                depth = self._depth(condition, {name: placed[name] for name in ("depth", "sample")})
                teacher, fake = self._judge(*variables[self._admd], depth)
                stages = {
                    stage: predict(*variables[stage], {"rgb": rgb, "depth": depth}, known[stage])
                    for stage, predict in self._predict.items()
                }
                found = {"stages": stages, "teacher": teacher, "fake": fake}
                said[condition].append(jax.tree.map(lambda x, kept=kept: np.asarray(x)[kept], found))
            advance(int(kept.sum()))
        return {c: Answers(**jax.tree.map(lambda *parts: np.concatenate(parts), *found)) for c, found in said.items()}

    def _depth(self, condition: Condition, batch: dict[str, Array]) -> Array:
        kind, level = condition
        if condition == CLEAN:
            return self._clean(batch)["depth"]
        key = jax.random.fold_in(jax.random.key(0), zlib.crc32(kind.encode()))
        return self._noisy[kind](batch, key, jnp.float32(level))["depth"]
