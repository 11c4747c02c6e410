"""What a discriminator teaches: it tells the teacher's features from the student's, which learns to deceive it."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp

from hallujax import losses
from hallujax.errors import UsageError
from hallujax.methods.method import Array, Method, clip_logits, one_of, present_streams
from hallujax.models import Discriminator, VideoResNet, head_of


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
      spectral_norm: of the discriminator's weights; see `Discriminator`.
      predict_from: the student's own classifier; the discriminator's first K logits; or the teacher's classifier, a
        frozen network `classifier`, for a student that did not start from the teacher.
    """
    modalities = {teacher: teacher, "hallucination": student_modality}
    one_of("objective", objective, ("non_saturating", "minimax"))
    one_of("task", task, ("action", "object"))
    one_of("predict_from", predict_from, ("classifier", "discriminator", "teacher"))

    def forward(nets, batch):
        outputs = present_streams(nets, batch, modalities)
        for name in (teacher, "hallucination"):
            if name in outputs:
                features = outputs[name].features
                where = _one_hot_positions(features) if position else None
                outputs[f"discriminator/{name}"] = nets("discriminator", features, where)
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
            },
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
            batch_norm=discriminator_batch_norm,
            classify_set=classify_set,
            spectral_norm=spectral_norm,
            ghost_batch=stream.ghost_batch,
        ),
    }
    if predict_from == "teacher":
        networks["classifier"] = head_of(stream, "features")
    return Method(
        networks=networks,
        modalities=modalities,
        players={"hallucination": "student", "discriminator": "discriminator"},
        forward=forward,
        losses=both_losses,
        weights={"fool": 1.0, "real": discriminator_weight, "fake": discriminator_weight},
        predict=predict,
        test_modalities=(student_modality,),
        idle={"hallucination": ("logits",)},
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
            },
        }

    discriminator = game.networks["discriminator"].clone(num_classes=0)
    return dataclasses.replace(game, networks={**game.networks, "discriminator": discriminator}, losses=both_losses)


def _one_hot_positions(features: Array) -> Array:
    """`[B, T, T]`: row t of every clip is the one-hot position of its frame t (TPAMI 2019, `y^t`)."""
    batch, frames = features.shape[:2]
    return jnp.broadcast_to(jnp.eye(frames), (batch, frames, frames))
