"""Methods: what each system of the tables trains, declared side by side.

A `Method` says which networks there are, which player owns which, how they are wired, what each player's loss is and
what is predicted from what. It holds no parameters and no loop: `hallujax.training.step` trains every one of them.

Outputs are a dict `{network: its output}`. A stream whose modality is not in the batch is left out of it, so one
wiring serves training, where everything is there, and evaluation, where only `test_modalities` are.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hallujax import losses
from hallujax.errors import UsageError
from hallujax.models import Discriminator, StreamOutput, VideoResNet, connections
from hallujax.models.streams import Networks

Array = jax.Array
Batch = Mapping[str, Array]  # float modalities [B, T, H, W, C], `label` [B], `mask` [B]
Outputs = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One system: networks, players, wiring, losses and prediction.

    Attributes:
      networks: `{network: module}`.
      modalities: `{network: the modality it sees}` for the streams among the networks.
      players: `{network: player}` of the trained networks; a network without a player is frozen in every sense.
      forward: `forward(nets, batch) -> outputs`, calling `nets(name, ...)`.
      losses: `losses(outputs, batch) -> {player: {term: [B]}}`.
      weights: the factor of every term, naming exactly those that `losses` returns.
      predict: `predict(outputs) -> [B, K]`, the clip logits.
      test_modalities: all that `predict` may depend on; evaluation drops every other modality.
      corrupt: optional `corrupt(key, batch) -> batch`, in training only.
      idle: `{network: names of its top-level modules}` that are trained in name only: no loss reaches them, and
        weight decay must not.
    """

    networks: Mapping[str, nn.Module]
    modalities: Mapping[str, str]
    players: Mapping[str, str]
    forward: Callable[[Networks, Batch], Outputs]
    losses: Callable[[Outputs, Batch], dict[str, dict[str, Array]]]
    weights: Mapping[str, float]
    predict: Callable[[Outputs], Array]
    test_modalities: tuple[str, ...]
    corrupt: Callable[[Array, Batch], Batch] | None = None
    idle: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def clip_logits(output: StreamOutput) -> Array:
    """The clip's logits `[B, K]`: the mean over its frames (both papers, training and test)."""
    return output.logits.mean(axis=1)


def single_stream(stream: VideoResNet, *, modality: str = "rgb", label_smoothing: float = 0.0) -> Method:
    """One stream and cross-entropy: step 1 of both papers, and the control when it starts from another's weights.

    The network is called by its modality's name.
    """

    def stream_losses(outputs, batch):
        logits = clip_logits(outputs[modality])
        return {modality: {"ce": losses.cross_entropy(logits, batch["label"], label_smoothing=label_smoothing)}}

    return Method(
        networks={modality: stream},
        modalities={modality: modality},
        players={modality: modality},
        forward=lambda nets, batch: {modality: nets(modality, batch[modality])},
        losses=stream_losses,
        weights={"ce": 1.0},
        predict=lambda outputs: clip_logits(outputs[modality]),
        test_modalities=(modality,),
    )


def two_stream(
    stream: VideoResNet,
    *,
    modalities: Mapping[str, str],
    connect: bool = False,
) -> Method:
    """Two streams trained together on the cross-entropy of their mean logits (ECCV 2018, steps 2 and 4).

    Args:
      stream: the module of both.
      modalities: `{network: modality}` of the two, in order: `{"depth": "depth", "rgb": "rgb"}` for step 2,
        `{"hallucination": "rgb", "rgb": "rgb"}` for step 4.
      connect: multiplicative connections from the first network to the second (Feichtenhofer et al.; the released
        code's `--interaction`, depth to RGB).
    """
    if len(modalities) != 2:
        raise UsageError(f"two_stream takes two networks, not {sorted(modalities)}")
    first, second = modalities

    def forward(nets, batch):
        source = nets(first, batch[modalities[first]])
        modulation = connections(source) if connect else None
        return {first: source, second: nets(second, batch[modalities[second]], modulation=modulation)}

    def predict(outputs):
        return (clip_logits(outputs[first]) + clip_logits(outputs[second])) / 2

    return Method(
        networks={first: stream, second: stream},
        modalities=dict(modalities),
        players={first: "streams", second: "streams"},
        forward=forward,
        losses=lambda outputs, batch: {"streams": {"ce": losses.cross_entropy(predict(outputs), batch["label"])}},
        weights={"ce": 1.0},
        predict=predict,
        test_modalities=tuple(sorted(set(modalities.values()))),
    )


