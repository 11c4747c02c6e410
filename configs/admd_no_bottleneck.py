"""ADMD whose two streams have no bottleneck in front of their classes: the best of what was tried on validation clips.

    hallujax train --config=configs/admd_no_bottleneck.py:mocap_rgbd,cross_subject --workdir=runs/admd_no_bottleneck

Chosen on the small benchmark among those of configs/admd_ablations.py and configs/admd_steadied.py; on the large one it
is level with ADMD as it is (docs/results.md). The discriminator then sees the pooled features of the last block, as the
classes do.
"""

from ml_collections import ConfigDict

from configs import admd, base, streams


def add(config: ConfigDict, preset: str) -> None:
    # Under the presets the ECCV depth stream has no bottleneck already.
    plain = "depth" if preset else "depth_no_bottleneck"
    if not preset:
        config.stages[plain] = base.stage(config, "single_stream", options={"modality": "depth"})
        config.stages[plain].model.bottleneck = 0
    config.stages.admd_no_bottleneck = admd.stage(
        config, preset, options={}, init_from={"depth": (plain, "depth"), "hallucination": (plain, "depth")}
    )
    config.stages.admd_no_bottleneck.model.bottleneck = 0
    config.systems["ADMD without bottleneck"] = base.system("admd_no_bottleneck", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, admd.add, add)
