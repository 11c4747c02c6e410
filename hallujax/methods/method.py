"""What a method is, and what its builders share.

A `Method` says which networks there are, which player owns which, how they are wired, what each player's loss is and
what is predicted from what. It holds no parameters and no loop: `hallujax.training.step` trains every one of them.

Outputs are a dict `{network: its output}`. A stream whose modality is not in the batch is left out of it, so one
wiring serves training, where everything is there, and evaluation, where only `test_modalities` are.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from hallujax.data.joints import JOINTS
from hallujax.errors import UsageError
from hallujax.models import StreamOutput
from hallujax.models.streams import Networks

Array = jax.Array
Batch = Mapping[str, Array]  # frames [B, T, H, W, C] and joints [B, T, bodies, J, 3], float; `label` [B], `mask` [B]
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
      also_tested_on: smaller sets of modalities that `predict` can do with too; a stage is evaluated on each of them.
      scores: optional `scores(outputs, batch) -> {name: [B]}`, shares to be logged in training beside the losses.
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
    also_tested_on: tuple[tuple[str, ...], ...] = ()
    scores: Callable[[Outputs, Batch], dict[str, Array]] | None = None
    corrupt: Callable[[Array, Batch], Batch] | None = None
    idle: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def clip_logits(output: StreamOutput) -> Array:
    """The clip's logits `[B, K]`: the mean over its frames (both papers, training and test)."""
    return output.logits.mean(axis=1)


def mean_logits(outputs: Iterable[StreamOutput]) -> Array:
    """Several streams' clip logits fused, `[B, K]`: their mean (both papers)."""
    each = [clip_logits(output) for output in outputs]
    return sum(each) / len(each)


def one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raises UsageError for an option's value that is not known."""
    if value not in known:
        raise UsageError(f"option {option} is {value!r}; known: {', '.join(known)}")


def in_range(option: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises UsageError for an option's number outside `[low, high]`."""
    if not low <= value <= high:
        bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise UsageError(f"option {option} is {value}; it must be {bounds}")


def softening(imitation: float, temperature: float) -> None:
    """Raises UsageError for an imitation that is no share, or a temperature that is not positive."""
    in_range("imitation", imitation, 0, 1)
    if not temperature > 0:
        raise UsageError(f"option temperature is {temperature}; it must be positive")


def comparable_features(stream: nn.Module, *modalities: str) -> None:
    """Raises UsageError if the features of streams of frames and of joints are to be compared, and differ in size."""
    if stream.bottleneck is None and JOINTS in modalities and set(modalities) != {JOINTS}:
        raise UsageError("features of frames and joints have one size only behind a bottleneck: set model.bottleneck")


def frames_only(what: str, *modalities: str) -> None:
    """Raises UsageError if one of the modalities is joints, whose stream has no maps."""
    if JOINTS in modalities:
        raise UsageError(f"{what} needs the maps of streams of frames; the stream of {JOINTS} has none")


def present_streams(nets: Networks, batch: Batch, modalities: Mapping[str, str]) -> Outputs:
    """The outputs of those of the streams whose modality is in the batch."""
    return {name: nets(name, batch[modality]) for name, modality in modalities.items() if modality in batch}
