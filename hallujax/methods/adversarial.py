"""What a discriminator teaches: it tells the teacher's features from the student's, which learns to deceive it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from hallujax import losses
from hallujax.errors import UsageError
from hallujax.methods.method import (
    Array,
    Method,
    clip_logits,
    comparable_features,
    frames_only,
    in_range,
    one_of,
    present_streams,
)
from hallujax.models import Discriminator, VideoResNet, head_of
from hallujax.models.discriminator import ACTION_LAYERS
from hallujax.models.streams import Networks


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
    discriminator_smoothing: float = 0.0,
    discriminator_hidden: Sequence[int] = ACTION_LAYERS,
    features: Literal["last", "pooled"] = "last",
    r1: float = 0.0,
    spectral_norm: bool = False,
    predict_from: Literal["classifier", "discriminator", "teacher"] = "classifier",
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
      discriminator_smoothing: of the labels of real features; see `losses.admd_real`.
      discriminator_hidden: widths of its layers; see `Discriminator`.
      features: what it judges: the `last` ones, which the classifier reads, or the last maps `pooled`, before the
        bottleneck. Then no loss reaches the student's bottleneck either, which is the teacher's as its classifier is.
      r1: weight of `losses.gradient_penalty` among the discriminator's terms.
      spectral_norm: of the discriminator's weights; see `Discriminator`.
      predict_from: the student's own classifier; the discriminator's first K logits; or the teacher's classifier, a
        frozen network `classifier`, for a student that did not start from the teacher.

    Raises:
      UsageError: for a value that is not known or out of its range, or options that do not go together.
    """
    modalities = {teacher: teacher, "hallucination": student_modality}
    one_of("objective", objective, ("non_saturating", "minimax"))
    one_of("task", task, ("action", "object"))
    one_of("predict_from", predict_from, ("classifier", "discriminator", "teacher"))
    one_of("features", features, ("last", "pooled"))
    for option, value, high in (
        ("discriminator_weight", discriminator_weight, math.inf),
        ("discriminator_smoothing", discriminator_smoothing, 1),
        ("r1", r1, math.inf),
    ):
        in_range(option, value, 0, high)
    if features == "pooled":
        frames_only("features=pooled", teacher, student_modality)
    else:
        comparable_features(stream, teacher, student_modality)
    if r1 and (discriminator_batch_norm or spectral_norm):
        raise UsageError(
            "r1 is for a discriminator without batch norm and spectral norm, which its gradient would move"
        )

    def judged(output):  # [B, T, D]
        return output.maps[f"block{len(stream.stage_sizes)}"].mean((2, 3)) if features == "pooled" else output.features

    def forward(nets, batch):
        outputs = present_streams(nets, batch, modalities)
        for name in (teacher, "hallucination"):
            if name in outputs:
                seen = judged(outputs[name])
                where = _one_hot_positions(seen) if position else None
                outputs[f"discriminator/{name}"] = nets("discriminator", seen, where)
                if r1 and name == teacher:
                    outputs["slope"] = _slope(nets, seen, where)
        if predict_from == "teacher" and "hallucination" in outputs:
            outputs["classifier"] = nets("classifier", outputs["hallucination"].features)
        return outputs

    def both_losses(outputs, batch):
        real, fake = outputs[f"discriminator/{teacher}"], outputs["discriminator/hallucination"]
        fool = losses.admd_hallucination(fake, batch["label"], objective=objective)
        return {
            "student": {"fool": fool.mean(1)},
            "discriminator": {
                "real": losses.admd_real(real, batch["label"], label_smoothing=discriminator_smoothing).mean(1),
                "fake": losses.admd_fake(fake).mean(1),
                **_penalty(outputs, classify_set),
            },
        }

    def scores(outputs, batch):
        said = {name: outputs[f"discriminator/{name}"].argmax(-1) for name in (teacher, "hallucination")}
        return {
            "discriminator_real": (said[teacher] == batch["label"][:, None]).mean(1),
            "discriminator_fake": (said["hallucination"] == stream.num_classes).mean(1),
        }

    def predict(outputs):
        if predict_from == "discriminator":
            return outputs["discriminator/hallucination"][..., :-1].mean(1)
        if predict_from == "teacher":
            return outputs["classifier"].mean(1)
        return clip_logits(outputs["hallucination"])

    networks = {
        teacher: stream,
        "hallucination": stream,
        "discriminator": Discriminator(
            stream.num_classes,
            task=task,
            hidden=tuple(discriminator_hidden),
            batch_norm=discriminator_batch_norm,
            classify_set=classify_set,
            spectral_norm=spectral_norm,
            ghost_batch=stream.ghost_batch,
        ),
    }
    if predict_from == "teacher":
        networks["classifier"] = head_of(stream, "features")
    unjudged = ()
    if features == "pooled" and stream.bottleneck:
        unjudged = ("bottleneck_conv", "bottleneck_bn")[: 2 if stream.bottleneck_norm else 1]
    return Method(
        networks=networks,
        modalities=modalities,
        players={"hallucination": "student", "discriminator": "discriminator"},
        forward=forward,
        losses=both_losses,
        weights={"fool": 1.0, "real": discriminator_weight, "fake": discriminator_weight} | ({"r1": r1} if r1 else {}),
        predict=predict,
        test_modalities=(student_modality,),
        scores=scores,
        idle={"hallucination": (*unjudged, "logits")},
    )


