"""`mocap_rgbd`: an RGB-D action benchmark rendered here from real motion capture, without any download."""

from data_prep.mocap_rgbd.build import prepare
from data_prep.mocap_rgbd.presets import ACTIONS, PRESETS, DepthNoise, Difficulty, Preset

__all__ = ["ACTIONS", "PRESETS", "DepthNoise", "Difficulty", "Preset", "prepare"]
