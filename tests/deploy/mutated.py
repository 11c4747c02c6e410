"""`python mutated.py FOLDER FIRST LAST`: reads damaged videos, those of seeds FIRST to LAST - 1; prints the outcomes.

A process of its own, so that one that hangs or dies is noticed. What is read last lies in FOLDER/clip.*.
"""

import collections
import pathlib
import sys

import numpy as np
from encoded import pictures, write_video

from hallujax.deploy import container
from hallujax.deploy.video import open_clip
from hallujax.errors import DataError

KINDS = [
    ("a.mp4", {"codec": "libx264", "pixels": "yuv420p"}),
    ("b.mp4", {"codec": "mpeg4", "pixels": "yuv420p"}),
    ("c.mkv", {"codec": "ffv1", "pixels": "bgr0"}),
    ("d.webm", {"codec": "libvpx", "pixels": "yuv420p", "options": {"deadline": "realtime"}}),
    ("e.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ("f.mov", {"codec": "png"}),
    ("g.ts", {"codec": "libx264", "pixels": "yuv420p"}),
    ("h.gif", {"codec": "gif", "pixels": "rgb8"}),
]


def mutate(whole: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, in the header alone for every second one, a piece doubled or left out, the end cut."""
    data = bytearray(whole)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 1500)
    for place in rng.integers(0, reach, rng.integers(1, 30)):
        data[place] = rng.choice([0, 255, rng.integers(256)])
    at, size = rng.integers(0, len(data)), rng.integers(1, 400)
    kind = rng.integers(4)
    if kind == 1:
        del data[at : at + size]
    elif kind == 2:
        data[at:at] = data[at : at + size]
    elif kind == 3:
        del data[max(at, 100) :]
    return bytes(data)


def read(path: pathlib.Path) -> str:
    try:
        clip = open_clip(path)
        count = len(clip.times)
        assert np.isfinite(clip.times).all() and np.isfinite(clip.end) and (np.diff(clip.times) >= 0).all()
        wanted = sorted({0, count // 2, count - 1})
        for frame in clip.frames(wanted):
            assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3, frame.shape
    except DataError as error:
        assert "\n" not in str(error) and path.name in str(error), error
        return "refused"
    return "read"


def main(folder: pathlib.Path, first: int, last: int) -> None:
    wholes = [(write_video(folder / name, pictures(12), **how)).read_bytes() for name, how in KINDS]
    outcomes = collections.Counter()
    for seed in range(first, last):
        rng = np.random.default_rng(seed)
        (name, _), whole = KINDS[seed % len(KINDS)], wholes[seed % len(KINDS)]
        container.EXACT = 2000 if seed // len(KINDS) % 2 else 1  # every other one by seeking
        path = folder / f"clip.{name}"
        path.write_bytes(mutate(whole, rng))
        try:
            outcomes[read(path)] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}, {name}") from error
    print(outcomes["read"], outcomes["refused"])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
