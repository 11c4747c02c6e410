"""What a frozen teacher teaches by its features and its predictions."""

import dataclasses
from collections.abc import Mapping, Sequence

from hallujax import losses
from hallujax.errors import UsageError
from hallujax.methods.method import (
    Method,
    clip_logits,
    comparable_features,
    frames_only,
    in_range,
    mean_logits,
    one_of,
    present_streams,
    softening,
)
from hallujax.models import VideoResNet, head_of


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
    layer: str | Sequence[str] = "block4",
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
      layer: the map the feature term compares, a key of `StreamOutput.maps`, or `features`; of several, their sum.

    Raises:
      UsageError: for a layer that is none or that the two do not have alike, or a number out of its range.
    """
    layers = (layer,) if isinstance(layer, str) else tuple(layer)
    for name in layers:
        one_of("layer", name, ("features", *(f"block{i}" for i in range(1, len(stream.stage_sizes) + 1))))
        if name != "features":
            frames_only(f"layer={name}", teacher, student_modality)
    if not layers:
        raise UsageError("option layer names none; a feature term of nothing is alpha=0")
    if "features" in layers:
        comparable_features(stream, teacher, student_modality)
    softening(imitation, temperature)
    in_range("alpha", alpha, 0, 1)
    in_range("scale", scale, 0)

    def feature(output, name):
        return output.features if name == "features" else output.maps[name]

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
                "feature": sum(
                    losses.hallucination(feature(student, name), feature(real, name), scale=scale) for name in layers
                ),
            }
        }

    modalities = {teacher: teacher, "hallucination": student_modality}
    return Method(
        networks={teacher: stream, "hallucination": stream},
        modalities=modalities,
        players={"hallucination": "student"},
        forward=lambda nets, batch: present_streams(nets, batch, modalities),
        losses=student_losses,
        weights={
            "hard": (1 - alpha) * (1 - imitation),
            "soft": (1 - alpha) * imitation,
            "feature": alpha,
        },
        predict=lambda outputs: clip_logits(outputs["hallucination"]),
        test_modalities=(student_modality,),
    )


def side_information(
    stream: VideoResNet,
    *,
    teacher: str = "depth",
    student_modality: str = "rgb",
    scale: float = 0.25,
) -> Method:
    """Side-information hallucination after Hoffman, Gupta and Darrell, CVPR 2016: everything is trained jointly.

    Three streams learn from the labels, each alone and the student's modality paired with the two others, while the
    hallucination network also descends the distance of its last map to the teacher's. What is below that map in the
    teacher is frozen, or the teacher would come to meet the student: the teacher's stream has no player, its head is a
    network of its own. The hallucination network and the plain stream predict together.

    Args:
      stream: the module of all three.
      teacher: the privileged modality, and the name of its network; `{teacher}_head` is its head's.
      student_modality: what the two others see, and the plain stream's name.
      scale: of the feature term, `losses.hallucination`; the labels' five terms have weight 1.
    """
    frames_only("side_information", teacher, student_modality)
    in_range("scale", scale, 0)
    plain, head = student_modality, f"{teacher}_head"
    modalities = {teacher: teacher, plain: student_modality, "hallucination": student_modality}
    layer = f"block{len(stream.stage_sizes)}"

    def forward(nets, batch):
        outputs = present_streams(nets, batch, modalities)
        if teacher in outputs:
            real = outputs[teacher]
            outputs[head] = dataclasses.replace(real, logits=nets(head, real.maps[layer]))
        return outputs

    def stream_losses(outputs, batch):
        def ce(*names):
            return losses.cross_entropy(mean_logits(outputs[name] for name in names), batch["label"])

        feature = (outputs[name].maps[layer] for name in ("hallucination", teacher))
        return {
            "streams": {
                f"ce_{teacher}": ce(head),
                f"ce_{plain}": ce(plain),
                "ce_hallucination": ce("hallucination"),
                f"ce_{plain}_{teacher}": ce(plain, head),
                f"ce_{plain}_hallucination": ce(plain, "hallucination"),
                "feature": losses.hallucination(*feature, scale=scale),
            }
        }

    terms = (teacher, plain, "hallucination", f"{plain}_{teacher}", f"{plain}_hallucination")
    return Method(
        networks={teacher: stream, head: head_of(stream, "maps"), plain: stream, "hallucination": stream},
        modalities=modalities,
        players={head: "streams", plain: "streams", "hallucination": "streams"},
        forward=forward,
        losses=stream_losses,
        weights={f"ce_{term}": 1.0 for term in terms} | {"feature": 1.0},
        predict=lambda outputs: mean_logits((outputs[plain], outputs["hallucination"])),
        test_modalities=(student_modality,),
    )


def distillation(
    stream: VideoResNet,
    *,
    teachers: Mapping[str, str],
    student_modality: str = "rgb",
    imitation: float = 0.5,
    temperature: float = 4.0,
    soften_student: bool = True,
    temperature_squared: bool = True,
) -> Method:
    """Knowledge distillation into one network, `student`, by the predictions of one or several frozen ones.

    The teachers see what the student sees (Hinton et al. 2015), something else, then it is privileged information
    alone, or both (Lopez-Paz et al. 2016, who call all of it generalized distillation).

    Args:
      stream: the module of the student and of every teacher.
      teachers: `{network: modality}`; the mean of their clip logits is what teaches.
      student_modality: what the student sees.
      imitation, temperature, soften_student, temperature_squared: see `losses.generalized_distillation`.

    Raises:
      UsageError: without a teacher, for one that is called `student`, or a number out of its range.
    """
    check_teachers(teachers)
    softening(imitation, temperature)
    modalities = {**teachers, "student": student_modality}

    def student_losses(outputs, batch):
        student = clip_logits(outputs["student"])
        soft = losses.soft_cross_entropy(
            student,
            mean_logits(outputs[name] for name in teachers),
            temperature=temperature,
            soften_student=soften_student,
            temperature_squared=temperature_squared,
        )
        return {"student": {"hard": losses.cross_entropy(student, batch["label"]), "soft": soft}}

    return Method(
        networks={name: stream for name in modalities},
        modalities=modalities,
        players={"student": "student"},
        forward=lambda nets, batch: present_streams(nets, batch, modalities),
        losses=student_losses,
        weights={"hard": 1 - imitation, "soft": imitation},
        predict=lambda outputs: clip_logits(outputs["student"]),
        test_modalities=(student_modality,),
    )


def check_teachers(teachers: Mapping[str, str]) -> None:
    """Raises UsageError if there is none, or one that is called `student`."""
    if not teachers or "student" in teachers:
        raise UsageError(f"distillation takes one teacher or more, none called student; these are {sorted(teachers)}")
