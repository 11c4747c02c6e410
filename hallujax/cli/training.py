"""`hallujax demo`, `train`, `table`, `tune`, `evaluate`, `robustness` and `report`: experiments."""

import argparse
import pathlib
import shlex
from collections.abc import Sequence

from hallujax import collector
from hallujax.cli.cache import compile_cache
from hallujax.cli.configuration import read_flags
from hallujax.cli.folders import folder, local_folder
from hallujax.cli.processes import add_flags, in_processes


def _count(text: str) -> int:
    """The type of a flag that says how many."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count; at least one is needed")
    return int(text)


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
    sub = command("demo", _demo, "render the benchmark, train every system of the table, write the report")
    sub.add_argument("--out", type=local_folder, default=pathlib.Path("runs/demo"), help="output folder (%(default)s)")
    sub.add_argument("--seeds", type=_count, default=1, help="seeds to train, 0 to N-1 (%(default)s)")

    train = in_processes(_train)
    sub = command("train", train, "train a configuration's stages, or what is left of them", takes_flags=True)
    _configured(sub)
    sub.add_argument("--workdir", type=folder, required=True, help="one folder a stage is made in it")
    add_flags(sub)

    table = in_processes(_table)
    sub = command("table", table, "train a configuration over several seeds and tabulate it", takes_flags=True)
    _configured(sub)
    sub.add_argument("--workdir", type=folder, required=True, help="seed0, seed1, ... are made in it")
    sub.add_argument("--seeds", type=_count, default=3, help="seeds to train, 0 to N-1 (%(default)s)")
    add_flags(sub)

    sub = command("tune", _tune, "choose settings by validation accuracy, a run for each", takes_flags=True)
    _configured(sub)
    sub.add_argument("--workdir", type=folder, required=True, help="a folder a trial is made in it, and tune.csv")
    sub.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="config.KEY=VALUE,VALUE",
        help="values to try; of several keys, every combination",
    )
    sub.add_argument("--trials", type=int, help="draw so many of the combinations (all)")
    sub.add_argument("--stage", help="whose validation accuracy counts (the one that the keys are of)")
    sub.add_argument("--start-from", type=folder, help="a workdir whose finished stages are taken over")

    evaluate = in_processes(_evaluate)
    sub = command("evaluate", evaluate, "evaluate a workdir's finished stages again, from their checkpoints")
    sub.add_argument("--workdir", type=folder, required=True)
    sub.add_argument("--split", choices=("validation", "test"), default="test")
    sub.add_argument("--data", type=folder, help="folder of the prepared datasets, if it has moved")
    add_flags(sub)

    sub = command("robustness", _robustness, "what becomes of a run's systems, and of switching, when depth fails")
    sub.add_argument("--workdir", type=folder, required=True, help="a table's folder, or one seed's")
    sub.add_argument("--data", type=folder, help="folder of the prepared datasets, if it has moved")
    sub.add_argument("--out", type=folder, help="where robustness.csv, .json and .svg go (the workdir)")
    sub.add_argument(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of the clean validation clips for which a switch may give up depth (%(default)s)",
    )
    sub.add_argument("--system", help="whose discriminator switches (the first that averages an ADMD stage with RGB)")

    sub = command("report", _report, "write report.html from a run's files")
    sub.add_argument("--runs", type=folder, required=True, help="a demo's, table's or train's folder")


def _configured(sub: argparse.ArgumentParser) -> None:
    sub.epilog = (
        "--config=configs/FILE.py:DATASET,PROTOCOL[,PRESET] is required; --config.KEY=VALUE overrides any key "
        "of configs/base.py."
    )


def _demo(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    compile_cache()
    from hallujax.demo import run

    run(options.out, options.seeds)


def _train(options: argparse.Namespace, rest: Sequence[str]) -> None:
    with collector.paused(for_good=True):
        config = read_flags(rest)
        compile_cache()
        from hallujax.training.processes import is_first
        from hallujax.training.stages import train

    config = train(config, options.workdir)
    if is_first():
        from hallujax.evaluation.table import tabulate
        from hallujax.tables import print_table
        from hallujax.training.earlier import with_earlier

        whole = with_earlier(config, [options.workdir])
        print_table(tabulate(whole, {config.seed: options.workdir}))


def _table(options: argparse.Namespace, rest: Sequence[str]) -> None:
    with collector.paused(for_good=True):
        config = read_flags(rest)
        compile_cache()
        from hallujax.tables import train_table

    command = f"hallujax table --workdir={options.workdir} --seeds={options.seeds} {' '.join(rest)}"
    train_table(config, options.workdir, options.seeds, command=command)


def _tune(options: argparse.Namespace, rest: Sequence[str]) -> None:
    read_flags(rest)
    compile_cache()
    from hallujax.tuning import print_ranking, tune

    rows = tune(
        lambda flags: read_flags([*rest, *flags]),
        options.vary,
        options.workdir,
        stage=options.stage,
        trials=options.trials,
        start_from=options.start_from,
    )
    print_ranking(rows)


def _evaluate(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    compile_cache()
    from hallujax.tables import evaluate_again

    evaluate_again(options.workdir, options.split, options.data)


def _robustness(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    compile_cache()
    from hallujax.evaluation.robustness import measure_robustness

    flags = ("workdir", "data", "out", "false_alarms", "system")
    given = {name.replace("_", "-"): getattr(options, name) for name in flags}
    said = [f"--{flag} {shlex.quote(str(value))}" for flag, value in given.items() if value is not None]
    measure_robustness(
        options.workdir,
        data=options.data,
        out=options.out or options.workdir,
        false_alarms=options.false_alarms,
        system=options.system,
        command=f"hallujax robustness {' '.join(said)}",
    )


def _report(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.evaluation.report import write_report

    print(write_report(options.runs))
