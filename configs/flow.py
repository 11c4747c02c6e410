"""Optical flow, derived from RGB, as a modality: alone, beside RGB, and as its teacher.

    pip install 'hallujax[flow]'
    hallujax train --config=configs/flow.py:mocap_rgbd,cross_subject --workdir=runs/flow

Flow needs no second camera, but more frames of the one there is and time to compute it: what RGB learns from it is had
without. The slides give no number.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.flow = base.stage(config, "single_stream", options={"modality": "flow"})
    config.systems["Depth"].role = "other"  # what is to be recovered here is flow's accuracy
    config.systems["Flow"] = base.system("flow", role="teacher")
    config.systems["RGB + flow, not fine-tuned"] = base.system("rgb", "flow")
    config.stages.flow_hallucination = base.stage(
        config,
        "hallucination",
        options={"teacher": "flow", "imitation": 0.5, "alpha": 0.5, "layer": "block4"}
        | hallucination.DISTILLATION[preset],
        init_from={"flow": ("flow", "flow"), "hallucination": ("flow", "flow")},
    )
    config.stages.control_flow = base.stage(
        config, "single_stream", options={"modality": "rgb"}, init_from={"rgb": ("flow", "flow")}
    )
    config.systems["RGB from flow (control)"] = base.system("control_flow", role="control")
    config.systems["Flow hallucinated (step 3)"] = base.system("flow_hallucination", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
