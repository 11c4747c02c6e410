"""Temporaries of a stage's step: planned, said by XLA:CPU, and seen by the operating system while the step runs.

Run by test_estimate.py in a process of its own: prints `{"planned": bytes, "compiled": bytes, "measured": bytes}`. What
XLA:CPU needs beside arguments and results it takes in one piece, so the resident memory of the process rises by that
during the step, and by the scratch of its convolutions, which it does not count.
"""

import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

from hallujax.experiment import read_config
from hallujax.plan.stage import STEPS, Clip, device_step
from hallujax.training.start import bind_step

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from small_config import shrunk

from configs import streams

CLIPS, FRAMES, SIDE = 32, 3, 96


def resident(what: str) -> int:
    """`VmRSS` or `VmHWM` of this process, bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024


def main() -> None:
    config = shrunk(streams.get_config(), "nowhere")
    config.transforms.downsample = 1
    config.training.model.width = 16
    experiment = read_config(config)
    stage = experiment.stages["rgb"]
    clip = Clip({"rgb": jax.ShapeDtypeStruct((FRAMES, SIDE, SIDE, 3), np.uint8)}, 15)
    planned = device_step(experiment, stage, clip, CLIPS, "cpu")

    step, _ = bind_step(experiment, stage, planned.method, STEPS)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (planned.state, planned.batch))
    arguments = (*zeros, jnp.float32(1), jax.random.key(0))
    compiled = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
    jax.block_until_ready(arguments)
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    jax.block_until_ready(compiled(*arguments))
    found = {
        "planned": planned.program.peak,
        "compiled": compiled.memory_analysis().temp_size_in_bytes,
        "measured": resident("VmHWM") - before,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
