"""The table on the `quick` benchmark with a small fixed budget, for `hallujax demo`.

    hallujax demo --out runs/demo

One seed of minutes: it shows that every part works and claims nothing beyond that. Three seeds of the same are in
benchmarks/results; RGB from scratch is far from converged in this budget.
"""

from ml_collections import ConfigDict

from configs import table


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = table.get_config(arguments)
    config.data.directory = "runs/demo/data"
    config.transforms.shift = 3
    config.training.optimizer.learning_rate = 2e-3
    config.training.epochs = 15.0  # of 450 clips: 422 steps
    config.training.evaluations = 4
    config.stages.admd.optimizer.learning_rate = 1e-3  # at 2e-3 the student leaves its classifier behind
    for stage in ("two_stream", "step4"):  # both streams are trained already
        config.stages[stage].epochs = 4.5
        config.stages[stage].optimizer.learning_rate = 3e-4
    return config
