"""Streams that learn from labels alone, one or two at a time."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from hallujax import losses
from hallujax.errors import UsageError
from hallujax.methods.method import Method, clip_logits, frames_only, in_range, one_of
from hallujax.models import VideoResNet, connections


def single_stream(stream: VideoResNet, *, modality: str = "rgb", label_smoothing: float = 0.0) -> Method:
    """One stream and cross-entropy: step 1 of both papers, and the control when it starts from another's weights.

    The network is called by its modality's name.
    """
    in_range("label_smoothing", label_smoothing, 0, 1)

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
    if connect:
        frames_only("connect", *modalities.values())

    def forward(nets, batch):
        source = nets(first, batch[modalities[first]])
        given = {"modulation": connections(source)} if connect else {}
        return {first: source, second: nets(second, batch[modalities[second]], **given)}

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


def balanced_two_stream(stream: VideoResNet, *, modalities: Mapping[str, str], alpha: float = 0.3) -> Method:
    """`two_stream` whose faster modality is held back, by on-the-fly gradient modulation (Peng et al., CVPR 2022).

    The two streams are two players with the same loss, each times its own `losses.learning_pace`. So at a pace of 1 for
    both it is `two_stream`, and otherwise each stream's gradient is multiplied by its own factor: train it by SGD,
    Adam divides by the gradient's size. A stream's own part of the fused logits is half its clip logits. Of the
    paper's two parts this is the modulation; the noise that it adds to the gradients is not in it. The factor is on all
    gradients of a stream; the authors' code has it on convolution kernels alone, and in chosen epochs.

    Args:
      stream, modalities: as in `two_stream`.
      alpha: see `losses.learning_pace`; 0 holds nothing back.
    """
    in_range("alpha", alpha, 0)
    whole = two_stream(stream, modalities=modalities)

    def paced_losses(outputs, batch):
        loss = losses.cross_entropy(whole.predict(outputs), batch["label"])
        own = {network: clip_logits(outputs[network]) / 2 for network in modalities}
        paced = {}
        for network, other in zip(modalities, reversed(modalities), strict=True):
            pace = losses.learning_pace(own[network], own[other], batch["label"], batch["mask"], alpha=alpha)
            paced[network] = {f"paced_{network}": pace * loss}
        return paced

    return dataclasses.replace(
        whole,
        players={network: network for network in modalities},
        losses=paced_losses,
        weights={f"paced_{network}": 1.0 for network in modalities},
    )


def moddrop(
    stream: VideoResNet,
    *,
    modalities: Mapping[str, str],
    keep: float = 0.9,
    keep_values: float = 0.8,
    draw: Literal["clip", "batch"] = "clip",
) -> Method:
    """ModDrop (Neverova et al., TPAMI 2016): two streams that see blanked modalities in training, tested with any.

    A modality is blanked as a whole with probability `1 - keep`, after dropout on its values; a modality that is not
    there at test is a blank one, as in the released NYUD code. Every network sees all clips, blank or not.

    Args:
      stream: the module of both.
      modalities: as in `two_stream`; frames of all must have the same shape.
      keep: probability that a modality stays (the released code: 0.9).
      keep_values: probability that a value of a frame stays; what stays is divided by it (there 0.8).
      draw: whether a modality is blanked for a clip, or for the whole batch (the released code).

    Raises:
      UsageError: for a probability outside (0, 1], or joints, of which no frame can be the blank one.
    """
    one_of("draw", draw, ("clip", "batch"))
    frames_only("moddrop", *modalities.values())
    for name, value in (("keep", keep), ("keep_values", keep_values)):
        if not 0 < value <= 1:
            raise UsageError(f"option {name} is {value}; it must lie in (0, 1]")

    def corrupt(key, batch):
        dropped = {}
        for i, modality in enumerate(sorted(set(modalities.values()))):
            batch_key, clips_key = jax.random.split(jax.random.fold_in(key, i))

            def one_clip(frames, sample, batch_key=batch_key, clips_key=clips_key):
                values_key, clip_key = jax.random.split(jax.random.fold_in(clips_key, sample))
                values = jax.random.bernoulli(values_key, keep_values, frames.shape) / keep_values
                return frames * values * jax.random.bernoulli(clip_key if draw == "clip" else batch_key, keep)

            # By the global sample number, as augmentation is: the number of hosts changes nothing.
            dropped[modality] = jax.vmap(one_clip)(batch[modality], batch["sample"])
        return batch | dropped

    def forward(nets, batch):
        present = [modality for modality in modalities.values() if modality in batch]
        if not present:
            raise KeyError(f"none of {sorted(modalities.values())} is in the batch")
        blank = jnp.zeros_like(batch[present[0]])
        return {network: nets(network, batch.get(modality, blank)) for network, modality in modalities.items()}

    whole = two_stream(stream, modalities=modalities)
    return dataclasses.replace(
        whole,
        forward=forward,
        corrupt=corrupt,
        also_tested_on=tuple((modality,) for modality in whole.test_modalities),
    )
