"""The command line. Errors for people are one line on stderr; a bug keeps its traceback."""

import argparse
import contextlib
import errno
import importlib
import logging
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence

from hallujax import huge_pages
from hallujax.errors import DataError, HallujaxError, UsageError

DATASETS = ("mocap_rgbd", "folder", "ntu_rgbd60", "ntu_rgbd120")
_USERS_TO_MEND = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 usage, 3 data, 5 checkpoint, 130 and 143 stopped by a signal."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and not known.takes_flags:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return known.run(known, rest) or 0
    except HallujaxError as error:
        print(f"hallujax: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk, a folder that may not be written: what the user must mend
        if error.errno not in _USERS_TO_MEND:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"hallujax: {where}{error.strerror}; what is finished is kept", file=sys.stderr)
        return DataError.exit_code
    except KeyboardInterrupt:
        print("hallujax: stopped; the same command continues from what is finished", file=sys.stderr)
        return 130


def entry() -> None:
    """The console script.

    What fails in a background thread of orbax or tensorboardX is raised in the main one too and said there in one line:
    their own log of it is off, and after a failure the process ends at once, before their exit handlers fail again.
    """
    huge_pages.restart()
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hallujax", description="Train with every modality you own; deploy with the one you will have."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, summary: str, takes_flags: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run, takes_flags=takes_flags)
        return sub

    sub = command("demo", _demo, "render the benchmark, train every system of the table, write the report")
    sub.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/demo"), help="output folder (%(default)s)")
    sub.add_argument("--seeds", type=int, default=1, help="seeds to train, 0 to N-1 (%(default)s)")

    sub = command("prepare", _prepare, "write a dataset in the format that training reads")
    sub.add_argument("dataset", choices=DATASETS)
    sub.add_argument("--out", type=pathlib.Path, required=True, help="the dataset becomes a folder in this one")
    sub.add_argument("--workers", type=int, help="processes (as many as cores)")
    sub.add_argument("--preset", default="standard", help="mocap_rgbd: tiny, quick, standard or full (%(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="mocap_rgbd: of everything random (%(default)s)")
    sub.add_argument("--raw", type=pathlib.Path, help="all others: folder of the raw files")
    sub.add_argument("--size", type=int, default=256, help="all others: pixels a side (%(default)s)")
    sub.add_argument("--modalities", default="", help="all others: that every clip must have, as rgb,depth")
    sub.add_argument("--strict", action="store_true", help="all others: write nothing if a clip is refused")

    sub = command("inspect", _inspect, "say what is in a prepared dataset, what looks wrong, and show some clips")
    sub.add_argument("directory", type=pathlib.Path, help="a dataset's folder, or one that holds datasets")
    sub.add_argument("--sheet", type=pathlib.Path, help="PNG of some clips (contact_sheet.png in the dataset)")

    sub = command("train", _train, "train a configuration's stages, or what is left of them", takes_flags=True)
    _configured(sub)
    sub.add_argument("--workdir", type=pathlib.Path, required=True, help="one folder a stage is made in it")

    sub = command("table", _table, "train a configuration over several seeds and tabulate it", takes_flags=True)
    _configured(sub)
    sub.add_argument("--workdir", type=pathlib.Path, required=True, help="seed0, seed1, ... are made in it")
    sub.add_argument("--seeds", type=int, default=3, help="seeds to train, 0 to N-1 (%(default)s)")

    sub = command("evaluate", _evaluate, "evaluate a workdir's finished stages again, from their checkpoints")
    sub.add_argument("--workdir", type=pathlib.Path, required=True)
    sub.add_argument("--split", choices=("validation", "test"), default="test")
    sub.add_argument("--data", type=pathlib.Path, help="folder of the prepared datasets, if it has moved")

    sub = command("robustness", _robustness, "what becomes of a run's systems, and of switching, when depth fails")
    sub.add_argument("--workdir", type=pathlib.Path, required=True, help="a table's folder, or one seed's")
    sub.add_argument("--data", type=pathlib.Path, help="folder of the prepared datasets, if it has moved")
    sub.add_argument("--out", type=pathlib.Path, help="where robustness.csv, .json and .svg go (the workdir)")
    sub.add_argument(
        "--false-alarms",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="of the clean validation clips for which a switch may give up depth (%(default)s)",
    )
    sub.add_argument("--system", help="whose discriminator switches (the first that averages an ADMD stage with RGB)")

    sub = command("report", _report, "write report.html from a run's files")
    sub.add_argument("--runs", type=pathlib.Path, required=True, help="a demo's, table's or train's folder")

    sub = command("predict", _predict, "say what videos and folders of pictures show, from RGB alone")
    sub.add_argument("--model", type=pathlib.Path, required=True, help="a run's workdir, or an export")
    sub.add_argument("files", type=pathlib.Path, nargs="+", metavar="FILE", help="a video, or a folder of pictures")
    sub.add_argument("--system", help="a row of the table (of those that need RGB alone, the best on validation)")
    sub.add_argument("--top", type=_positive(int), default=5, help="classes to print (%(default)s)")
    sub.add_argument("--json", action="store_true", help="one JSON object a file")
    sub.add_argument("--window", type=_positive(float), help="seconds (frames of a folder) of a sliding window")

    sub = command("export", _export, "write one system of a run as a folder of its own, for RGB alone")
    sub.add_argument("run_folder", type=pathlib.Path, metavar="RUN", help="its workdir")
    sub.add_argument("--system", help="a row of the table (of those that need RGB alone, the best on validation)")
    sub.add_argument("--to", choices=("safetensors", "stablehlo"), default="safetensors", help="(%(default)s)")
    sub.add_argument("--out", type=pathlib.Path, required=True, help="folder to make")

    sub = command("doctor", _doctor, "say what this machine has, and what is missing for what")
    sub.add_argument("data", type=pathlib.Path, nargs="*", help="folders of prepared datasets to look at")
    return parser


def _positive(kind: type) -> Callable[[str], float]:
    def positive(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return positive


def _configured(sub: argparse.ArgumentParser) -> None:
    sub.epilog = (
        "--config=configs/FILE.py:DATASET,PROTOCOL[,PRESET] is required; --config.KEY=VALUE overrides any key "
        "of configs/base.py."
    )


def _demo(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    _compile_cache()
    from hallujax.demo import run

    run(options.out, options.seeds)


def _prepare(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    if options.dataset == "mocap_rgbd":
        prepare = importlib.import_module("data_prep.mocap_rgbd").prepare
        prepare(options.out, preset=options.preset, seed=options.seed, workers=options.workers)
        return
    if options.raw is None:
        raise UsageError(f"{options.dataset} is made from files of yours: say where they are with --raw DIR")
    importlib.import_module("data_prep.raw").prepare(
        options.dataset,
        options.raw,
        options.out,
        size=options.size,
        modalities=tuple(filter(None, options.modalities.split(","))),
        workers=options.workers,
        strict=options.strict,
    )


def _inspect(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    importlib.import_module("data_prep.inspection").inspect(options.directory, options.sheet)


def _train(options: argparse.Namespace, rest: Sequence[str]) -> None:
    config = read_flags(rest)
    _compile_cache()
    from hallujax.evaluation.table import tabulate
    from hallujax.tables import print_table
    from hallujax.training.stages import train

    train(config, options.workdir)
    print_table(tabulate(config, {config.seed: options.workdir}))


def _table(options: argparse.Namespace, rest: Sequence[str]) -> None:
    config = read_flags(rest)
    _compile_cache()
    from hallujax.tables import train_table

    command = f"hallujax table --workdir={options.workdir} --seeds={options.seeds} {' '.join(rest)}"
    train_table(config, options.workdir, options.seeds, command=command)


def _evaluate(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    _compile_cache()
    from hallujax.tables import evaluate_again

    evaluate_again(options.workdir, options.split, options.data)


def _robustness(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    _compile_cache()
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


def _predict(options: argparse.Namespace, rest: Sequence[str]) -> int:
    del rest
    _compile_cache()
    from hallujax.deploy.command import predict_files

    return predict_files(
        options.model,
        options.files,
        system=options.system,
        top=options.top,
        as_json=options.json,
        window=options.window,
    )


def _export(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.deploy.export import write_export
    from hallujax.deploy.run import read_run

    write_export(read_run(options.run_folder, options.system), options.to, options.out)
    print(options.out)


def _doctor(options: argparse.Namespace, rest: Sequence[str]) -> int:
    del rest
    with contextlib.suppress(ImportError):  # which the doctor will say
        _compile_cache()
    from hallujax.doctor import report

    return report(options.data)


def read_flags(arguments: Sequence[str]):
    """`--config=FILE[:ARGUMENTS] --config.KEY=VALUE ...` as an `Experiment`.

    Raises:
      UsageError: for a missing file, an unknown key, or a value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    from hallujax.experiment import read_config

    files = [argument for argument in arguments if argument.startswith("--config=")]
    if not files:
        raise UsageError(
            "write --config=FILE.py:DATASET,PROTOCOL, say --config=configs/admd.py:mocap_rgbd,cross_subject"
        )
    path = files[-1].removeprefix("--config=").partition(":")[0]
    if not pathlib.Path(path).exists():
        raise UsageError(f"no configuration file {path}; those that come with hallujax are in configs/")
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        with _importable(pathlib.Path(path).resolve().parent.parent), _arguments(arguments):
            left_over = values(["hallujax", *arguments])[1:]
            config = values.config
    except (AttributeError, KeyError) as error:
        lines = str(error.args[0] if error.args else error).split("\n")
        raise UsageError(f"unknown configuration key: {' '.join(lines)}; configs/base.py lists them all") from error
    except (flags.Error, ValueError, TypeError, SyntaxError, ImportError) as error:
        raise UsageError(f"configuration: {_last_line(error)}") from error
    if left_over:
        raise UsageError(f"unrecognized arguments: {' '.join(left_over)}")
    return read_config(config)


def _last_line(error: Exception) -> str:
    """Of a configuration file that fails, the reason comes last."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


@contextlib.contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """ml_collections looks for overrides in `sys.argv`, whatever it is given to parse."""
    before, sys.argv = sys.argv, ["hallujax", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _importable(folder: pathlib.Path) -> Iterator[None]:
    """Configuration files import their neighbours as `configs.NAME`, whatever folder the command is run from."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _compile_cache() -> None:
    """Keeps compiled programs between runs, on a local disk; `JAX_COMPILATION_CACHE_DIR` says where else."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "hallujax" / "xla"))


if __name__ == "__main__":
    entry()
