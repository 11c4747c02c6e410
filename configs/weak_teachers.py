"""Teachers that are weak, or no better than their student: trained for a tenth, of the same modality, inverted.

    hallujax table --config=configs/weak_teachers.py:mocap_rgbd,cross_subject --workdir=runs/table --seeds 3
    hallujax teachers --workdir runs/table

"Weak teachers might also improve students" (slides, after Yuan et al., CVPR 2020). Students start from scratch, but for
the inverted order of `configs/distillation.py`, whose control is here too: depth from RGB's weights and labels alone.
"""

from ml_collections import ConfigDict

from configs import base, baselines, distillation, hallucination, streams, two_stream

TEACHERS = {  # row, stage of the teacher, its modality
    "short_depth": ("Distilled from depth trained for a tenth", "depth_short", "depth"),
    "short_rgb": ("Distilled from RGB trained for a tenth", "rgb_short", "rgb"),
    "rgb": ("Distilled from RGB", "rgb", "rgb"),
}


def add(config: ConfigDict, preset: str) -> None:
    for modality, row in (("depth", "Depth"), ("rgb", "RGB")):
        name = f"{modality}_short"
        config.stages[name] = base.stage(config, "single_stream", options={"modality": modality})
        config.stages[name].epochs = config.training.get_ref("epochs") * 0.1
        config.systems[f"{row}, trained for a tenth"] = base.system(name)
    softening = {key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"}
    for name, (row, stage, modality) in TEACHERS.items():
        config.stages[f"distilled_{name}"] = base.stage(
            config,
            "distillation",
            options={"teachers": {"teacher": modality}, "imitation": 0.5} | softening,
            init_from={"teacher": (stage, modality)},
        )
        config.systems[row] = base.system(f"distilled_{name}", role="privileged" if modality == "depth" else "other")
    config.stages.depth_control = base.stage(
        config, "single_stream", options={"modality": "depth"}, init_from={"depth": ("rgb", "rgb")}
    )
    config.systems["Depth from RGB (control)"] = base.system("depth_control")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, distillation.add, add)
