"""`hallujax predict` and `export`: trained models."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence

from hallujax.cli.cache import compile_cache
from hallujax.cli.folders import folder, local_folder
from hallujax.errors import UsageError

LIVE_WINDOW = 2.0  # seconds of a camera, if not said


def add(command) -> None:
    """Declares the commands; `command` as in `hallujax.cli`."""
    sub = command("predict", _predict, "say what videos, folders of pictures or a camera show")
    sub.add_argument("--model", type=folder, required=True, help="a run's or table's folder, or an export")
    sub.add_argument("files", type=pathlib.Path, nargs="*", metavar="FILE", help="a video, a folder of pictures, .npy")
    sub.add_argument("--camera", metavar="N", help="instead of files: a camera's number, device, or FORMAT:DEVICE")
    sub.add_argument("--system", help="a row of the table (of those that need RGB alone, the best on validation)")
    sub.add_argument("--top", type=_positive(int), default=5, help="classes to print (%(default)s)")
    sub.add_argument("--json", action="store_true", help="one JSON object a file, or a camera's window")
    sub.add_argument("--window", type=_positive(float), help="seconds (frames of a folder) of a sliding window")
    sub.add_argument("--hop", type=_positive(float), help="from one window to the next (half a window)")
    sub.add_argument("--save", type=pathlib.Path, help="annotated video to write (.mp4), or a folder for one a file")
    sub.add_argument("--depth", type=pathlib.Path, help="of the file, in millimetres: 16-bit pictures, video, or .npy")

    sub = command("export", _export, "write one system of a run as a folder of its own, for RGB alone")
    sub.add_argument("run_folder", type=folder, metavar="RUN", help="a workdir, or a table's folder")
    sub.add_argument("--system", help="a row of the table (of those that need RGB alone, the best on validation)")
    formats = ("safetensors", "stablehlo", "onnx", "saved_model")
    sub.add_argument("--to", choices=formats, default="safetensors", help="(%(default)s)")
    sub.add_argument("--precision", choices=("fp32", "bf16", "fp16", "int8"), default="fp32", help="(%(default)s)")
    sub.add_argument("--out", type=local_folder, required=True, help="folder to make")


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
    if bool(options.files) == (options.camera is not None):
        raise UsageError("give files or --camera")
    if options.hop is not None and options.window is None:
        raise UsageError("--hop is of a sliding window: give --window too")
    if options.depth is not None and len(options.files) != 1:
        raise UsageError("--depth is of one clip: give one file beside it")
    from hallujax.deploy.command import predict_camera, predict_files
    from hallujax.deploy.predictor import load

    if options.depth is not None:
        from hallujax.deploy.depth import load_with_depth as load
    predictor = load(options.model, options.system)
    if predictor.origin:
        print(predictor.origin, file=sys.stderr)
    said = {key: getattr(options, key) for key in ("top", "hop", "save")} | {"as_json": options.json}
    if options.camera is not None:
        predict_camera(predictor, options.camera, window=options.window or LIVE_WINDOW, **said)
        return 0
    return predict_files(predictor, options.files, window=options.window, depth=options.depth, **said)


def _export(options: argparse.Namespace, rest: Sequence[str]) -> None:
    del rest
    from hallujax.deploy.export import write_export
    from hallujax.deploy.run import read_run

    trained = read_run(options.run_folder, options.system)
    if trained.origin:
        print(trained.origin, file=sys.stderr)
    write_export(trained, options.to, options.out, options.precision)
    print(options.out)
