"""A warm start with as many clip-passes as step 3: whether distillation is more than longer training.

    hallujax train --config=configs/controls.py:mocap_rgbd,cross_subject --workdir=runs/controls

The table's control has depth's passes and its own behind it; step 3 those of depth, RGB, their joint fine-tuning and its
own. This control trains for all but depth's.
"""

from ml_collections import ConfigDict

from configs import base, baselines, hallucination, streams, two_stream


def add(config: ConfigDict, preset: str) -> None:
    config.stages.control_long = base.stage(
        config, "single_stream", options={"modality": "rgb"}, init_from={"rgb": ("depth", "depth")}
    )
    if not preset:  # their stages end on a plateau, or are all as long
        config.stages.control_long.epochs = config.training.get_ref("epochs") * 2.3  # RGB 1, step 2 0.3, step 3 1
    config.systems["RGB from depth, as long as step 3 (control)"] = base.system("control_long", role="control")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = base.get_config(arguments)
    preset = base.parse(arguments)[2]
    for part in (streams, baselines, two_stream, hallucination):
        part.add(config, preset)
    add(config, preset)
    return config
