"""Hallucination with generalized distillation (ECCV 2018): step 3, and step 4 with the RGB stream.

    hallujax train --config=configs/hallucination.py:mocap_rgbd,cross_subject --workdir=runs/hallucination

The slides report 71.93 (step 3) and 73.42 (step 4) on NTU RGB+D cross-subject, beside 66.52 for RGB alone.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base, two_stream
from configs import streams as single_streams

# (temperature, soften the student too, times T^2, scale of the feature term). The slides give neither the temperature
# nor lambda_l: the paper preset has the code's T and no factor. The code sums the feature term over a batch of 5 and
# multiplies by 0.01, which is 0.05 under a mean.
DISTILLATION = {
    "": {"temperature": 4.0, "soften_student": True, "temperature_squared": True, "scale": 0.5},
    "paper": {"temperature": 10.0, "soften_student": False, "temperature_squared": False, "scale": 1.0},
    "authors_code": {
        "temperature": 10.0,
        "soften_student": True,
        "temperature_squared": False,
        "scale": 0.05,
    },
}


def stage(config: ConfigDict, preset: str, *, teacher: str = "two_stream", **changes: Any) -> ConfigDict:
    """Step 3 from the depth stream of the stage `teacher`, with some options changed."""
    return base.stage(
        config,
        "hallucination",
        options={"imitation": 0.5, "alpha": 0.5, "layer": "block4"} | DISTILLATION[preset] | changes,
        init_from={"depth": (teacher, "depth"), "hallucination": (teacher, "depth")},
    )


def add(config: ConfigDict, preset: str) -> None:
    config.stages.hallucination = stage(config, preset)
    config.stages.step4 = base.stage(
        config,
        "two_stream",
        options={"modalities": {"hallucination": "rgb", "rgb": "rgb"}, "connect": False},
        init_from={"hallucination": ("hallucination", "hallucination"), "rgb": ("two_stream", "rgb")},
    )
    base.finetune(config, "step4", preset)
    config.systems["Hallucination (step 3)"] = base.system(
        "hallucination", role="privileged", published=("eccv18-3", "Ours - step 3")
    )
    config.systems["Hallucination + RGB (step 4)"] = base.system(
        "step4", role="privileged", published=("eccv18-3", "Ours - step 4")
    )


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, single_streams.add, two_stream.add, add)
