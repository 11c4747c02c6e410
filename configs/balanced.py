"""RGB and depth trained together from scratch, with and without balancing the pace at which they learn.

    hallujax train --config=configs/balanced.py:mocap_rgbd,cross_subject --workdir=runs/balanced

The first challenge the slides name is that modalities learn at different paces; they give no number. Both stages
descend by SGD: Adam divides a gradient by its own size, which undoes most of what the balancing multiplies it by.
"""

from ml_collections import ConfigDict

from configs import base, streams


def add(config: ConfigDict, preset: str) -> None:
    del preset
    modalities = {"depth": "depth", "rgb": "rgb"}
    for name, row, method, options in (
        ("together", "Two-stream from scratch", "two_stream", {"modalities": modalities}),
        ("balanced", "Two-stream from scratch, balanced (OGM)", "balanced_two_stream", {"modalities": modalities}),
    ):
        config.stages[name] = base.stage(config, method, options=options)
        config.stages[name].optimizer.name = "sgd"
        config.stages[name].optimizer.learning_rate = 1e-2
        config.systems[row] = base.system(name)


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
