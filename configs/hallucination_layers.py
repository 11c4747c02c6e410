"""Where step 3 compares student and teacher: each layer alone, and all maps, with step 3's budget and start.

    hallujax train --config=configs/hallucination_layers.py:mocap_rgbd,cross_subject --workdir=runs/layers

Step 3 itself compares the last maps, `block4`. The slides give no numbers for other layers. The feature term is a sum
over a layer's values, of which there are more the earlier it is; its scale is step 3's everywhere.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, streams, two_stream

LAYERS = {
    "block1": "block1",
    "block2": "block2",
    "block3": "block3",
    "features": "features",
    "all": ("block1", "block2", "block3", "block4"),
}


def add(config: ConfigDict, preset: str) -> None:
    for name, layer in LAYERS.items():
        config.stages[f"hallucination_{name}"] = hallucination.stage(config, preset, layer=layer)
        row = "all maps" if name == "all" else name
        config.systems[f"Hallucination of {row}"] = base.system(f"hallucination_{name}", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, two_stream.add, hallucination.add, add)
