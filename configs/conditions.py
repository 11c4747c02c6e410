"""What distillation adds to depth's weights, patience and smoothed labels: to train again under each condition.

    hallujax table --config=configs/conditions.py:mocap_rgbd,cross_view --workdir=runs/views --seeds 3
    hallujax table --config=configs/conditions.py:mocap_rgbd,cross_subject --workdir=runs/poor_rgb --seeds 3 \
      --config.data.rgb_noise=40.0

All students but RGB start from depth and train for as long as step 3 does in all (see `controls`), so they have the
same clip-passes behind them. `few_clips` and `label_noise` are such conditions too.
"""

from ml_collections import ConfigDict

from configs import base, controls, hallucination, streams


def add(config: ConfigDict, preset: str) -> None:
    controls.add(config, preset)
    config.stages.control_long_smoothing = base.stage(
        config,
        "single_stream",
        options={"modality": "rgb", "label_smoothing": 0.1},
        init_from={"rgb": ("depth", "depth")},
    )
    softening = {key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"}
    config.stages.distilled_long = base.stage(
        config,
        "distillation",
        options={"teachers": {"depth": "depth"}, "imitation": 0.5} | softening,
        init_from={"depth": ("depth", "depth"), "student": ("depth", "depth")},
    )
    if not preset:  # their stages end on a plateau, or are as long as they are
        for name in ("control_long_smoothing", "distilled_long"):
            config.stages[name].epochs = config.training.get_ref("epochs") * controls.LENGTH
    config.systems["RGB from depth, label smoothing, as long (control)"] = base.system(
        "control_long_smoothing", role="control"
    )
    config.systems["Distilled from depth, from its weights, as long"] = base.system("distilled_long", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
