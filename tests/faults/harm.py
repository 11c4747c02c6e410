"""Damages files in place, as disks, copies and people do, and judges what reading them comes to."""

import collections
import contextlib
import faulthandler
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hallujax.errors import HallujaxError

KINDS = ("flipped", "zeroed", "truncated", "deleted", "swapped")
SECONDS = 60  # for one reading; longer is a hang, and ends the test process


@contextlib.contextmanager
def damaged(files: Sequence[pathlib.Path], rng: np.random.Generator) -> Iterator[tuple[str, list[pathlib.Path]]]:
    """One of `files` damaged, or two exchanged; as they were when it is over. Yields what was done to which."""
    kind = str(rng.choice(KINDS))
    chosen = [files[i] for i in rng.permutation(len(files))[: 2 if kind == "swapped" else 1]]
    before = {path: path.read_bytes() for path in chosen}
    data = bytearray(before[chosen[0]])
    if kind == "flipped":
        for place in rng.integers(8 * max(len(data), 1), size=rng.integers(1, 4)) if data else ():
            data[place // 8] ^= 1 << place % 8
    elif kind == "zeroed":
        start = int(rng.integers(max(len(data), 1)))
        data[start : start + 64] = bytes(len(data[start : start + 64]))
    elif kind == "truncated":
        del data[int(rng.integers(max(len(data), 1))) :]
    try:
        if kind == "deleted":
            chosen[0].unlink()
        elif kind == "swapped" and len(chosen) == 2:
            chosen[0].write_bytes(before[chosen[1]])
            chosen[1].write_bytes(before[chosen[0]])
        else:
            chosen[0].write_bytes(data)
        yield kind, chosen
    finally:
        for path, content in before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def judge(
    read: Callable[[], tuple[Any, Sequence[str]]],
    whole: Any,
    chosen: Sequence[pathlib.Path],
    also: Sequence[str] = (),
    checksum: bool = True,
) -> str:
    """What became of a damaged file: `identical`, `refused`, `noticed` (other values, and a line that says so), or for
    a format that holds no checksum `undetectable` (other values).

    Args:
      read: (values, lines for people).
      whole: the values of the undamaged files.
      checksum: whether the format holds one.
      also: words that a message may name instead of the file, of a clip in it say.

    Raises:
      AssertionError: for other values without a word, or a refusal that does not say where.
    """
    names = [*(path.name for path in chosen), *also]
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        values, lines = read()
    except HallujaxError as error:
        message = str(error)
        assert "\n" not in message.strip(), message
        assert any(name in message for name in names), f"{names} is not named in: {message}"
        return "refused"
    finally:
        faulthandler.cancel_dump_traceback_later()
    if values == whole:
        return "identical"
    if not checksum and not lines:
        return "undetectable"
    assert lines, f"other values without a word: {differing(values, whole)}"
    assert any(name in line for name in names for line in lines), f"{names} is not named in: {lines}"
    return "noticed"


def differing(values: Any, whole: Any) -> str:
    """Where two readings first differ."""
    if isinstance(values, dict) and isinstance(whole, dict):
        for key in sorted(values.keys() | whole.keys(), key=str):
            if values.get(key) != whole.get(key):
                return f"{key}: {differing(values.get(key), whole.get(key))}"
    return f"{str(values)[:200]} instead of {str(whole)[:200]}"


def tally(
    count: int,
    seed: int,
    files: Callable[[], Sequence[pathlib.Path]],
    read: Callable[[], tuple[Any, Sequence[str]]],
    also: Sequence[str] = (),
    checksum: bool = True,
) -> dict[str, dict[str, int]]:
    """`{kind of damage: {what became of it: how often}}` of `count` seeded damages, one after the other."""
    whole, lines = read()
    assert not lines, lines
    found: dict[str, collections.Counter] = {kind: collections.Counter() for kind in KINDS}
    wrong = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        with damaged(files(), rng) as (kind, chosen):
            try:
                found[kind][judge(read, whole, chosen, also, checksum)] += 1
            except Exception as error:
                what = " and ".join(path.as_posix() for path in chosen)
                wrong.append(f"[{seed}, {number}], {what} {kind}: {type(error).__name__}: {error}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:20])
    return {kind: dict(counts) for kind, counts in found.items()}
