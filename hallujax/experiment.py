"""An experiment: what a configuration file says, read strictly into types.

`configs/` builds `ml_collections.ConfigDict`s; everything else in the library takes the dataclasses below. Each key is
a field of exactly one of them, so a key that nothing reads cannot exist.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from hallujax.data.transforms import TransformOptions
from hallujax.errors import UsageError
from hallujax.training.optimizer import OptimizerOptions
from hallujax.training.sharding import MeshOptions

ROLES = ("rgb", "ensemble", "control", "rgb+control", "smoothing", "teacher", "privileged", "other")  # see `System`
IMAGENET = "imagenet"  # as the stage of an `init_from`: the ImageNet weights of `Experiment.imagenet_weights`


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which clips, and how they are read.

    Attributes:
      directory: folder that holds the prepared datasets, one sub-folder each.
      dataset: name of the sub-folder.
      protocol: `cross_subject`, `cross_view`, ...
      frames: T, seen of every clip.
      sampling: of training, `mixed` or `uniform`; evaluation is uniform.
      short_clips: `repeat` or `refuse` clips of fewer frames.
      evaluation_batch_size: clips.
      threads: that read ahead.
      keep_decoded: keep every decoded frame in memory, to decode it once instead of once an epoch.
      labelled: share of the training clips whose label is known; see `data.labels.training_labels`.
      label_noise: share of these that have the label of another class.
      bad_records: `stop` at a damaged one in training, or `skip` its clip; see `data.pipeline.ClipLoader`.
      rgb_noise: of RGB in training and evaluation; see `data.poor_rgb.add_noise`.
    """

    directory: str
    dataset: str
    protocol: str
    frames: int
    sampling: str
    short_clips: str
    evaluation_batch_size: int
    threads: int
    keep_decoded: bool
    labelled: float = 1.0
    label_noise: float = 0.0
    bad_records: str = "stop"
    rgb_noise: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauOptions:
    """See `training.optimizer.Plateau`."""

    patience: int
    factor: float
    drops: int

    def __post_init__(self):
        if self.patience < 0 or self.drops < 0 or not 0 < self.factor <= 1:
            raise UsageError(
                f"plateau is patience={self.patience}, factor={self.factor}, drops={self.drops}; "
                "patience and drops must not be negative, and factor must lie in (0, 1]"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One training run: a method, what it starts from, and its budget.

    Attributes:
      name: its folder in the workdir.
      method: a key of `methods.BUILDERS`.
      options: the builder's arguments.
      init_from: `{network: (stage, its network)}`, or `{network: ("imagenet", "")}`.
      model: arguments of `VideoResNet`, `num_classes` apart.
      models: `{network: arguments}` of the streams that differ from `model`, and in what.
      unlabelled: whether it trains on the clips without a label too, of which only a teacher has something to say.
      optimizer: see `OptimizerOptions`.
      plateau: see `PlateauOptions`.
      rounds: which players move together, in order; empty for all at once. See `training.step.train_step`.
      epochs: passes over the training clips (a fraction will do).
      batch_size: clips, over all devices.
      evaluations: how many times the stage is validated, its end included.
      select: `best` validation score (ties: the later), or `last`.
      ghost_batch: clips that batch norm normalises together in training; 0 for the whole batch, or micro-batch.
      accumulate: micro-batches that a batch is computed in, one after the other. See `training.step.train_step`.
      remat: compute the streams' units again for the gradients, rather than keep what is in them.
      skipped_steps: that may follow each other, before a stage whose numbers are not finite is stopped.
    """

    name: str
    method: str
    options: Mapping[str, Any]
    init_from: Mapping[str, tuple[str, str]]
    model: Mapping[str, Any]
    optimizer: OptimizerOptions
    plateau: PlateauOptions
    rounds: tuple[tuple[str, ...], ...]
    epochs: float
    batch_size: int
    evaluations: int
    select: str
    models: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    unlabelled: bool = False
    ghost_batch: int = 0
    accumulate: int = 1
    remat: bool = False
    skipped_steps: int = 10

    def steps(self, clips: int) -> int:
        """Updates in the whole stage, for a split of so many clips."""
        return max(1, round(self.epochs * clips / self.batch_size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """A row of the table.

    Attributes:
      name: of the row.
      stages: whose clip logits are averaged.
      role: in the comparison: `rgb`, `ensemble`, `control`, `rgb+control`, `smoothing` (what a distilled model is
        compared with), `teacher` (whose accuracy it is to recover), `privileged` (tested on RGB, taught by more) or
        `other`.
      published: `(table, method)` of the row in `evaluation/published.csv`, or two empty strings.
      test_modalities: what the row is tested on, for stages that can do with fewer modalities than they have
        (ModDrop); empty for all of them.
    """

    name: str
    stages: tuple[str, ...]
    role: str
    published: tuple[str, str]
    test_modalities: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A whole configuration.

    Attributes:
      seed: of everything random; a stage folds its own name in.
      data, transforms, mesh: see there.
      imagenet_weights: path of a file or folder that `models.pretrained.read` reads, or empty.
      log_every: updates between two lines of the metrics log.
      checkpoint_every: updates between two checkpoints.
      stages: in the order they are declared.
      systems: the table.
    """

    seed: int
    data: DataOptions
    transforms: TransformOptions
    imagenet_weights: str
    log_every: int
    checkpoint_every: int
    stages: Mapping[str, Stage]
    systems: Sequence[System]
    mesh: MeshOptions = dataclasses.field(default_factory=MeshOptions)

    def order(self) -> list[Stage]:
        """The stages, each after those it starts from.

        Raises:
          UsageError: if a stage starts from one that is not declared, or from itself in a circle.
        """
        done: list[Stage] = []
        visiting: list[str] = []

        def visit(name: str, wanted_by: str):
            if name not in self.stages:
                raise UsageError(f"{wanted_by} starts from stage {name!r}, which is not one of {list(self.stages)}")
            if name in visiting:
                raise UsageError(f"stages start from each other in a circle: {' <- '.join([*visiting, name])}")
            if self.stages[name] in done:
                return
            visiting.append(name)
            for parent in self.parents(name):
                visit(parent, f"stage {name!r}")
            visiting.pop()
            done.append(self.stages[name])

        for name in self.stages:
            visit(name, "the experiment")
        return done

    def parents(self, name: str) -> list[str]:
        """The stages that `name` starts from, each once."""
        sources = [stage for stage, _ in self.stages[name].init_from.values() if stage != IMAGENET]
        return list(dict.fromkeys(sources))

    def ancestors(self, name: str) -> list[str]:
        """`name` and every stage it rests on, each once."""
        names = [name]
        for found in names:
            names += [parent for parent in self.parents(found) if parent not in names]
        return names

    def _from_imagenet(self, name: str) -> bool:
        return any(source == IMAGENET for source, _ in self.stages[name].init_from.values())

    def stage_seed(self, name: str) -> int:
        """A seed of the stage's own, so that two stages alike in all but name are two independent runs."""
        return zlib.crc32(f"{self.seed}/{name}".encode()) >> 1

    def identity(self, name: str) -> dict[str, Any]:
        """All that decides a stage's result, as plain JSON.

        Where the data are, where and how it is computed, and logging are not part of it, nor are ImageNet weights that
        nothing of it starts from, nor what becomes of a run that met bad records or numbers: a run that was stopped by
        them may go on with another answer.
        """
        data = _without_defaults(self.data)
        for key in ("directory", "evaluation_batch_size", "threads", "keep_decoded", "bad_records"):
            data.pop(key, None)
        stages = {n: _without_defaults(self.stages[n]) for n in sorted(self.ancestors(name))}
        for stage in stages.values():
            for key in ("skipped_steps", "remat"):
                stage.pop(key, None)
        return json.loads(
            json.dumps(
                {
                    "seed": self.seed,
                    "data": data,
                    "transforms": dataclasses.asdict(self.transforms),
                    "imagenet_weights": self.imagenet_weights if any(map(self._from_imagenet, stages)) else "",
                    "stages": stages,
                }
            )
        )


def read_config(config: ConfigDict) -> Experiment:
    """A configuration as an `Experiment`; its `training`, the defaults that every stage has a copy of, is left out.

    Raises:
      UsageError: naming a key that is unknown, missing or of an impossible value.
    """
    raw = _plain(config)
    for key in ("data", "transforms"):
        if key not in raw:
            raise UsageError(f"the configuration lacks {key}")
    stages = {name: _read_stage(name, stage) for name, stage in raw.pop("stages", {}).items()}
    if not stages:
        raise UsageError("the configuration declares no stages")
    systems = [_read(System, {"name": name} | row, f"systems.{name}") for name, row in raw.pop("systems", {}).items()]
    for system in systems:
        if system.role not in ROLES:
            raise UsageError(f"systems.{system.name}.role is {system.role!r}; known: {', '.join(ROLES)}")
        if unknown := set(system.stages) - set(stages):
            raise UsageError(f"system {system.name!r} needs the stages {sorted(unknown)}, which are not declared")
    raw.pop("training", None)
    data = _read(DataOptions, raw.pop("data"), "data")
    transforms = _read(TransformOptions, raw.pop("transforms"), "transforms")
    parts = {
        "data": data,
        "transforms": transforms,
        "mesh": _read(MeshOptions, raw.pop("mesh", {}), "mesh"),
        "stages": stages,
        "systems": systems,
    }
    experiment = _read(Experiment, raw | parts, "")
    for where, value in (
        ("log_every", experiment.log_every),
        ("checkpoint_every", experiment.checkpoint_every),
        ("data.frames", data.frames),
        ("data.evaluation_batch_size", data.evaluation_batch_size),
        ("data.threads", data.threads),
    ):
        if value < 1:
            raise UsageError(f"{where} is {value}; it must be positive")
    experiment.order()
    return experiment


def from_json(raw: Mapping[str, Any]) -> Experiment:
    """An `Experiment` as `run.json` keeps it (`dataclasses.asdict`)."""
    stages = {
        name: _read_stage(name, {key: value for key, value in stage.items() if key != "name"})
        for name, stage in raw["stages"].items()
    }
    nested = {
        "data": _read(DataOptions, raw["data"], "data"),
        "transforms": _read(TransformOptions, raw["transforms"], "transforms"),
        "mesh": _read(MeshOptions, raw.get("mesh", {}), "mesh"),
        "stages": stages,
        "systems": [
            _read(
                System,
                {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()},
                "systems",
            )
            for row in raw["systems"]
        ],
    }
    return _read(Experiment, raw | nested, "")


def _plain(config: ConfigDict) -> dict[str, Any]:
    """A ConfigDict as dicts, references resolved, in its own order (`to_dict` sorts whatever it was told)."""
    return {k: _plain(config[k]) if isinstance(config[k], ConfigDict) else config[k] for k in config.keys()}


def _without_defaults(options: DataOptions | Stage) -> dict[str, Any]:
    """Without the keys that have a default, where they have it: workdirs older than them remain what they are."""
    plain = dataclasses.asdict(options)
    for field in dataclasses.fields(options):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if plain[field.name] == made:
            del plain[field.name]
    return plain


def _read_stage(name: str, raw: dict[str, Any]) -> Stage:
    where = f"stages.{name}"
    if unknown := set(raw) - {field.name for field in dataclasses.fields(Stage)}:
        raise UsageError(f"unknown configuration key {where}.{min(unknown)}")
    if missing := {"optimizer", "plateau", "init_from", "model", "rounds"} - set(raw):
        raise UsageError(f"the configuration lacks {where}.{min(missing)}")
    if any(isinstance(players, str) for players in raw["rounds"]):
        raise UsageError(f"{where}.rounds is {raw['rounds']!r}; it must be a tuple of tuples of players")
    if "stage_sizes" in raw["model"]:
        raw["model"]["stage_sizes"] = tuple(raw["model"]["stage_sizes"])
    if strangers := {key for changes in raw.get("models", {}).values() for key in changes} - set(raw["model"]):
        raise UsageError(f"unknown configuration key {where}.models.NETWORK.{min(strangers)}")
    raw = raw | {
        "name": name,
        "optimizer": _read(OptimizerOptions, raw["optimizer"], f"{where}.optimizer"),
        "plateau": _read(PlateauOptions, raw["plateau"], f"{where}.plateau"),
        "init_from": {network: tuple(source) for network, source in raw["init_from"].items()},
        "rounds": tuple(tuple(players) for players in raw["rounds"]),
    }
    stage = _read(Stage, raw, where)
    if stage.select not in ("best", "last"):
        raise UsageError(f"{where}.select is {stage.select!r}; known: best, last")
    for key in ("epochs", "batch_size", "evaluations", "accumulate"):
        if getattr(stage, key) <= 0:
            raise UsageError(f"{where}.{key} is {getattr(stage, key)}; it must be positive")
    if stage.ghost_batch < 0:
        raise UsageError(f"{where}.ghost_batch is {stage.ghost_batch}; 0 is for the whole batch")
    parts = stage.accumulate * (stage.ghost_batch or 1)
    if stage.batch_size % parts:
        raise UsageError(
            f"{where}.batch_size is {stage.batch_size}; it must divide by {parts}"
            f" (accumulate={stage.accumulate}, ghost_batch={stage.ghost_batch})"
        )
    if stage.skipped_steps < 0:
        raise UsageError(f"{where}.skipped_steps is {stage.skipped_steps}; 0 stops at the first")
    return stage


def _read(kind: type, raw: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a dict with exactly its fields' names."""
    prefix = f"{where}." if where else ""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := set(raw) - set(fields):
        raise UsageError(f"unknown configuration key {prefix}{min(unknown)}; known here: {', '.join(fields)}")
    required = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := required - set(raw):
        raise UsageError(f"the configuration lacks {prefix}{min(missing)}")
    return kind(**raw)
