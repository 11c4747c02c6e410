"""`hallujax predict`: predictions for files, on the terminal."""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hallujax.deploy.predictor import Prediction, Predictor, load
from hallujax.errors import DataError


def predict_files(
    model: pathlib.Path,
    files: Sequence[pathlib.Path],
    *,
    system: str | None,
    top: int,
    as_json: bool,
    window: float | None,
) -> int:
    """Prints a prediction a file; one that cannot be read is a line on stderr, and the others go on.

    Returns:
      The exit code: that of DataError if a file could not be read.
    """
    predictor = load(model, system)
    failed: list[pathlib.Path] = []
    for file, prediction in _predictions(predictor, files, window, failed):
        if as_json:
            print(json.dumps(as_plain(predictor, file, prediction, top)))
        else:
            print(as_text(file, prediction, top))
    return DataError.exit_code if failed else 0


def _predictions(
    predictor: Predictor, files: Sequence[pathlib.Path], window: float | None, failed: list[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, Prediction]]:
    def attempt(file: pathlib.Path, function: Any) -> Any:
        try:
            return function(file)
        except DataError as error:
            failed.append(file)
            print(f"hallujax: {error}", file=sys.stderr)

    if window is not None:
        for file in files:
            prediction = attempt(file, lambda file: predictor(file, window=window))
            if prediction is not None:
                yield file, prediction
        return
    readable: list[pathlib.Path] = []

    def clips() -> Iterator[np.ndarray]:
        for file in files:
            clip = attempt(file, predictor.read)
            if clip is not None:
                readable.append(file)
                yield clip

    for i, prediction in enumerate(predictor.predict_many(clips(), batch_size=min(len(files), 16))):
        yield readable[i], prediction


def as_plain(predictor: Predictor, file: pathlib.Path, prediction: Prediction, top: int) -> dict[str, Any]:
    """What `--json` prints: `{"file", "system", "label", "scores": {name: [{"class", "probability"}]}, "timeline"}`."""
    return {
        "file": str(file),
        "system": predictor.system.name,
        "label": prediction.label,
        "scores": {
            name: [{"class": label, "probability": probability} for label, probability in scores.top(top)]
            for name, scores in prediction.scores.items()
        },
        "timeline": [
            {"start": moment.start, "end": moment.end, "unit": moment.unit, "label": moment.label}
            | {"probability": float(moment.scores["fused"].probabilities.max())}
            for moment in prediction.timeline
        ],
    }


def as_text(file: pathlib.Path, prediction: Prediction, top: int) -> str:
    """A line for the file, one a stream and one a window."""
    width = max(len(name) for name in prediction.scores)
    lines = [f"{file}: {prediction.label}"]
    for name, scores in prediction.scores.items():
        said = "  ".join(f"{label} {probability:.3f}" for label, probability in scores.top(top))
        lines.append(f"  {name:{width}}  {said}")
    for moment in prediction.timeline:
        ((label, probability),) = moment.scores["fused"].top(1)
        lines.append(f"  {moment.start:8.2f} - {moment.end:.2f} {moment.unit}  {label} {probability:.3f}")
    return "\n".join(lines)
