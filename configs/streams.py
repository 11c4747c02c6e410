"""Single streams, depth and RGB: step 1 of both papers.

    hallujax train --config=configs/streams.py:mocap_rgbd,cross_subject --workdir=runs/streams

The slides report 70.44 (depth) and 66.52 (RGB) on NTU RGB+D cross-subject.
"""

from ml_collections import ConfigDict

from configs import base


def add(config: ConfigDict, preset: str) -> None:
    del preset
    for modality in ("depth", "rgb"):
        config.stages[modality] = base.stage(config, "single_stream", options={"modality": modality})
    config.systems["Depth"] = base.system("depth", role="teacher", published=("eccv18-3", "Ours - depth step 1"))
    config.systems["RGB"] = base.system("rgb", role="rgb", published=("eccv18-3", "Ours - RGB step 1"))


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, add)
