"""How the report writes settings, counts, memory and time."""

from collections.abc import Iterator
from typing import Any


def flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """`("a.b", "value")` for every leaf of nested settings."""
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(settings, list) and any(isinstance(value, dict) for value in settings):
        yield from flatten(dict(enumerate(settings)), prefix)
    elif isinstance(settings, list):
        yield prefix, ", ".join(map(str, settings))
    else:
        yield prefix, str(settings)


def count(number: int | None) -> str:
    """`1 234 567`, parted by narrow spaces that do not break."""
    return "–" if number is None else f"{number:,}".replace(",", "\u202f")


def memory(peak: dict[str, int | None] | None) -> str:
    """MiB of the device where it says how much, else of the process."""
    if not peak:
        return "–"
    return f"{count(peak['device'] or peak['process'])} MiB"


def duration(seconds: float | None) -> str:
    """`9 s`, `2 min 05 s` or `1 h 07 min`."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
