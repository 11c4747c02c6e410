"""`rgbd_objects`: single RGB-D images of objects, rendered here as `mocap_rgbd` is, without any download."""

from data_prep.rgbd_objects.build import prepare
from data_prep.rgbd_objects.presets import PRESETS, Preset
from data_prep.rgbd_objects.shapes import CLASSES

__all__ = ["CLASSES", "PRESETS", "Preset", "prepare"]
