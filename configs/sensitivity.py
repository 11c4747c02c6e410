"""How much step 3 depends on its settings, beside ADMD, which is said to need no balancing: one setting at a time.

    hallujax table --config=configs/sensitivity.py:mocap_rgbd,cross_subject --workdir=runs/table --seeds 3
    hallujax sensitivity --workdir=runs/table

Each stage is step 3 with one of imitation, alpha, scale and temperature changed, or ADMD with its discriminator's
learning rate changed, which is what its game has to be balanced by; each has the budget of what it varies.
"""

from fractions import Fraction

from ml_collections import ConfigDict

from configs import admd, base, baselines, hallucination, streams, two_stream

VALUES = {"imitation": (0.0, 0.25, 0.75, 1.0), "alpha": (0.1, 0.25, 0.75, 0.9)}
FACTORS = {"scale": (0.01, 0.1, 10.0, 100.0), "temperature": (0.25, 0.5, 2.5)}  # on step 3's own
RATES = (0.1, 0.3, 3.0, 10.0, 30.0, 100.0)  # factors on the learning rate of ADMD's discriminator


def add(config: ConfigDict, preset: str) -> None:
    own = config.stages.hallucination.options
    for key, tried in (VALUES | FACTORS).items():
        for number, value in enumerate(tried, 1):
            name, changed = f"hallucination_{key}{number}", value * own[key] if key in FACTORS else value
            config.stages[name] = hallucination.stage(config, preset, **{key: changed})
            row = f"Hallucination, {key} {'times ' if key in FACTORS else ''}{_fraction(value)}"
            config.systems[row] = base.system(name, role="privileged")

    own = config.stages.admd.optimizer
    rate = own.learning_rates.discriminator if "discriminator" in own.learning_rates else own.learning_rate
    for number, factor in enumerate(RATES, 1):
        name = f"admd_rate{number}"
        config.stages[name] = admd.stage(config, preset, options={"objective": "non_saturating"})
        config.stages[name].optimizer.learning_rates.discriminator = rate * factor
        row = f"ADMD, its discriminator's rate times {_fraction(factor)}"
        config.systems[row] = base.system(name, role="privileged")


def _fraction(value: float) -> Fraction:
    """1/4 for 0.25: a ConfigDict takes no dots in names."""
    return Fraction(value).limit_denominator(1000)


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, hallucination.add, admd.add, add)
