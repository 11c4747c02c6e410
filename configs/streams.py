"""Single streams: depth, RGB, a second RGB for the ensemble, and RGB started from depth as the control.

    hallujax train --config=configs/streams.py:mocap_rgbd,cross_subject --workdir=runs/streams

Step 1 of both papers, and what a hallucination network must be compared with: two RGB streams (an ensemble costs as
much at test time), and an RGB stream that starts where the hallucination network starts but learns from labels alone.
"""

from ml_collections import ConfigDict

from configs import base


def add(config: ConfigDict, preset: str) -> None:
    del preset
    for name, modality in (("depth", "depth"), ("rgb", "rgb"), ("rgb2", "rgb")):
        config.stages[name] = base.stage(config, "single_stream", options={"modality": modality})
    config.stages.control = base.stage(
        config, "single_stream", options={"modality": "rgb"}, init_from={"rgb": ("depth", "depth")}
    )
    config.systems["Depth"] = base.system("depth", published=("eccv18-3", "Ours - depth step 1"))
    config.systems["RGB"] = base.system("rgb", role="rgb", published=("eccv18-3", "Ours - RGB step 1"))
    config.systems["RGB ensemble"] = base.system("rgb", "rgb2", role="ensemble")
    config.systems["RGB from depth (control)"] = base.system("control", role="control")
    config.systems["RGB + control"] = base.system("rgb", "control", role="rgb+control")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = base.get_config(arguments)
    add(config, base.parse(arguments)[2])
    return config
