"""ADMD without the auxiliary task: a discriminator of real and hallucinated alone, least squares and logistic.

    hallujax train --config=configs/adversarial.py:mocap_rgbd,cross_subject --workdir=runs/adversarial

The slides give no number: "Adversarial Learning (Real/Synthetic) is not enough to learn good features".
"""

from ml_collections import ConfigDict

from configs import admd, base, streams


def add(config: ConfigDict, preset: str) -> None:
    for objective, row in (("least_squares", "least squares"), ("logistic", "logistic")):
        name = f"adversarial_{objective}"
        config.stages[name] = admd.stage(config, preset, "adversarial", options={"objective": objective})
        config.systems[f"Adversarial, real or not ({row})"] = base.system(name, role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, admd.add, add)
