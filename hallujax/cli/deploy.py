"""`hallujax predict` and `export`: trained models."""

import argparse
import pathlib
from collections.abc import Callable, Sequence

from hallujax.cli.cache import compile_cache


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
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
    formats = ("safetensors", "stablehlo", "onnx", "saved_model")
    sub.add_argument("--to", choices=formats, default="safetensors", help="(%(default)s)")
    sub.add_argument("--precision", choices=("fp32", "bf16", "fp16", "int8"), default="fp32", help="(%(default)s)")
    sub.add_argument("--out", type=pathlib.Path, required=True, help="folder to make")


def _positive(kind: type) -> Callable[[str], float]:
    def positive(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return positive


def _predict(options: argparse.Namespace, rest: Sequence[str]) -> int:
    del rest
    compile_cache()
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

    write_export(read_run(options.run_folder, options.system), options.to, options.out, options.precision)
    print(options.out)
