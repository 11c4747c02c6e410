"""The networks: video streams and the discriminator."""

from hallujax.models import pretrained
from hallujax.models.discriminator import Discriminator
from hallujax.models.resnet import Head, StreamOutput, VideoResNet, connections, head_of

__all__ = ["Discriminator", "Head", "StreamOutput", "VideoResNet", "connections", "head_of", "pretrained"]
