"""What a hallucination network must be compared with: a second RGB stream, and RGB started from depth.

    hallujax train --config=configs/baselines.py:mocap_rgbd,cross_subject --workdir=runs/baselines

An ensemble of two RGB streams costs as much at test time. The control starts where the hallucination network starts but
learns from labels alone: what it reaches is the warm start's doing, not distillation's.
"""

from ml_collections import ConfigDict

from configs import base, streams


def add(config: ConfigDict, preset: str) -> None:
    del preset
    config.stages.rgb2 = base.stage(config, "single_stream", options={"modality": "rgb"})
    config.stages.control = base.stage(
        config, "single_stream", options={"modality": "rgb"}, init_from={"rgb": ("depth", "depth")}
    )
    config.systems["RGB ensemble"] = base.system("rgb", "rgb2", role="ensemble")
    config.systems["RGB from depth (control)"] = base.system("control", role="control")
    config.systems["RGB + control"] = base.system("rgb", "control", role="rgb+control")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
