"""Smaller still: the two streams of step 4 distilled into one RGB stream, and into a small one.

    hallujax train --config=configs/compression.py:mocap_rgbd,cross_subject --workdir=runs/compression

The one stream starts from step 4's hallucination network. The small ones, half as wide, start from scratch; the first
learns from labels alone for as long as the second.
"""

from ml_collections import ConfigDict

from configs import base, baselines, hallucination, streams, two_stream


def add(config: ConfigDict, preset: str) -> None:
    teachers = {"hallucination": "rgb", "rgb": "rgb"}
    options = {"teachers": teachers, "imitation": 0.5} | {
        key: value for key, value in hallucination.DISTILLATION[preset].items() if key != "scale"
    }
    from_step4 = {network: ("step4", network) for network in teachers}
    half = config.training.model.width // 2

    config.stages.compressed = base.stage(
        config, "distillation", options=options, init_from=from_step4 | {"student": ("step4", "hallucination")}
    )
    config.stages.small_rgb = base.stage(
        config, "single_stream", options={"modality": "rgb"}, models={"rgb": {"width": half}}
    )
    config.stages.small_compressed = base.stage(
        config, "distillation", options=options, init_from=from_step4, models={"student": {"width": half}}
    )
    config.systems["Step 4 in one stream"] = base.system("compressed", role="privileged")
    config.systems["Half as wide, RGB"] = base.system("small_rgb")
    config.systems["Half as wide, step 4 in one stream"] = base.system("small_compressed", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, hallucination.add, add)
