"""Which of step 3's three losses does what: each alone and each pair, with step 3's budget and start.

    hallujax train --config=configs/hallucination_ablations.py:mocap_rgbd,cross_subject --workdir=runs/losses

The slides give no numbers for these.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, streams, two_stream

# (imitation, alpha). Step 3 weighs hard, soft and feature 1 : 1 : 2; pairs keep the ratio they have there.
LOSSES = {
    "hard": (0.0, 0.0),
    "soft": (1.0, 0.0),
    "feature": (0.5, 1.0),
    "hard_soft": (0.5, 0.0),
    "hard_feature": (0.0, 2 / 3),
    "soft_feature": (1.0, 2 / 3),
}


def add(config: ConfigDict, preset: str) -> None:
    for losses, (imitation, alpha) in LOSSES.items():
        name = f"hallucination_{losses}"
        config.stages[name] = hallucination.stage(config, preset, imitation=imitation, alpha=alpha)
        config.systems[f"Hallucination, {losses.replace('_', ' and ')} only"] = base.system(name, role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, two_stream.add, hallucination.add, add)
