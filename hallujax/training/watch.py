"""Looks at the numbers of every step: steps that were skipped, losses that leap, clips that could not be read."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

_WINDOW = 51  # losses, of the running median
_ENOUGH = 20  # of them, before a spike can be told
_LEAP = 4  # times as far above the median as any of them
_BAD_SHARE = 0.001  # of the clips read


@dataclasses.dataclass
class Watch:
    """What is counted of the steps; the counters travel in the checkpoint, so a resumed run counts on.

    Attributes:
      skipped: steps that changed nothing, since one of their numbers was not finite.
      in_a_row: of these, the last ones without a finite step between.
      bad_clips: times that a clip could not be read and was left out.
      losses: `{loss/PLAYER: the last finite values}`.
    """

    skipped: int = 0
    in_a_row: int = 0
    bad_clips: int = 0
    losses: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    @staticmethod
    def needs(metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a step's metrics that are looked at."""
        return {n: v for n, v in metrics.items() if n in ("skipped", "bad_clips") or n.startswith("loss/")}

    def look(self, values: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Counts a step.

        Args:
          values: see `needs`.

        Returns:
          `{loss/PLAYER: (its value, the running median)}` of the losses that leapt: by more than the median itself and
          4 times as far above it as any of the 51 before. It needs 20 before it says anything.
        """
        self.bad_clips += round(values["bad_clips"])
        if values["skipped"]:
            self.skipped += 1
            self.in_a_row += 1
            return {}
        self.in_a_row = 0
        spikes = {}
        for name, value in values.items():
            if name.startswith("loss/"):
                recent = self.losses.setdefault(name, [])
                if len(recent) >= _ENOUGH:
                    median = statistics.median(recent)
                    if value - median > max(abs(median), _LEAP * (max(recent) - median)):
                        spikes[name] = (value, median)
                recent.append(value)
                del recent[:-_WINDOW]
        return spikes

    def too_many_bad(self, clips: int) -> bool:
        """Whether more than 0.1 % of the `clips` read so far were bad.

        That is more than chance would make of such a share (three deviations of a Poisson variable), and never the
        first one: a bad clip may come up early.
        """
        expected = _BAD_SHARE * clips
        return self.bad_clips > 1 + expected + 3 * math.sqrt(expected)

    def counters(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
