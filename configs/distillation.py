"""Distillation by predictions alone, from several teachers, and label smoothing, which has none.

    hallujax train --config=configs/distillation.py:mocap_rgbd,cross_subject --workdir=runs/distillation

The slides give no numbers; of the inverted order (RGB teaches depth) they say that it is "less performing".
"""

from ml_collections import ConfigDict

from configs import base, baselines, hallucination, streams, two_stream

# Students start from scratch, so that nothing but the soft labels comes from the teacher.
TEACHERS = {
    "ensemble": ("Distilled from the RGB ensemble", "other", {"rgb": "rgb", "rgb2": "rgb"}),
    "depth": ("Distilled from depth (x* alone)", "privileged", {"depth": "depth"}),
    "both": ("Distilled from RGB and depth", "privileged", {"depth": "depth", "rgb": "rgb"}),
}


def add(config: ConfigDict, preset: str) -> None:
    softening = {key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"}
    for name, (row, role, teachers) in TEACHERS.items():
        config.stages[f"distilled_{name}"] = base.stage(
            config,
            "distillation",
            options={"teachers": teachers, "imitation": 0.5} | softening,
            init_from={network: (network, modality) for network, modality in teachers.items()},
        )
        config.systems[row] = base.system(f"distilled_{name}", role=role)

    smoothing = {"modality": "rgb", "label_smoothing": 0.1}
    config.stages.smoothing = base.stage(config, "single_stream", options=smoothing)
    config.systems["RGB, label smoothing"] = base.system("smoothing", role="smoothing")
    config.stages.control_smoothing = base.stage(
        config, "single_stream", options=smoothing, init_from={"rgb": ("depth", "depth")}
    )
    config.systems["RGB from depth, label smoothing (control)"] = base.system("control_smoothing", role="control")

    config.stages.inverted = base.stage(
        config,
        "hallucination",
        options={"teacher": "rgb", "student_modality": "depth", "imitation": 0.5, "alpha": 0.5, "layer": "block4"}
        | hallucination.DISTILLATION[preset],
        init_from={"rgb": ("two_stream", "rgb"), "hallucination": ("two_stream", "rgb")},
    )
    config.systems["Depth taught by RGB (step 3 inverted)"] = base.system("inverted")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, add)
