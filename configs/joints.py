"""Joints as a privileged modality, beside depth and with it: an LSTM over skeletons that teaches RGB and depth.

    hallujax train --config=configs/joints.py:mocap_rgbd,cross_subject --workdir=runs/joints

The slides report 60.7 for a Deep LSTM on NTU RGB+D cross-subject. Nothing of an LSTM fits into a ResNet: those that
learn from joints start from scratch, but for ADMD's student, which starts from RGB.
"""

from ml_collections import ConfigDict

from configs import admd, base, hallucination, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.joints = base.stage(config, "single_stream", options={"modality": "joints"})
    config.systems["Joints"] = base.system("joints", published=("eccv18-3", "Deep LSTM [23]"))
    for name, others in (
        ("RGB + joints", ("rgb",)),
        ("Depth + joints", ("depth",)),
        ("RGB + depth + joints", ("rgb", "depth")),
    ):
        config.systems[f"{name}, not fine-tuned"] = base.system(*others, "joints")

    softening = {key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"}
    for name, row, role, student, teachers in (
        ("distilled_joints", "Distilled from joints", "privileged", "rgb", ("joints",)),
        ("distilled_depth_joints", "Distilled from depth and joints", "privileged", "rgb", ("depth", "joints")),
        ("depth_from_joints", "Depth distilled from joints", "other", "depth", ("joints",)),
    ):
        config.stages[name] = base.stage(
            config,
            "distillation",
            options={"teachers": {teacher: teacher for teacher in teachers}, "student_modality": student}
            | {"imitation": 0.5}
            | softening,
            init_from={teacher: (teacher, teacher) for teacher in teachers},
        )
        config.systems[row] = base.system(name, role=role)

    if preset:  # their RGB streams have no bottleneck, so their features are of another size than an LSTM's
        return
    config.stages.joints_hallucination = base.stage(
        config,
        "hallucination",
        options={"teacher": "joints", "imitation": 0.5, "alpha": 0.5, "layer": "features"}
        | hallucination.DISTILLATION[preset],
        init_from={"joints": ("joints", "joints")},
    )
    config.systems["Joints hallucinated (step 3, features)"] = base.system("joints_hallucination", role="privileged")

    config.stages.admd_joints = admd.stage(
        config,
        preset,
        options={"teacher": "joints", "predict_from": "teacher"},
        init_from={
            "joints": ("joints", "joints"),
            "hallucination": ("rgb", "rgb"),
            "classifier": ("joints", "joints"),
        },
    )
    del config.stages.admd_joints.init_from["depth"]
    config.systems["ADMD from joints"] = base.system("admd_joints", role="privileged")

    config.stages.admd_depth_joints = admd.stage(
        config,
        preset,
        options={"teacher": "joints", "student_modality": "depth", "predict_from": "teacher"},
        init_from={
            "joints": ("joints", "joints"),
            "hallucination": ("depth", "depth"),
            "classifier": ("joints", "joints"),
        },
    )
    del config.stages.admd_depth_joints.init_from["depth"]
    config.systems["Depth by ADMD from joints"] = base.system("admd_depth_joints")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
