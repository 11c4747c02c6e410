"""A quarter of the labels: depth trained on that quarter teaches RGB on the rest by its soft labels.

    hallujax train --config=configs/unlabelled.py:mocap_rgbd,cross_subject --workdir=runs/unlabelled

The slides' last conclusion: pairs (x, x*) without labels can enlarge the training set. They give no number. Every stage
takes as many steps as with all labels; `--config.data.labelled=0.1` gives another share.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, streams


def add(config: ConfigDict, preset: str) -> None:
    softening = {key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"}
    for name, row, unlabelled in (
        ("distilled_labelled", "Distilled from depth, on the labelled clips", False),
        ("distilled_all", "Distilled from depth, on all clips", True),
    ):
        config.stages[name] = base.stage(
            config,
            "distillation",
            options={"teachers": {"depth": "depth"}, "imitation": 0.5} | softening,
            init_from={"depth": ("depth", "depth")},
            unlabelled=unlabelled,
        )
        config.systems[row] = base.system(name, role="privileged")
    if not preset:  # their stages end on a plateau, or are as long as they are
        for stage in config.stages.values():
            if not stage.unlabelled:
                stage.epochs = config.training.get_ref("epochs") / config.data.get_ref("labelled")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = base.composed(arguments, streams.add, add)
    config.data.labelled = 0.25
    return config