def adversarial(
    stream: VideoResNet,
    *,
    teacher: str = "depth",
    objective: Literal["least_squares", "logistic"] = "least_squares",
    **wiring: Any,
) -> Method:
    """ADMD without the auxiliary task: a discriminator of real and hallucinated alone, as in the released NYUD code.

    "Adversarial Learning (Real/Synthetic) is not enough to learn good features" (slides). No loss holds a label.

    Args:
      stream: the module of teacher and student.
      teacher: the privileged modality, and the frozen network's name.
      objective: see `losses.adversarial_real`.
      wiring: the other options of `admd`; the discriminator has no class logits to predict from.
    """
    one_of("objective", objective, ("least_squares", "logistic"))
    one_of("predict_from", wiring.get("predict_from", "classifier"), ("classifier", "teacher"))
    if wiring.get("discriminator_smoothing"):
        raise UsageError("discriminator_smoothing is of class labels; this discriminator has none")
    game = admd(stream, teacher=teacher, **wiring)

    def both_losses(outputs, batch):
        del batch
        real, fake = outputs[f"discriminator/{teacher}"], outputs["discriminator/hallucination"]
        return {
            "student": {"fool": losses.adversarial_real(fake, objective=objective).mean(1)},
            "discriminator": {
                "real": losses.adversarial_real(real, objective=objective).mean(1),
                "fake": losses.adversarial_fake(fake, objective=objective).mean(1),
                **_penalty(outputs, game.networks["discriminator"].classify_set),
            },
        }

    def scores(outputs, batch):
        del batch
        said = {name: outputs[f"discriminator/{name}"][..., 0] > 0 for name in (teacher, "hallucination")}
        return {
            "discriminator_real": said[teacher].mean(1),
            "discriminator_fake": (~said["hallucination"]).mean(1),
        }

    discriminator = game.networks["discriminator"].clone(num_classes=0)
    networks = {**game.networks, "discriminator": discriminator}
    return dataclasses.replace(game, networks=networks, losses=both_losses, scores=scores)


def _slope(nets: Networks, features: Array, position: Array | None) -> Array:
    """The gradient of the discriminator's `losses.realness` by each frame's features, `[B, T, D]`."""
    return jax.grad(lambda seen: losses.realness(nets("discriminator", seen, position)).sum())(features)


def _penalty(outputs: dict[str, Any], of_set: bool) -> dict[str, Array]:
    """The discriminator's term `r1` `[B]`, if there is one: of one decision a clip, or the mean over frames'."""
    if "slope" not in outputs:
        return {}
    steepness = losses.gradient_penalty(outputs["slope"])
    return {"r1": steepness.sum(1) if of_set else steepness.mean(1)}


def _one_hot_positions(features: Array) -> Array:
    """`[B, T, T]`: row t of every clip is the one-hot position of its frame t (TPAMI 2019, `y^t`)."""
    batch, frames = features.shape[:2]
    return jnp.broadcast_to(jnp.eye(frames), (batch, frames, frames))
