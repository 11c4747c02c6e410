"""`hallujax predict`: predictions for files or a camera, on the terminal."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hallujax.deploy.annotate import AnnotatedVideo, write_annotated
from hallujax.deploy.camera import watch
from hallujax.deploy.prediction import Moment, Prediction, Trust
from hallujax.deploy.predictor import BATCH, Predictor
from hallujax.deploy.video import open_clip
from hallujax.errors import DataError, UsageError

T = TypeVar("T")


def predict_files(
    predictor: Predictor,
    files: Sequence[pathlib.Path],
    *,
    top: int,
    as_json: bool,
    window: float | None,
    hop: float | None,
    save: pathlib.Path | None,
    depth: pathlib.Path | None,
) -> int:
    """Prints a prediction a file; one that cannot be read is a line on stderr, and the others go on.

    Args:
      depth: of the only file; `predictor` is then a `DepthPredictor`.
      save: an .mp4 for the only file, or a folder for one each.

    Returns:
      The exit code: that of DataError if a file could not be read.
    """
    videos = _annotated_names(files, save) if save else {}
    failed = 0
    with _progress(len(files)) as progress:
        task = progress.add_task("", total=len(files))

        def attempt(file: pathlib.Path, function: Callable[[], T]) -> T | None:
            nonlocal failed
            try:
                return function()
            except DataError as error:
                failed += 1
                progress.advance(task)
                said = str(error)
                print(f"hallujax: {said if str(file) in said else f'{file}: {said}'}", file=sys.stderr)

        if window is None and depth is None:
            predictions = _in_batches(predictor, files, attempt)
        else:
            predictions = _one_by_one(predictor, files, attempt, window, hop, depth, show_windows=not as_json)
        for file, prediction in predictions:
            if as_json:
                print(json.dumps(as_plain(predictor, str(file), prediction, top)))
            else:
                print(as_text(str(file), prediction, top))
            if save:
                attempt(file, lambda: write_annotated(videos[file], open_clip(file), prediction))  # noqa: B023
            progress.advance(task)
    return DataError.exit_code if failed else 0


def predict_camera(
    predictor: Predictor,
    camera: str,
    *,
    top: int,
    as_json: bool,
    window: float,
    hop: float | None,
    save: pathlib.Path | None,
) -> None:
    """Prints a prediction a window until the camera or the user ends it; see `camera.watch`.

    `save` is an .mp4, which is whole also where Ctrl-C ended it.
    """
    if save and save.suffix != ".mp4":
        raise UsageError(f"--save is {save}; for a camera it must be an .mp4")
    latest: Moment | None = None
    video = AnnotatedVideo(save) if save else None

    def tapped() -> Iterator[tuple[float, np.ndarray]]:
        for seconds, frame in watch(camera):
            if video:
                video.add(seconds, frame, latest)
            yield seconds, frame

    def follow() -> None:
        nonlocal latest
        try:
            for latest in predictor.follow(tapped(), window, hop):
                print(json.dumps({"camera": camera, **_moment(latest, top)}) if as_json else _line(latest), flush=True)
        except KeyboardInterrupt:
            print(file=sys.stderr)

    if video is None:
        follow()
    else:
        with video:
            follow()


def _progress(files: int) -> Progress:
    """A bar on stderr while there are several files to do, if that is a terminal; what is printed stays above it."""
    return Progress(
        TextColumn("{task.percentage:>3.0f} %"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=files < 2 or not sys.stderr.isatty(),
        redirect_stdout=sys.stdout.isatty(),
        transient=True,
    )


def _annotated_names(files: Sequence[pathlib.Path], save: pathlib.Path) -> dict[pathlib.Path, pathlib.Path]:
    """Where the annotated video of each file goes."""
    if save.suffix == ".mp4" and not save.is_dir():
        if len(files) > 1:
            raise UsageError(f"--save is {save}, and there are {len(files)} files: give a folder")
        names = {files[0]: save}
    else:
        names = {}
        for file in files:
            stem = file.resolve().stem
            same = sum(name.name.startswith(f"{stem}.annotated") for name in names.values())
            names.setdefault(file, save / f"{stem}.annotated{f'_{same + 1}' if same else ''}.mp4")
    for file, video in names.items():
        if video.resolve() == file.resolve():
            raise UsageError(f"--save would write over {file}")
    return names


Attempt = Callable[[pathlib.Path, Callable[[], Any]], Any]
Predictions = Iterator[tuple[pathlib.Path, Prediction]]


def _in_batches(predictor: Predictor, files: Sequence[pathlib.Path], attempt: Attempt) -> Predictions:
    readable: list[pathlib.Path] = []

    def clips() -> Iterator[np.ndarray]:
        for file in files:
            clip = attempt(file, lambda: predictor.read(file))  # noqa: B023
            if clip is not None:
                readable.append(file)
                yield clip

    for i, prediction in enumerate(predictor.predict_many(clips(), batch_size=min(len(files), BATCH))):
        yield readable[i], prediction


def _one_by_one(
    predictor: Predictor,
    files: Sequence[pathlib.Path],
    attempt: Attempt,
    window: float | None,
    hop: float | None,
    depth: pathlib.Path | None,
    *,
    show_windows: bool,
) -> Predictions:
    def slide(clip: Any) -> Iterator[Moment]:
        for moment in predictor.slide(clip, window, hop):
            if show_windows:
                print(_line(moment), flush=True)
            yield moment

    for file in files:
        clip = file if depth is None else (file, depth)
        prediction = attempt(
            file,
            lambda: predictor(clip) if window is None else Prediction.over(slide(clip)),  # noqa: B023
        )
        if prediction is not None:
            yield file, prediction


def as_plain(predictor: Predictor, file: str, prediction: Prediction, top: int) -> dict[str, Any]:
    """What `--json` prints: `{"file", "system", "label", "scores": {name: [{"class", "probability"}]}, "timeline"}`.

    With depth, `{"depth": {"used", "doubt", "threshold", "false_alarms"}}` too, of the clip or of each window.
    """
    return {
        "file": file,
        "system": predictor.system.name,
        "label": prediction.label,
        "scores": _scores(prediction, top),
        "timeline": [
            {"start": moment.start, "end": moment.end, "unit": moment.unit, "label": moment.label}
            | {"probability": float(moment.scores["fused"].probabilities.max()), **_trust(moment.depth)}
            for moment in prediction.timeline
        ],
        **_trust(prediction.depth),
    }


def _moment(moment: Moment, top: int) -> dict[str, Any]:
    return {"start": moment.start, "end": moment.end, "label": moment.label, "scores": _scores(moment, top)}


def _scores(said: Prediction | Moment, top: int) -> dict[str, Any]:
    return {
        name: [{"class": label, "probability": probability} for label, probability in scores.top(top)]
        for name, scores in said.scores.items()
    }


def _trust(depth: Trust | None) -> dict[str, Any]:
    if depth is None:
        return {}
    said = {"used": depth.used, "doubt": depth.doubt, "threshold": depth.threshold}
    return {"depth": said | {"false_alarms": depth.false_alarms}}


def as_text(file: str, prediction: Prediction, top: int) -> str:
    """A line for the file, one a stream, and one for depth; the windows have been said."""
    width = max(len(name) for name in prediction.scores)
    lines = [f"{file}: {prediction.label}"]
    for name, scores in prediction.scores.items():
        said = "  ".join(f"{label} {probability:.3f}" for label, probability in scores.top(top))
        lines.append(f"  {name:{width}}  {said}")
    if prediction.depth is not None:
        lines.append(f"  {_belief(prediction.depth)}")
    return "\n".join(lines)


def _line(moment: Moment) -> str:
    """One window."""
    ((label, probability),) = moment.scores["fused"].top(1)
    belief = "" if moment.depth is None else f"  {_belief(moment.depth)}"
    return f"  {moment.start:8.2f} - {moment.end:.2f} {moment.unit}  {label} {probability:.3f}{belief}"


def _belief(depth: Trust) -> str:
    """Which was used, and how sure the discriminator is that the depth features are not real ones."""
    verdict = "depth was used" if depth.used else "depth was not used, its hallucination was"
    return (
        f"{verdict} (doubt {depth.doubt:.3f}, threshold {depth.threshold:.3f} "
        f"at {100 * depth.false_alarms:g} % false alarms)"
    )
