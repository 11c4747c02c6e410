"""Trains one stage of the table for a step and says, as JSON, what that took: `python starting.py DATA WORKDIR`."""

import gc
import json
import pathlib
import sys

DATA, WORKDIR = sys.argv[1:]
LISTENED = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"


def main() -> None:
    from hallujax.cli.training import compile_cache

    compile_cache()
    from jax import monitoring

    events: list[str] = []
    traced: list[str] = []
    monitoring.register_event_listener(lambda event, **_: events.append(event))
    monitoring.register_event_duration_secs_listener(
        lambda event, _, fun_name="", **__: traced.append(fun_name) if event.endswith("jaxpr_trace_duration") else None
    )

    from hallujax.training.recorder import Recorder

    before = gc.get_stats()[-1]["collections"]

    def first_step(*_) -> None:
        said = {event.rpartition("/")[2]: events.count(event) for event in LISTENED}
        searched = gc.get_stats()[-1]["collections"] - before
        print(json.dumps({"modules": sorted(sys.modules), "traced": traced, "searched": searched, **said}), flush=True)
        sys.exit()

    Recorder.log = first_step

    from hallujax.cli import main as command

    flags = "--config.stages.rgb.epochs=1.0", "--config.log_every=1"
    command(["train", f"--config=tests/small_config.py:{DATA}", f"--workdir={pathlib.Path(WORKDIR)}", *flags])


main()