def hallucination(
    stream: VideoResNet,
    *,
    teacher: str = "depth",
    student_modality: str = "rgb",
    imitation: float = 0.5,
    alpha: float = 0.5,
    temperature: float = 10.0,
    soften_student: bool = False,
    temperature_squared: bool = False,
    scale: float = 1.0,
    layer: str = "block4",
) -> Method:
    """Hallucination with generalized distillation (ECCV 2018, step 3): the frozen teacher sees what the student won't.

    The student descends `(1 - alpha) L_GD + alpha L_hall` (`losses.privileged_distillation`), written as its three
    terms, hard, soft and feature, to be watched apart.

    Args:
      stream: the module of teacher and student.
      teacher: the privileged modality, and the frozen network's name.
      student_modality: what the hallucination network sees.
      imitation, temperature, soften_student, temperature_squared: see `losses.generalized_distillation`.
      alpha: weight of the feature term.
      scale: of the feature term; see `losses.hallucination`.
      layer: the map the feature term compares, a key of `StreamOutput.maps`, or `features`.
    """

    _one_of("layer", layer, ("features", *(f"block{i}" for i in range(1, len(stream.stage_sizes) + 1))))

    def feature(output):
        return output.features if layer == "features" else output.maps[layer]

    def student_losses(outputs, batch):
        student, real = outputs["hallucination"], outputs[teacher]
        return {
            "student": {
                "hard": losses.cross_entropy(clip_logits(student), batch["label"]),
                "soft": losses.soft_cross_entropy(
                    clip_logits(student),
                    clip_logits(real),
                    temperature=temperature,
                    soften_student=soften_student,
                    temperature_squared=temperature_squared,
                ),
                "feature": losses.hallucination(feature(student), feature(real), scale=scale),
            }
        }

    modalities = {teacher: teacher, "hallucination": student_modality}
    return Method(
        networks={teacher: stream, "hallucination": stream},
        modalities=modalities,
        players={"hallucination": "student"},
        forward=lambda nets, batch: _present_streams(nets, batch, modalities),
        losses=student_losses,
        weights={
            "hard": (1 - alpha) * (1 - imitation),
            "soft": (1 - alpha) * imitation,
            "feature": alpha,
        },
        predict=lambda outputs: clip_logits(outputs["hallucination"]),
        test_modalities=(student_modality,),
    )


def admd(
    stream: VideoResNet,
    *,
    teacher: str = "depth",
    student_modality: str = "rgb",
    objective: Literal["non_saturating", "minimax"] = "non_saturating",
    task: Literal["action", "object"] = "action",
    position: bool = True,
    discriminator_batch_norm: bool = False,
    classify_set: bool = False,
    discriminator_weight: float = 1.0,
    predict_from: Literal["classifier", "discriminator"] = "classifier",
) -> Method:
    """Adversarial discriminative modality distillation (TPAMI 2019, step 2).

    The discriminator sorts the teacher's frame features into their K classes and hallucinated ones into class K; the
    hallucination network makes features that it takes for real ones of the right class. The student's classifier
    gets no gradient: it is the teacher's, and must be started from it.

    Args:
      stream: the module of teacher and student.
      teacher: the privileged modality, and the frozen network's name.
      student_modality: what the hallucination network sees.
      objective: see `losses.admd_hallucination`.
      task: the discriminator's shape; see `Discriminator`.
      position: give it each frame's temporal position, one-hot, beside the feature.
      discriminator_batch_norm: as the released action code has it by its argument scope; see `Discriminator`.
      classify_set: let it judge the clip's frames together rather than one by one.
      discriminator_weight: factor on both of its terms (the released action code: 0.5).
      predict_from: the student's own classifier, or the discriminator's first K logits.
    """
    modalities = {teacher: teacher, "hallucination": student_modality}
    _one_of("objective", objective, ("non_saturating", "minimax"))
    _one_of("task", task, ("action", "object"))
    _one_of("predict_from", predict_from, ("classifier", "discriminator"))

    def forward(nets, batch):
        outputs = _present_streams(nets, batch, modalities)
        for name in (teacher, "hallucination"):
            if name in outputs:
                features = outputs[name].features
                where = _one_hot_positions(features) if position else None
                outputs[f"discriminator/{name}"] = nets("discriminator", features, where)
        return outputs

    def both_losses(outputs, batch):
        real, fake = outputs[f"discriminator/{teacher}"], outputs["discriminator/hallucination"]
        fool = losses.admd_hallucination(fake, batch["label"], objective=objective)
        return {
            "student": {"fool": fool.mean(1)},
            "discriminator": {
                "real": losses.admd_real(real, batch["label"]).mean(1),
                "fake": losses.admd_fake(fake).mean(1),
            },
        }

    def predict(outputs):
        if predict_from == "discriminator":
            return outputs["discriminator/hallucination"][..., :-1].mean(1)
        return clip_logits(outputs["hallucination"])

    return Method(
        networks={
            teacher: stream,
            "hallucination": stream,
            "discriminator": Discriminator(
                stream.num_classes, task=task, batch_norm=discriminator_batch_norm, classify_set=classify_set
            ),
        },
        modalities=modalities,
        players={"hallucination": "student", "discriminator": "discriminator"},
        forward=forward,
        losses=both_losses,
        weights={"fool": 1.0, "real": discriminator_weight, "fake": discriminator_weight},
        predict=predict,
        test_modalities=(student_modality,),
        idle={"hallucination": ("logits",)},
    )


BUILDERS: Mapping[str, Callable[..., Method]] = {
    "single_stream": single_stream,
    "two_stream": two_stream,
    "hallucination": hallucination,
    "admd": admd,
}


def build(name: str, stream: VideoResNet, options: Mapping[str, Any]) -> Method:
    """The method `name` over `stream`.

    Raises:
      UsageError: for an unknown method, or an option that its builder does not take.
    """
    if name not in BUILDERS:
        raise UsageError(f"unknown method {name!r}; known: {', '.join(BUILDERS)}")
    try:
        return BUILDERS[name](stream, **options)
    except TypeError as error:
        raise UsageError(f"method {name}: {error}") from error


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"option {option} is {value!r}; known: {', '.join(known)}")


def _present_streams(nets: Networks, batch: Batch, modalities: Mapping[str, str]) -> Outputs:
    return {name: nets(name, batch[modality]) for name, modality in modalities.items() if modality in batch}


def _one_hot_positions(features: Array) -> Array:
    """`[B, T, T]`: row t of every clip is the one-hot position of its frame t (TPAMI 2019, `y^t`)."""
    batch, frames = features.shape[:2]
    return jnp.broadcast_to(jnp.eye(frames), (batch, frames, frames))
