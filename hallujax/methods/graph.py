"""Several teachers, and a learned graph that says of each clip whom to believe."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from hallujax import losses
from hallujax.errors import UsageError
from hallujax.methods.distillation import check_teachers
from hallujax.methods.method import Array, Method, clip_logits, present_streams, softening
from hallujax.models import VideoResNet


class Edges(nn.Module):
    """The weights of the edges from M teachers to a student, `[B, M]`, which sum to 1 over the teachers.

    An edge's score is a linear function of a ReLU layer over what its two ends say, the same for every edge, plus a
    number of the edge's own; a softmax over the edges makes weights of them. At the start they are equal.

    Attributes:
      width: of the hidden layer.
    """

    width: int = 64

    @nn.compact
    def __call__(self, student: Array, teachers: Array, train: bool = False) -> Array:
        """Of the student's probabilities `[B, K]` and its teachers' `[B, M, K]`."""
        del train
        ends = jnp.concatenate([jnp.broadcast_to(student[:, None], teachers.shape), teachers], axis=-1)
        hidden = nn.relu(nn.Dense(self.width, name="pair")(ends))
        scores = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros, name="score")(hidden)[..., 0]
        prior = self.param("prior", nn.initializers.zeros, teachers.shape[1:2], jnp.float32)
        return jax.nn.softmax(scores + prior)


def graph_distillation(
    stream: VideoResNet,
    *,
    teachers: Mapping[str, str],
    student_modality: str = "rgb",
    imitation: float = 0.5,
    temperature: float = 4.0,
    soften_student: bool = True,
    temperature_squared: bool = True,
) -> Method:
    """Graph distillation after Luo et al., "Graph Distillation for Action Detection with Privileged Modalities", 2018.

    Frozen teachers, one a modality, each pull the student towards their soft labels, and `Edges` weighs them clip by
    clip. Edges and student descend the same loss; the edges see the predictions as numbers, so the student cannot
    choose its teachers by changing what it says. Of the paper's losses this is the one on the logits, as a divergence
    that is zero where student and teacher agree, so that no edge is preferred for its teacher's being sure. Theirs
    compares representations too, and trains the teachers alongside.

    Args:
      stream: the module of the student and of every teacher.
      teachers: `{network: modality}`.
      student_modality: what the student sees.
      imitation, temperature, soften_student, temperature_squared: see `losses.generalized_distillation`.

    Raises:
      UsageError: as `distillation`, and for a teacher that is called `edges`.
    """
    check_teachers(teachers)
    softening(imitation, temperature)
    if "edges" in teachers:
        raise UsageError("no teacher of graph_distillation may be called edges: that is the network of the weights")
    modalities = {**teachers, "student": student_modality}

    def forward(nets, batch):
        outputs = present_streams(nets, batch, modalities)
        if set(outputs) == set(modalities):
            said = {name: jax.nn.softmax(clip_logits(outputs[name]) / temperature) for name in modalities}
            ends = jax.lax.stop_gradient((said["student"], jnp.stack([said[name] for name in teachers], axis=1)))
            outputs["edges"] = nets("edges", *ends)
        return outputs

    def student_losses(outputs, batch):
        student = clip_logits(outputs["student"])
        pulls = [
            losses.soft_divergence(
                student,
                clip_logits(outputs[name]),
                temperature=temperature,
                soften_student=soften_student,
                temperature_squared=temperature_squared,
            )
            for name in teachers
        ]
        soft = (outputs["edges"] * jnp.stack(pulls, axis=1)).sum(axis=1)
        return {"student": {"hard": losses.cross_entropy(student, batch["label"]), "soft": soft}}

    return Method(
        networks={**{name: stream for name in modalities}, "edges": Edges()},
        modalities=modalities,
        players={"student": "student", "edges": "student"},
        forward=forward,
        losses=student_losses,
        weights={"hard": 1 - imitation, "soft": imitation},
        predict=lambda outputs: clip_logits(outputs["student"]),
        test_modalities=(student_modality,),
    )
