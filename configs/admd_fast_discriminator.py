"""ADMD whose discriminator learns ten times as fast as that of `admd`.

    hallujax train --config=configs/admd_fast_discriminator.py:mocap_rgbd,cross_subject --workdir=runs/admd_fast

On the small benchmark it is the best of five rates on validation clips, of 0.1 to 10 times that of `admd`; 30 times,
tried later, is better there (docs/quick.md). Slower ones leave a discriminator that is right about few real features.
"""

from ml_collections import ConfigDict

from configs import admd, base, streams

FACTOR = 10.0  # on the rate of ADMD's discriminator


def add(config: ConfigDict, preset: str) -> None:
    own = config.stages.admd.optimizer
    rate = own.learning_rates.discriminator if "discriminator" in own.learning_rates else own.learning_rate
    config.stages.admd_fast_discriminator = admd.stage(config, preset, options={"objective": "non_saturating"})
    config.stages.admd_fast_discriminator.optimizer.learning_rates.discriminator = rate * FACTOR
    config.systems["ADMD, a fast discriminator"] = base.system("admd_fast_discriminator", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, admd.add, add)
