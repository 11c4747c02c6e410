"""What failing depth does to a two-stream model, whether ADMD's discriminator notices, and what noticing is worth.

Three analyses of a finished run, from its checkpoints: accuracy against depth noise beside the RGB-only models that
hallucinate; the discriminator's "hallucinated" confidence on real depth features (TPAMI 2019, Fig. 6); and a predictor
that uses depth while the discriminator trusts it and the hallucination when not, which is our own.
"""

import csv
import dataclasses
import io
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hallujax import paths
from hallujax.console import Console
from hallujax.data.noise import NOISES
from hallujax.data.pipeline import check_clips
from hallujax.data.protocols import split
from hallujax.data.records import PreparedDataset
from hallujax.errors import CheckpointError, UsageError
from hallujax.evaluation import finished, switching
from hallujax.evaluation.evaluate import Evaluator
from hallujax.evaluation.figures import noise_curves, require_matplotlib, svg_text
from hallujax.evaluation.noisy import CLEAN, Answers, Condition, NoisyEvaluator
from hallujax.evaluation.robustness_systems import FUSE, Systems, choose_systems, system_logits
from hallujax.experiment import Experiment
from hallujax.methods import Method
from hallujax.training.sharding import make_mesh
from hallujax.training.stages import describe_run
from hallujax.training.start import build_method
from hallujax.training.summary import is_done

DISCRIMINATOR, SOFTMAX = "Switch: discriminator", "Switch: depth's softmax"
POLICIES = (DISCRIMINATOR, SOFTMAX, FUSE)
MEASURED = ("accuracy", "fake_confidence", "auroc", "switched", "regret")
COLUMNS = ("seed", "noise", "level", "system", "clips", *MEASURED)


def measure_robustness(
    run: pathlib.Path,
    *,
    data: pathlib.Path | None,
    out: pathlib.Path,
    false_alarms: float,
    system: str | None,
    command: str,
) -> None:
    """Writes `robustness.csv`, `robustness.json` and `robustness.svg` of a finished run into `out`.

    A seed in which a stage is missing or unfinished is named there and left out.

    Args:
      run: a table's folder with a folder a seed, or one workdir.
      data: folder of the prepared datasets, if not where it was at training.
      out: a folder, made if need be.
      false_alarms: share of clean validation clips that a switch may give up depth for.
      system: see `choose_systems`.
      command: that this was called by.

    Raises:
      UsageError: if there is nothing to measure, or seeds were trained from different settings.
      DataError, CheckpointError: if what it was trained on or wrote cannot be read.
    """
    started = time.monotonic()
    switching.calibrate(np.zeros(1), false_alarms)  # what is wrong is said before minutes of work
    require_matplotlib()
    folders = finished.seed_folders(run)
    experiments = {s: finished.read_experiment(path) for s, path in folders.items() if (path / "run.json").exists()}
    experiment = next(iter(experiments.values()))
    dataset = finished.open_dataset(experiment, data)
    methods = {name: build_method(stage, len(dataset.classes)) for name, stage in experiment.stages.items()}
    systems = choose_systems(experiment, methods, system)
    missing = _missing(folders, systems)
    if len(missing) == len(folders):
        raise UsageError(f"{run} has no finished seed: {'; '.join(f'seed {s}: {why}' for s, why in missing.items())}")
    _refuse_differences({s: each for s, each in experiments.items() if s not in missing}, folders, systems)
    for seed, why in missing.items():
        print(f"seed {seed} is missing: {why}")

    out.mkdir(parents=True, exist_ok=True)
    conditions = [CLEAN, *((kind, level) for kind, noise in NOISES.items() for level in noise.levels)]
    bench = _Bench(experiment, systems, methods, dataset, conditions)
    seeds = [seed for seed in folders if seed not in missing]
    measured = []
    with Console(len(seeds) * bench.work) as console:
        for seed in seeds:
            console.say(f"seed {seed}: {len(conditions)} conditions of {len(bench.rows['test'])} clips")
            networks = {stage: finished.restore(folders[seed] / stage, dataset) for stage in systems.stages}
            measured.append(bench.measure(seed, networks, false_alarms, console))
    rows = [row for seed in measured for row in seed.rows(conditions)]
    made_by = describe_run(experiment, dataset)
    trained = finished.read_settings(folders[seeds[0]])
    summary = {
        "command": command,
        "run": str(run),
        "trained_at_revision": trained["revision"],
        **{key: made_by[key] for key in ("revision", "versions", "python", "platform", "devices", "cores", "dataset")},
        "protocol": experiment.data.protocol,
        "test_clips": len(bench.rows["test"]),
        "seeds": seeds,
        "missing_seeds": missing,
        "noises": {kind: {"severity": n.severity, "levels": n.levels} for kind, n in NOISES.items()},
        "trusted": systems.trusted,
        "fallback": systems.fallback.name,
        "false_alarms": false_alarms,
        "thresholds": [line for seed in measured for line in seed.thresholds],
        "regret": _regrets(measured, conditions),
        "seconds": round(time.monotonic() - started, 1),
    }
    paths.write(out / "robustness.csv", _as_csv(rows))
    paths.write(out / "robustness.json", json.dumps(summary, indent=1) + "\n")
    paths.write(out / "robustness.svg", draw(rows, systems))
    for line in summary["regret"]:
        if line["noise"] == "all":
            print(f"{line['system']:26} regret {line['points']:5.2f} points ({line['low']:.2f} to {line['high']:.2f})")
    print(out / "robustness.svg")


