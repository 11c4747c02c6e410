"""The networks: streams of video and of joints, and the discriminator."""

from hallujax.models import pretrained
from hallujax.models.discriminator import Discriminator
from hallujax.models.joints import JointsStream, joints_stream_of
from hallujax.models.resnet import Head, StreamOutput, VideoResNet, connections, head_of

__all__ = [
    "Discriminator",
    "Head",
    "JointsStream",
    "StreamOutput",
    "VideoResNet",
    "connections",
    "head_of",
    "joints_stream_of",
    "pretrained",
]
