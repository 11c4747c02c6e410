"""Graph distillation after Luo et al. (ECCV 2018): which of depth and joints to believe is learned, clip by clip.

    hallujax train --config=configs/graph.py:mocap_rgbd,cross_subject --workdir=runs/graph

They report 89.50 on NTU RGB+D cross-subject, with more modalities and other networks.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, joints, streams


def add(config: ConfigDict, preset: str) -> None:
    softening = {key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"}
    for name, row, teachers, published in (
        ("graph", "depth and joints (Luo)", ("depth", "joints"), ("admd-4", "Luo et al. [21]")),
        ("graph_rgb", "RGB, depth and joints", ("rgb", "depth", "joints"), ("", "")),
    ):
        config.stages[name] = base.stage(
            config,
            "graph_distillation",
            options={"teachers": {teacher: teacher for teacher in teachers}, "imitation": 0.5} | softening,
            init_from={teacher: (teacher, teacher) for teacher in teachers},
        )
        config.systems[f"Graph distillation, {row}"] = base.system(name, role="privileged", published=published)


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, joints.add, add)
