"""What other configurations have trained in a workdir: a table that grows by one configuration after the other."""

import dataclasses
import pathlib
from collections.abc import Iterable

from hallujax import sealed
from hallujax.errors import CheckpointError, UsageError
from hallujax.experiment import Experiment, from_json
from hallujax.training.summary import is_done


def with_earlier(experiment: Experiment, workdirs: Iterable[pathlib.Path]) -> Experiment:
    """An experiment, with the stages and systems that `run.json` of its workdirs tells of, these first.

    Of the earlier ones, a stage counts if it is finished and everything it was made from is what the experiment would
    make it from; a system, if its stages do, and the experiment has none of that name.
    """
    for workdir in workdirs:
        experiment = _with_earlier(experiment, workdir)
    return experiment


def _with_earlier(experiment: Experiment, workdir: pathlib.Path) -> Experiment:
    try:
        earlier = from_json(sealed.read(workdir / "run.json", "")["config"])
    except (OSError, CheckpointError, UsageError, LookupError, TypeError, ValueError, AttributeError):
        return experiment  # the first start, or of another hallujax; who reads that file itself says what is wrong
    here = dataclasses.replace(experiment, seed=earlier.seed, stages=earlier.stages | experiment.stages)

    def stays(name: str) -> bool:
        return name in experiment.stages or (
            earlier.identity(name) == here.identity(name)
            and all(is_done(workdir / each) for each in earlier.ancestors(name))
        )

    stages = {name: stage for name, stage in here.stages.items() if stays(name)}
    systems = {system.name: system for system in earlier.systems if set(system.stages) <= stages.keys()}
    systems |= {system.name: system for system in experiment.systems}
    return dataclasses.replace(experiment, stages=stages, systems=list(systems.values()))
