"""Depth, and ADMD that starts from it, in seconds: `--config=tests/faults/two_stages_config.py:FOLDER`, of the data."""

import small_config
from ml_collections import ConfigDict

STAGES = ("depth", "admd")


def get_config(folder: str) -> ConfigDict:
    config = small_config.get_config(folder)
    config.training.model.stage_sizes = (1,)
    config.training.epochs = 8.0
    config.training.evaluations = 5
    config.checkpoint_every = 3
    for name in list(config.systems):
        if not set(config.systems[name].stages) <= set(STAGES):
            del config.systems[name]
    for name in list(config.stages):
        if name not in STAGES:
            del config.stages[name]
    return config
