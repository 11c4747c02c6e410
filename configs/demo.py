"""The table on the `quick` benchmark with a small fixed budget, for `hallujax demo`.

    hallujax demo --out runs/demo

One seed of minutes: it shows that every part works and claims nothing beyond that; RGB from scratch is far from
converged in this budget. What benchmarks/results has is three seeds on `standard`.
"""

from ml_collections import ConfigDict

from configs import table


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = table.get_config(arguments)
    config.data.directory = "runs/demo/data"
    config.transforms.downsample = 1  # its frames are 48x48
    config.transforms.shift = 3
    config.training.evaluations = 4
    return config
