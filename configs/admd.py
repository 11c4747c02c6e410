"""Adversarial discriminative modality distillation (TPAMI 2019), alone and fused with the RGB stream.

    hallujax train --config=configs/admd.py:mocap_rgbd,cross_subject --workdir=runs/admd

The slides report 67.57 (hallucination alone) and 73.11 (with RGB) on NTU RGB+D cross-subject, beside 67.95 for RGB.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import base, streams


def teacher(preset: str) -> tuple[str, str]:
    """The stages of the depth and RGB streams that ADMD starts from."""
    return ("admd_depth", "admd_rgb") if preset else ("depth", "rgb")


def stage(
    config: ConfigDict,
    preset: str,
    method: str = "admd",
    *,
    options: Mapping[str, Any],
    init_from: Mapping[str, tuple[str, str]] | None = None,
) -> ConfigDict:
    """A game with ADMD's teacher, rates and discriminator; `options` and `init_from` say what is different."""
    depth, _ = teacher(preset)
    block = base.stage(
        config,
        method,
        options={
            "position": True,
            "discriminator_batch_norm": preset == "authors_code",
            "discriminator_weight": 0.5 if preset == "authors_code" else 1.0,
        }
        | dict(options),
        # The student's classifier is the teacher's and gets no gradient: it must start from depth.
        init_from={"depth": (depth, "depth"), "hallucination": (depth, "depth")} | dict(init_from or {}),
        # Single trials of 506 steps on 810 clips, validation accuracy, student's rate and discriminator's:
        # 1e-3 and 2e-4 0.72,
        # 2e-3 and 5e-4 0.67, both 5e-4 0.66, 3e-4 and 1e-4 0.57.
        learning_rates={} if preset else {"discriminator": 2e-4},
    )
    # At the streams' rate the student leaves its classifier behind.
    block.optimizer.learning_rate = 1e-3
    if preset:
        block.model.bottleneck = 128
        block.optimizer.name = "adam"
    return block


def add(config: ConfigDict, preset: str) -> None:
    depth, rgb = teacher(preset)
    if preset:
        # "All networks are trained with Adam, lr=0.001": streams of ADMD's own, beside those of the ECCV paper. The
        # slides give a bottleneck to depth alone; in the released code a flag that is always true gives RGB one too.
        for name, modality in ((depth, "depth"), (rgb, "rgb")):
            config.stages[name] = base.stage(config, "single_stream", options={"modality": modality})
            with_bottleneck = modality == "depth" or preset == "authors_code"
            config.stages[name].model.bottleneck = 128 if with_bottleneck else 0
            config.stages[name].optimizer.name = "adam"
            config.stages[name].optimizer.learning_rate = 1e-3
        config.systems["ADMD depth with bottleneck"] = base.system(
            depth, published=("admd-4", "ADMD - Depth stream w/ bottleneck")
        )
        config.systems["ADMD RGB"] = base.system(rgb, published=("admd-4", "ADMD - RGB stream"))
    config.stages.admd = stage(config, preset, options={"objective": "non_saturating"})
    config.systems["ADMD hallucination"] = base.system(
        "admd", role="privileged", published=("admd-4", "ADMD - Hall. stream alone")
    )
    config.systems["ADMD two-stream"] = base.system(
        "admd", rgb, role="privileged", published=("admd-4", "ADMD - Hall. two-stream model")
    )


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
