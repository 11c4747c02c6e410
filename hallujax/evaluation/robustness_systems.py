"""Which systems of an experiment show what failing depth does, and the logits of each."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hallujax.errors import UsageError
from hallujax.evaluation.noisy import Answers, teacher_of
from hallujax.experiment import Experiment, System
from hallujax.methods import Method

FUSE = "Always fuse"


@dataclasses.dataclass(frozen=True)
class Systems:
    """Which systems of an experiment are compared, found by what they see.

    Attributes:
      admd: the stage whose discriminator switches.
      rgb: the stages that the switched system averages with it.
      trusted: name of the system that switching starts from, `rgb` averaged with ADMD's teacher.
      fallback: the system that it falls back to, `rgb` averaged with ADMD's hallucination.
      two_streams: further systems that see RGB and depth.
      hallucinating: further systems that see RGB alone through two streams or more and were taught by depth.
    """

    admd: str
    rgb: tuple[str, ...]
    trusted: str
    fallback: System
    two_streams: tuple[System, ...]
    hallucinating: tuple[System, ...]

    @property
    def stages(self) -> list[str]:
        """All that must be finished."""
        systems = (self.fallback, *self.two_streams, *self.hallucinating)
        return list(dict.fromkeys(stage for system in systems for stage in system.stages))


def choose_systems(experiment: Experiment, methods: Mapping[str, Method], name: str | None) -> Systems:
    """The systems of an experiment that the analyses compare.

    Args:
      methods: of its stages.
      name: of the system that averages an ADMD stage with RGB streams; the first one declared if None.

    Raises:
      UsageError: if there is no such system, or its teacher does not see depth.
    """
    tested = {
        system.name: {modality for stage in system.stages for modality in methods[stage].test_modalities}
        for system in experiment.systems
    }
    admd = [stage for stage in experiment.stages.values() if stage.method == "admd"]
    if not admd:
        raise UsageError("this run has no ADMD stage, whose discriminator is wanted; train configs/table.py")
    names = {stage.name for stage in admd}
    able = {
        system.name: system
        for system in experiment.systems
        if tested[system.name] == {"rgb"} and len(system.stages) > 1 and len(names.intersection(system.stages)) == 1
    }
    if not able:
        raise UsageError("no system of this run averages an ADMD stage with an RGB stream; train configs/table.py")
    if name is not None and name not in able:
        raise UsageError(f"--system is {name!r}; it can be {' or '.join(map(repr, able))}")
    fallback = able[name] if name is not None else next(iter(able.values()))
    stage = next(stage for stage in fallback.stages if stage in names)
    teacher = teacher_of(methods[stage])
    if (seen := methods[stage].modalities[teacher]) != "depth":
        raise UsageError(f"stage {stage!r} learned from {seen}; the noise is for depth")
    rgb = tuple(other for other in fallback.stages if other != stage)
    # ADMD's teacher is frozen: if it came from a single stream, a system with that one is the trusted, under its name.
    source, _ = experiment.stages[stage].init_from[teacher]
    same = {source, *rgb} if source in methods and len(methods[source].networks) == 1 else set()
    trusted = next((s.name for s in experiment.systems if set(s.stages) == same), f"RGB + depth of {stage}")

    def streams(system):
        every = [m for each in system.stages for m in methods[each].modalities.values()]
        return sum(modality in tested[system.name] for modality in every)

    return Systems(
        stage,
        rgb,
        trusted,
        fallback,
        tuple(s for s in experiment.systems if tested[s.name] == {"rgb", "depth"} and s.name != trusted),
        tuple(s for s in experiment.systems if s.role == "privileged" and s is not fallback and streams(s) > 1),
    )


def system_logits(systems: Systems, blind: Mapping[str, np.ndarray], answers: Answers) -> dict[str, np.ndarray]:
    """`{system: clip logits [N, K]}` under one condition, and FUSE, the mean of all streams; switches apart.

    Args:
      blind: `{stage: clip logits}` of the stages that see RGB alone.
      answers: of the others.
    """
    known = {**blind, **answers.stages}
    rgb = [blind[stage] for stage in systems.rgb]
    fused = {
        **{system.name: [known[stage] for stage in system.stages] for system in systems.two_streams},
        systems.trusted: [answers.teacher, *rgb],
        **{system.name: [known[stage] for stage in system.stages] for system in systems.hallucinating},
        systems.fallback.name: [known[stage] for stage in systems.fallback.stages],
        FUSE: [answers.teacher, blind[systems.admd], *rgb],
    }
    return {name: np.mean(members, axis=0) for name, members in fused.items()}
