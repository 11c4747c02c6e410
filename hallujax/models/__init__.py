"""The networks: streams of video and of joints, the discriminator, decoders."""

from hallujax.models import pretrained
from hallujax.models.discriminator import Discriminator
from hallujax.models.joints import JointsStream, joints_stream_of
from hallujax.models.resnet import Head, StreamOutput, VideoResNet, connections, head_of
from hallujax.models.translator import DeconvolutionDecoder, UpProjectionDecoder

__all__ = [
    "DeconvolutionDecoder",
    "Discriminator",
    "Head",
    "JointsStream",
    "StreamOutput",
    "UpProjectionDecoder",
    "VideoResNet",
    "connections",
    "head_of",
    "joints_stream_of",
    "pretrained",
]
