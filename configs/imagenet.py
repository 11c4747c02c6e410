"""The table with ResNet-50 from ImageNet, as both papers train, and ADMD's student from depth and from ImageNet.

    hallujax train --config=configs/imagenet.py:mocap_rgbd,cross_subject --workdir=runs/imagenet \
      --config.imagenet_weights=weights/resnet50

docs/weights.md says which files of weights are read. Nothing was trained by this here: it is meant for a GPU.
"""

from ml_collections import ConfigDict

from configs import admd, base, table
from hallujax.experiment import IMAGENET


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = table.get_config(arguments)
    preset = base.parse(arguments)[2]
    config.transforms.downsample = 1
    config.training.model.stage_sizes = (3, 4, 6, 3)
    config.training.model.width = 64
    for stage in config.stages.values():
        if stage.method == "single_stream" and not stage.init_from:
            stage.init_from[stage.options.modality] = (IMAGENET, "")
    depth, _ = admd.teacher(preset)
    # No loss reaches the student's classifier, which ImageNet knows nothing of.
    config.stages.admd_from_imagenet = admd.stage(
        config,
        preset,
        options={"predict_from": "teacher"},
        init_from={"hallucination": (IMAGENET, ""), "classifier": (depth, "depth")},
    )
    config.systems["ADMD from ImageNet"] = base.system("admd_from_imagenet", role="privileged")
    return config
