"""The networks: video streams and the discriminator."""

from hallujax.models import pretrained
from hallujax.models.discriminator import Discriminator
from hallujax.models.resnet import StreamOutput, VideoResNet, connections

__all__ = ["Discriminator", "StreamOutput", "VideoResNet", "connections", "pretrained"]
