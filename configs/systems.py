"""Every system there is: the table, what else the papers compare with, and the ablations.

    hallujax train --config=configs/systems.py:mocap_rgbd,cross_subject --workdir=runs/systems

With the workdir of `configs/table.py` it goes on from there: the table's stages are the same. `configs/sensitivity.py`,
which varies the settings of two of them, goes on from there too.
"""

from ml_collections import ConfigDict

from configs import (
    admd_ablations,
    admd_steadied,
    adversarial,
    balanced,
    base,
    compression,
    connections,
    controls,
    distillation,
    equal_budget,
    generation,
    graph,
    hallucination_ablations,
    hallucination_layers,
    joints,
    moddrop,
    side_information,
    table,
    weak_teachers,
)


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = table.get_config(arguments)
    for part in (
        controls,
        equal_budget,
        compression,
        side_information,
        moddrop,
        distillation,
        weak_teachers,
        adversarial,
        admd_ablations,
        admd_steadied,
        hallucination_ablations,
        hallucination_layers,
        connections,
        joints,
        generation,
        graph,
        balanced,
    ):
        part.add(config, base.parse(arguments)[2])
    return config
