"""Every system there is: the table, what else the papers compare with, and the ablations.

    hallujax train --config=configs/systems.py:mocap_rgbd,cross_subject --workdir=runs/systems

With the workdir of `configs/table.py` it goes on from there: the table's stages are the same.
"""

from ml_collections import ConfigDict

from configs import (
    admd_ablations,
    admd_steadied,
    adversarial,
    balanced,
    base,
    compression,
    controls,
    distillation,
    generation,
    graph,
    hallucination_ablations,
    joints,
    moddrop,
    side_information,
    table,
)


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = table.get_config(arguments)
    for part in (
        controls,
        compression,
        side_information,
        moddrop,
        distillation,
        adversarial,
        admd_ablations,
        admd_steadied,
        hallucination_ablations,
        joints,
        generation,
        graph,
        balanced,
    ):
        part.add(config, base.parse(arguments)[2])
    return config