@dataclasses.dataclass(frozen=True)
class _Seed:
    """What one seed said: `right[system][condition]` [N], `answers`, and the alarms of the two switches."""

    seed: int
    systems: Systems
    right: Mapping[str, Mapping[Condition, np.ndarray]]
    answers: Mapping[Condition, Answers]
    alarms: Mapping[str, Mapping[Condition, np.ndarray]]
    thresholds: Sequence[dict[str, Any]]

    def curves(self, conditions: Sequence[Condition], *names: str) -> list[np.ndarray]:
        """For each system of `names`, right or wrong `[L, N]`."""
        return [np.stack([self.right[name][condition] for condition in conditions]) for name in names]

    def rows(self, conditions: Sequence[Condition]) -> list[dict[str, Any]]:
        """A line a condition and system; the columns are COLUMNS."""
        fixed = (self.systems.trusted, self.systems.fallback.name)
        best = dict(zip(conditions, switching.envelope(*self.curves(conditions, *fixed)).mean(axis=1), strict=True))
        clean = self.answers[CLEAN].fake
        return [
            {
                "seed": self.seed,
                "noise": condition[0],
                "level": condition[1],
                "system": name,
                "accuracy": float(self.right[name][condition].mean()),
                "clips": len(clean),
                "fake_confidence": float(self.answers[condition].fake.mean()),
                "auroc": switching.auroc(clean, self.answers[condition].fake),
                "switched": float(self.alarms[name][condition].mean()) if name in self.alarms else None,
                "regret": float(best[condition] - self.right[name][condition].mean())
                if name in (*fixed, *POLICIES)
                else None,
            }
            for condition in conditions
            for name in self.right
        ]


class _Bench:
    """The evaluators of a run, compiled once for all its seeds."""

    def __init__(
        self,
        experiment: Experiment,
        systems: Systems,
        methods: Mapping[str, Method],
        dataset: PreparedDataset,
        conditions: Sequence[Condition],
    ):
        if experiment.data.keep_decoded:
            dataset.keep_decoded()
        self.rows = split(dataset, experiment.data.protocol)
        for part in ("validation", "test"):
            check_clips(dataset, self.rows[part], ("rgb", "depth"), experiment.data.frames, experiment.data.short_clips)
        self._systems, self._conditions = systems, conditions
        self._labels = dataset.index["label"][self.rows["test"]]
        about = (dataset, experiment.data, experiment.transforms, make_mesh())
        seeing = {name: methods[name] for name in systems.stages if "depth" in methods[name].test_modalities}
        self._noisy = NoisyEvaluator((systems.admd, methods[systems.admd]), seeing, *about)
        self._blind = {name: Evaluator(methods[name], *about) for name in systems.stages if name not in seeing}

    @property
    def work(self) -> int:
        """Of one seed, in clips under one condition."""
        return len(self.rows["validation"]) + len(self.rows["test"]) * len(self._conditions)

    def measure(
        self, seed: int, networks: Mapping[str, dict[str, Any]], false_alarms: float, console: Console
    ) -> _Seed:
        """Everything about one seed, from its stages' networks."""
        systems, doubts = self._systems, {DISCRIMINATOR: lambda a: a.fake, SOFTMAX: _depth_doubt}
        clean = self._noisy(networks, self.rows["validation"], [CLEAN], lambda clips: console.advance(clips, "clean"))
        blind = {
            name: evaluator.predict(networks[name]["params"], networks[name]["batch_stats"], self.rows["test"]).logits
            for name, evaluator in self._blind.items()
        }
        answers = self._noisy(
            networks,
            self.rows["test"],
            self._conditions,
            lambda clips: console.advance(clips * len(self._conditions), f"seed {seed}"),
        )
        thresholds = {name: switching.calibrate(doubt(clean[CLEAN]), false_alarms) for name, doubt in doubts.items()}
        right: dict[str, dict[Condition, np.ndarray]] = {}
        for condition, found in answers.items():
            scores = {name: doubt(found) for name, doubt in doubts.items()}
            logits = system_logits(systems, blind, found)
            if odd := [name for name, values in logits.items() if not np.isfinite(values).all()]:
                raise CheckpointError(f"seed {seed}: the logits of {odd[0]} are not finite ({condition[0]} depth)")
            trusted, fallback = logits[systems.trusted], logits[systems.fallback.name]
            for name, threshold in thresholds.items():
                logits[name] = switching.switch(trusted, fallback, scores[name], threshold)
            for name, values in logits.items():
                right.setdefault(name, {})[condition] = values.argmax(axis=1) == self._labels
        alarms = {n: {c: doubts[n](found) > thresholds[n] for c, found in answers.items()} for n in thresholds}
        return _Seed(
            seed,
            systems,
            right,
            answers,
            alarms,
            [
                {
                    "seed": seed,
                    "system": name,
                    "threshold": thresholds[name],
                    "validation_clips": len(self.rows["validation"]),
                    "validation_false_alarms": float((doubts[name](clean[CLEAN]) > thresholds[name]).mean()),
                    "test_false_alarms": float(alarms[name][CLEAN].mean()),
                }
                for name in thresholds
            ],
        )


