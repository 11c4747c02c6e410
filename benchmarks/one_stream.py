"""One RGB stream and nothing else: what `startup.py` starts, and `scale.py processes`.

hallujax train --config=benchmarks/one_stream.py:mocap_rgbd,cross_subject --workdir=runs/one
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    config = base.get_config(arguments)
    config.stages.rgb = base.stage(config, "single_stream", options={"modality": "rgb"})
    config.systems.RGB = base.system("rgb", role="rgb", published=("eccv18-3", "Ours - RGB step 1"))
    return config
