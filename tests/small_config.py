"""The shipped table configuration shrunk to seconds: `--config=tests/small_config.py:FOLDER_OF_THE_DATASET`."""

from ml_collections import ConfigDict

from configs import table


def get_config(folder: str) -> ConfigDict:
    return shrunk(table.get_config(), folder)


def shrunk(config: ConfigDict, folder: str) -> ConfigDict:
    """A shipped configuration with networks and budgets of seconds."""
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
    for stage in config.stages.values():
        if str(stage.options.get("layer", "")).startswith("block"):
            stage.options.layer = "block2"
        elif isinstance(stage.options.get("layer"), tuple):
            stage.options.layer = ("block1", "block2")
    return config
