"""One stage, small enough for a test: `--config=tests/data/one_stage_config.py:DATASET,PROTOCOL`."""

from ml_collections import ConfigDict

from configs import base


def get_config(arguments: str) -> ConfigDict:
    config = base.get_config(arguments)
    config.data.frames = 2
    config.data.evaluation_batch_size = 4
    config.training.model.stage_sizes = (1,)
    config.training.model.width = 4
    config.training.model.bottleneck = 0
    config.training.batch_size = 4
    config.training.epochs = 0.67
    config.training.evaluations = 1
    config.stages.depth = base.stage(config, "single_stream", options={"modality": "depth"})
    config.systems["Depth"] = base.system("depth")
    return config
