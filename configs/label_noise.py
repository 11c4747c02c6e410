"""Two in five training labels wrong: what distillation adds to depth's weights, patience and smoothed labels.

    hallujax table --config=configs/label_noise.py:mocap_rgbd,cross_subject --workdir=runs/label_noise --seeds 3

The slides tie distillation to noisy labels; they give no number. The teachers learn from the same labels; validation
and test labels are right. The stages are those of `conditions`; `--config.data.label_noise=0.2` gives another share.
"""

from ml_collections import ConfigDict

from configs import conditions


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = conditions.get_config(arguments)
    config.data.label_noise = 0.4
    return config
