"""A missing modality made from the one that there is, for networks that want both."""

import dataclasses
from typing import Literal

import jax

from hallujax import losses
from hallujax.methods.method import Array, Method, frames_only, one_of
from hallujax.methods.streams import two_stream
from hallujax.models import DeconvolutionDecoder, UpProjectionDecoder, VideoResNet

DECODERS = ("deconvolution", "up_projection")


def translation(
    stream: VideoResNet,
    *,
    source: str = "rgb",
    target: str = "depth",
    decoder: Literal["deconvolution", "up_projection"] = "deconvolution",
    loss: Literal["squared_error", "reverse_huber"] = "squared_error",
    connect: bool = False,
) -> Method:
    """An encoder and a decoder learn to make the target's frames from the source's; nothing else moves.

    With deconvolutions and squared errors it is the cross-modal autoencoder that ADMD is compared with, with
    up-projections and the reverse Huber loss monocular depth estimation after FCRN. The prediction is that of a frozen
    two-stream model on the source and what was made of it: an input is substituted, at test and for the score that
    chooses the best step, and the frames that were made stay as they are encoded.

    Args:
      stream: the module of the encoder and of the two streams.
      source: the modality that there is, and the network that sees it.
      target: the modality that is made, and the network that sees it.
      decoder: see `DeconvolutionDecoder` and `UpProjectionDecoder`. It works on the encoder's last map, each frame for
        itself; what it makes is resized to the frames by linear interpolation.
      loss: see `losses.squared_error` and `losses.reverse_huber`.
      connect: as in `two_stream`, from the target's stream to the source's.
    """
    one_of("loss", loss, ("squared_error", "reverse_huber"))
    distance = {"squared_error": losses.squared_error, "reverse_huber": losses.reverse_huber}[loss]
    substituted = _substituted(stream, source, target, decoder, connect)
    return dataclasses.replace(
        substituted,
        modalities={target: target, source: source},
        players={"encoder": "translator", "decoder": "translator"},
        losses=lambda outputs, batch: {"translator": {loss: distance(outputs["generated"], batch[target])}},
        weights={loss: 1.0},
        idle={"encoder": _head(stream)},
    )


def generated_two_stream(
    stream: VideoResNet,
    *,
    source: str = "rgb",
    target: str = "depth",
    decoder: Literal["deconvolution", "up_projection"] = "deconvolution",
    connect: bool = False,
) -> Method:
    """The two streams of `two_stream`, trained on the source and on what a frozen `translation` makes of it.

    Args: as `translation`.
    """
    return _substituted(stream, source, target, decoder, connect)


def _substituted(stream: VideoResNet, source: str, target: str, decoder: str, connect: bool) -> Method:
    """`two_stream` with the target's frames made from the source's."""
    frames_only("a decoder", source, target)
    one_of("decoder", decoder, DECODERS)
    pair = two_stream(stream, modalities={target: target, source: source}, connect=connect)
    blocks = len(stream.stage_sizes)  # the last map is 2^(blocks + 1) times smaller than the frames
    up = DeconvolutionDecoder(blocks + 1) if decoder == "deconvolution" else UpProjectionDecoder(blocks)
    up = up.clone(ghost_batch=stream.ghost_batch)

    def forward(nets, batch):
        frames = batch[source]
        made = nets("decoder", nets("encoder", frames).maps[f"block{blocks}"])
        generated = _resized(made, frames.shape)
        return {"generated": generated, **pair.forward(nets, {**batch, target: generated})}

    return dataclasses.replace(
        pair,
        networks={"encoder": stream, "decoder": up, **pair.networks},
        modalities={target: source, source: source},
        forward=forward,
        test_modalities=(source,),
    )


def _resized(frames: Array, shape: tuple[int, ...]) -> Array:
    return jax.image.resize(frames, (*shape[:4], frames.shape[4]), "linear")


def _head(stream: VideoResNet) -> tuple[str, ...]:
    """The layers of a stream above its last map."""
    if stream.bottleneck is None:
        return ("logits",)
    norm = ("bottleneck_bn",) if stream.bottleneck_norm else ()
    return ("bottleneck_conv", *norm, "logits")
