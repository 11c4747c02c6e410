"""A quarter of the clips: what distillation and ADMD add to depth's weights, patience and smoothed labels.

    hallujax table --config=configs/few_clips.py:mocap_rgbd,cross_subject --workdir=runs/few --seeds 3

The other clips are left out of training, whatever their modalities; every stage takes about as many steps as with all.
All students but RGB start from depth and train for as long as step 3 does in all (see `conditions`).
`--config.data.labelled=0.1` keeps another share.
"""

from ml_collections import ConfigDict

from configs import admd, base, conditions, controls, streams


def add(config: ConfigDict, preset: str) -> None:
    conditions.add(config, preset)
    admd.add(config, preset)
    if not preset:  # their stages end on a plateau, or are as long as they are
        span = config.training.get_ref("epochs") / config.data.get_ref("labelled")
        for name, stage in config.stages.items():
            stage.epochs = span if name in ("depth", "rgb") else span * controls.LENGTH


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = base.composed(arguments, streams.add, add)
    config.data.labelled = 0.25
    return config
