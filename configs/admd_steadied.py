"""What may steady ADMD's game, of which neither the slides nor the released code say anything: one stage each.

    hallujax train --config=configs/admd_steadied.py:mocap_rgbd,cross_subject --workdir=runs/admd_steadied

A discriminator that is too sure of itself teaches nothing. Its real labels smoothed, its weights bounded, its slope at
real features penalised, or, the other way, a discriminator that moves twice for every step of the student. All have
ADMD's own budget in updates of the student.
"""

from ml_collections import ConfigDict

from configs import admd, base, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.admd_smoothed = admd.stage(config, preset, options={"discriminator_smoothing": 0.1})
    config.systems["ADMD, real labels smoothed"] = base.system("admd_smoothed", role="privileged")

    config.stages.admd_spectral_norm = admd.stage(config, preset, options={"spectral_norm": True})
    config.systems["ADMD, spectral norm"] = base.system("admd_spectral_norm", role="privileged")

    if preset != "authors_code":  # whose discriminator has batch norm
        config.stages.admd_r1 = admd.stage(config, preset, options={"r1": 1.0})
        config.systems["ADMD, R1 penalty"] = base.system("admd_r1", role="privileged")

    config.stages.admd_two_moves = admd.stage(config, preset, options={})
    config.stages.admd_two_moves.rounds = (("discriminator",), ("student", "discriminator"))
    config.systems["ADMD, the discriminator moves twice"] = base.system("admd_two_moves", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, admd.add, add)
