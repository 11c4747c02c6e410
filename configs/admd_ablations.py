"""What ADMD owes to its parts: one stage each, with ADMD's own budget.

    hallujax train --config=configs/admd_ablations.py:mocap_rgbd,cross_subject --workdir=runs/admd_ablations

Neither the slides nor the released code give numbers for these.
"""

from ml_collections import ConfigDict

from configs import admd, admd_no_bottleneck, base, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.admd_no_position = admd.stage(config, preset, options={"position": False})
    config.systems["ADMD without position"] = base.system("admd_no_position", role="privileged")

    admd_no_bottleneck.add(config, preset)

    depth, rgb = admd.teacher(preset)
    if preset == "paper":  # the slides' RGB stream has no bottleneck, the student must
        rgb = "rgb_bottleneck"
        config.stages[rgb] = base.stage(config, "single_stream", options={"modality": "rgb"})
        config.stages[rgb].model.bottleneck = 128
        config.stages[rgb].optimizer.name = "adam"
        config.stages[rgb].optimizer.learning_rate = 1e-3
    # No loss reaches the student's classifier, so one that comes from RGB knows nothing of depth's features.
    config.stages.admd_from_rgb = admd.stage(
        config,
        preset,
        options={"predict_from": "teacher"},
        init_from={"hallucination": (rgb, "rgb"), "classifier": (depth, "depth")},
    )
    config.systems["ADMD from RGB"] = base.system("admd_from_rgb", role="privileged")

    for name, row, hidden in (
        ("admd_linear", "ADMD, linear discriminator", ()),
        ("admd_deep", "ADMD, discriminator of five layers", (256, 256, 128, 128)),
    ):
        config.stages[name] = admd.stage(config, preset, options={"discriminator_hidden": hidden})
        config.systems[row] = base.system(name, role="privileged")

    config.stages.admd_pooled = admd.stage(config, preset, options={"features": "pooled"})
    config.systems["ADMD on features before the bottleneck"] = base.system("admd_pooled", role="privileged")

    config.stages.admd_classes = admd.stage(config, preset, options={"predict_from": "discriminator"})
    config.systems["ADMD, the discriminator's classes"] = base.system("admd_classes", role="privileged")

    config.stages.admd_set = admd.stage(config, preset, options={"classify_set": True})
    config.systems["ADMD, discriminator of the set of frames"] = base.system("admd_set", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, admd.add, add)
