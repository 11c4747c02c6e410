"""The shipped table configuration shrunk to seconds: `--config=tests/small_config.py:FOLDER_OF_THE_DATASET`."""

from ml_collections import ConfigDict

from configs import table


def get_config(folder: str) -> ConfigDict:
    config = table.get_config()
    config.data.directory = folder
    config.data.frames = 3
    config.data.evaluation_batch_size = 8
    config.training.model.stage_sizes = (1, 2)
    config.training.model.width = 4
    config.training.model.bottleneck = 8
    config.training.batch_size = 4
    config.training.epochs = 0.7
    config.training.evaluations = 2
    config.log_every = 1
    config.stages.hallucination.options.layer = "block2"
    return config