def _depth_doubt(answers: Answers) -> np.ndarray:
    return switching.softmax_doubt(answers.teacher)


def _missing(folders: Mapping[int, pathlib.Path], systems: Systems) -> dict[int, str]:
    """`{seed: why}` of the seeds that cannot be measured."""
    unfinished = {seed: [s for s in systems.stages if not is_done(path / s)] for seed, path in folders.items()}
    return {seed: f"{', '.join(stages)} not finished" for seed, stages in unfinished.items() if stages}


def _refuse_differences(
    experiments: Mapping[int, Experiment], folders: Mapping[int, pathlib.Path], systems: Systems
) -> None:
    """Seeds are compared clip by clip, so all else must be the same."""
    first, *others = experiments
    identities = {
        seed: [dataclasses.replace(each, seed=0).identity(stage) for stage in systems.stages]
        for seed, each in experiments.items()
    }
    for other in others:
        if identities[other] != identities[first]:
            raise UsageError(f"{folders[first]} and {folders[other]} were trained from different settings")


def _regrets(seeds: Sequence[_Seed], conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """Of each policy and each fixed system: over every level, clean included, and by kind of noise."""
    groups = {"all": conditions}
    for condition in conditions:
        groups[condition[0]] = [c for c in conditions if c[0] == condition[0]]
    fixed = (seeds[0].systems.trusted, seeds[0].systems.fallback.name)
    lines = []
    for name in (*POLICIES, *fixed):
        for kind, members in groups.items():
            every = [seed.curves(members, name, *fixed) for seed in seeds]
            found = switching.regret(*(np.stack(curves) for curves in zip(*every, strict=True)))
            lines.append({"system": name, "noise": kind, **dataclasses.asdict(found)})
    return lines


def draw(rows: Sequence[Mapping[str, Any]], systems: Systems) -> str:
    """The three analyses as one SVG, of the rows of robustness.csv."""
    found = {(row["seed"], row["system"], row["noise"], row["level"]): row for row in rows}
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    places = {kind: [CLEAN, *((kind, level) for level in noise.levels)] for kind, noise in NOISES.items()}

    def curve(name, value="accuracy"):
        return [[[100 * found[s, name, *c][value] for c in places[kind]] for s in seeds] for kind in places]

    fixed = [*(system.name for system in systems.two_streams), systems.trusted]
    blind = [*(system.name for system in systems.hallucinating), systems.fallback.name]
    return svg_text(
        noise_curves(
            [
                {
                    "title": kind,
                    "xlabel": noise.severity,
                    "levels": ["clean", *(f"{level:g}" for level in noise.levels)],
                }
                for kind, noise in NOISES.items()
            ],
            [
                {
                    "title": "Two-stream models whose depth fails, and those that hallucinate it",
                    "ylabel": "accuracy (%)",
                    "lines": {name: curve(name) for name in (*fixed, *blind)},
                },
                {
                    "title": "The discriminator on real depth features",
                    "ylabel": "%",
                    "lines": {
                        'says "hallucinated"': curve(systems.trusted, "fake_confidence"),
                        "tells noisy from clean (AUROC)": curve(systems.trusted, "auroc"),
                    },
                },
                {
                    "title": "Switching from depth to its hallucination",
                    "ylabel": "accuracy (%)",
                    "lines": {name: curve(name) for name in (systems.trusted, systems.fallback.name, *POLICIES)},
                },
            ],
            systems=(*fixed, *blind, *POLICIES),
        )
    )


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        measured = {name: f"{value:.5f}" for name in MEASURED if (value := row[name]) is not None}
        writer.writerow({name: row[name] for name in COLUMNS if name not in MEASURED} | measured)
    return text.getvalue()
