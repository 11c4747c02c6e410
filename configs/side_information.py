"""Side-information hallucination (Hoffman et al., CVPR 2016): RGB, depth and hallucination trained jointly.

    hallujax train --config=configs/side_information.py:mocap_rgbd,cross_subject --workdir=runs/side_information

The slides report 64.64 on NTU RGB+D cross-subject, beside 66.52 for RGB alone.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.side_information = base.stage(
        config,
        "side_information",
        options={"scale": 0.5 * hallucination.DISTILLATION[preset]["scale"]},  # step 3's, its alpha is 0.5
        init_from={
            "depth": ("depth", "depth"),
            "depth_head": ("depth", "depth"),
            "rgb": ("rgb", "rgb"),
            "hallucination": ("depth", "depth"),
        },
    )
    config.systems["Side information (Hoffman)"] = base.system(
        "side_information", role="privileged", published=("eccv18-3", "Hoffman et al. [11]")
    )


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
