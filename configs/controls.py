"""Training for as long as step 3 took in all: whether distillation is more than a warm start and patience.

    hallujax train --config=configs/controls.py:mocap_rgbd,cross_subject --workdir=runs/controls

The table's control has the clip-passes of depth and its own behind it; step 3 those of depth, RGB, their joint
fine-tuning and its own. Here both start from depth alone and train for all that step 3 had but depth's.
"""

from ml_collections import ConfigDict

from configs import base, baselines, hallucination, streams, two_stream

LENGTH = 2.3  # of all that step 3 had but depth's, in epochs of a stream: RGB 1, step 2 0.3, step 3 1


def add(config: ConfigDict, preset: str) -> None:
    config.stages.control_long = base.stage(
        config, "single_stream", options={"modality": "rgb"}, init_from={"rgb": ("depth", "depth")}
    )
    config.stages.hallucination_long = base.stage(
        config,
        "hallucination",
        options={"imitation": 0.5, "alpha": 0.5, "layer": "block4"} | hallucination.DISTILLATION[preset],
        init_from={"depth": ("depth", "depth"), "hallucination": ("depth", "depth")},
    )
    if not preset:  # their stages end on a plateau, or are all as long
        for name in ("control_long", "hallucination_long"):
            config.stages[name].epochs = config.training.get_ref("epochs") * LENGTH
    config.systems["RGB from depth, as long as step 3 (control)"] = base.system("control_long", role="control")
    config.systems["Hallucination from depth, as long"] = base.system("hallucination_long", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, hallucination.add, add)
