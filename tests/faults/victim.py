"""`python victim.py MARKS ARGUMENTS...`: the command line, which notes in the file MARKS what it is doing.

So that a kill can be aimed at a phase, and afterwards be counted where it fell. Nothing else differs from `hallujax`.
"""

import collections
import os
import sys

PHASES = ("starting", "training", "saving", "evaluating")
WIDTH = 24  # bytes of a mark, which one write replaces


def main(marks: str, arguments: list[str]) -> None:
    file = os.open(marks, os.O_WRONLY | os.O_CREAT)
    entered = collections.Counter()

    def mark(phase: str) -> None:
        entered[phase] += 1
        os.pwrite(file, f"{phase} {entered[phase]}".ljust(WIDTH).encode(), 0)

    mark("starting")
    sys.argv = ["hallujax", *arguments]

    from hallujax import cli
    from hallujax.evaluation.evaluate import Evaluator
    from hallujax.training import loop
    from hallujax.training.recorder import Recorder

    def marked(phase: str, function, then: str = ""):
        def run(*given, **named):
            mark(phase)
            result = function(*given, **named)
            if then:
                mark(then)
            return result

        return run

    loop.starting_networks = marked("starting", loop.starting_networks)  # of the second stage, too
    Recorder.stepped = marked("training", Recorder.stepped)
    Recorder.save = marked("saving", Recorder.save, then="training")
    Recorder.best_networks = marked("saving", Recorder.best_networks)
    Evaluator.predict = marked("evaluating", Evaluator.predict)
    Recorder.validated = marked("evaluating", Recorder.validated, then="training")
    cli.entry()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
