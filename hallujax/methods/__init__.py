"""Methods: what each system of the tables trains, declared side by side.

`streams` holds single streams and what is tested on several modalities, `distillation` what a frozen teacher teaches by
its features and predictions, `graph` whom of several to believe, `adversarial` what a discriminator teaches;
`generation` makes a modality from another.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hallujax.data.joints import JOINTS
from hallujax.errors import UsageError
from hallujax.methods.adversarial import admd, adversarial
from hallujax.methods.distillation import distillation, hallucination, side_information
from hallujax.methods.generation import generated_two_stream, translation
from hallujax.methods.graph import graph_distillation
from hallujax.methods.method import Method, clip_logits, mean_logits
from hallujax.methods.streams import balanced_two_stream, moddrop, single_stream, two_stream
from hallujax.models import VideoResNet, joints_stream_of

__all__ = [
    "BUILDERS",
    "Method",
    "admd",
    "adversarial",
    "balanced_two_stream",
    "build",
    "clip_logits",
    "distillation",
    "generated_two_stream",
    "graph_distillation",
    "hallucination",
    "mean_logits",
    "moddrop",
    "side_information",
    "single_stream",
    "translation",
    "two_stream",
]

BUILDERS: Mapping[str, Callable[..., Method]] = {
    "single_stream": single_stream,
    "two_stream": two_stream,
    "balanced_two_stream": balanced_two_stream,
    "moddrop": moddrop,
    "hallucination": hallucination,
    "side_information": side_information,
    "distillation": distillation,
    "graph_distillation": graph_distillation,
    "admd": admd,
    "adversarial": adversarial,
    "translation": translation,
    "generated_two_stream": generated_two_stream,
}


def build(
    name: str,
    stream: VideoResNet,
    options: Mapping[str, Any],
    others: Mapping[str, VideoResNet] | None = None,
) -> Method:
    """The method `name` over `stream`, but for the networks named in `others`, which are what is said there.

    A network that sees joints is a stream of joints to match.

    Raises:
      UsageError: for an unknown method, an option that its builder does not take, or a network that it does not have.
    """
    if name not in BUILDERS:
        raise UsageError(f"unknown method {name!r}; known: {', '.join(BUILDERS)}")
    try:
        method = BUILDERS[name](stream, **options)
    except TypeError as error:
        raise UsageError(f"method {name}: {error}") from error
    others = others or {}
    if strangers := set(others) - set(method.modalities):
        raise UsageError(f"models names {sorted(strangers)}; the streams are {sorted(method.modalities)}")
    see_joints = {
        network: joints_stream_of(others.get(network, stream))
        for network, modality in method.modalities.items()
        if modality == JOINTS
    }
    return dataclasses.replace(method, networks={**method.networks, **others, **see_joints})
