"""The table, and distillation by predictions, with two in five training labels wrong.

    hallujax train --config=configs/label_noise.py:mocap_rgbd,cross_subject --workdir=runs/label_noise

The slides tie distillation to noisy labels; they give no number. The teachers learn from the same labels; validation
and test labels are right. `--config.data.label_noise=0.2` gives another share.
"""

from ml_collections import ConfigDict

from configs import base, distillation, table


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = table.get_config(arguments)
    config.data.label_noise = 0.4
    distillation.add(config, base.parse(arguments)[2])
    return config
