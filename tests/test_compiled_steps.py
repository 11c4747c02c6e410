"""What the compiled steps of the four systems do, without a clock: operations, bytes, layouts, no word to the host.

Operations are compared with what the layers' shapes say. The bounds on bytes and layouts are those of jax 0.10.2 on a
CPU with a few percent of room; a change that breaks one has made the step dearer or has to say why it is not.
"""

import pathlib
import sys

import numpy as np
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from hlo import kernels  # noqa: E402
from systems import SYSTEMS, Case, HallujaxArm, fresh_variables, random_batch  # noqa: E402

CASE = Case(stages=(1, 2), width=8, size=32, batch=4, frames=3, classes=4)
# The guard against steps that are not finite reads weights and moments once more: 2 to 7 % of the bytes of nets as
# small as these, and 12 of a stream's 40 kernels. The CPU's forms of the stem and of max-pooling's gradient, a third
# and half faster, are 3 to 4 % of the bytes: XLA counts the padded frames, and what the gradient compares.
BOUNDS = {  # (MiB that XLA counts as accessed, kernels that lay out anew beside convolutions, MiB of these)
    "single_stream": (13.2, 40, 0.60),  # 12.94, 40, 0.58
    "two_stream": (26.7, 80, 1.20),  # 26.12, 80, 1.16
    "hallucination": (16.8, 40, 0.60),  # 16.66, 40, 0.58: a frozen teacher's forward pass moves no layout
    "admd": (21.5, 40, 0.60),  # 21.17, 40, 0.58
}


@pytest.fixture(scope="module", params=SYSTEMS)
def step(request):
    system = request.param
    return system, HallujaxArm(system, CASE, fresh_variables(system, CASE), random_batch(CASE)).compiled


def taps_met(size, kernel, stride):
    """Pairs of an output and a tap along one axis that meet a value and not the padding, and the output's size."""
    present = np.pad(np.ones(size, int), kernel // 2)
    windows = np.lib.stride_tricks.sliding_window_view(present, kernel)[::stride]
    return windows.sum(), len(windows)


def stream_operations():
    """Two operations for every multiplication of a stream's forward pass, of all, of the stem, of the classifier, and
    of the zeros that the CPU's form of the stem adds: an eighth column of the kernel, and the padding of rows."""
    images, width = CASE.batch * CASE.frames, CASE.width
    met, size = taps_met(CASE.size, 7, 2)
    stem = images * met**2 * 3 * width
    zeros = images * met * (8 * size - met) * 3 * width
    _, size = taps_met(size, 3, 2)  # the max-pool
    channels, total = width, stem
    for block, units in enumerate(CASE.stages):
        inner, outer = width * 2**block, 4 * width * 2**block
        for unit in range(1, units + 1):
            stride = 2 if unit == 1 and block > 0 else 1
            total += images * size**2 * channels * inner
            met, smaller = taps_met(size, 3, stride)
            total += images * met**2 * inner * inner
            if unit == 1:
                total += images * smaller**2 * channels * outer
            if unit == min(2, units):
                total += CASE.batch * taps_met(CASE.frames, CASE.taps, 1)[0] * smaller**2 * inner * inner
            size, channels = smaller, outer
            total += images * size**2 * inner * outer
    classifier = images * channels * CASE.classes
    return 2 * (total + classifier), 2 * stem, 2 * classifier, 2 * zeros


def discriminator_operations():
    frames, features = CASE.batch * CASE.frames, 4 * CASE.width * 2 ** (len(CASE.stages) - 1)
    layers = [(features + CASE.frames, 256), (256, 128), (128, CASE.classes + 1)]
    return 2 * frames * sum(given * made for given, made in layers), 2 * frames * layers[0][0] * layers[0][1]


def expected_operations(system):
    forward, stem, classifier, zeros = stream_operations()
    trained = 3 * forward - stem + zeros  # nobody asks for the gradient of the frames
    forward += zeros
    judge, judge_first = discriminator_operations()
    return {
        "single_stream": trained,
        "two_stream": 2 * trained,
        "hallucination": trained + forward,
        # The classifiers of teacher and student teach nothing. The discriminator judges both; its own loss has
        # gradients of its weights on both and none of what it is given, the student's only of what it is given.
        "admd": trained - 2 * classifier + forward - classifier + 2 * (3 * judge - judge_first) + judge,
    }[system]


def test_operations_are_those_of_the_layers(step):
    system, compiled = step
    found = sum(kernel.flops for kernel in kernels(compiled.as_text()))
    assert found == pytest.approx(expected_operations(system), rel=1e-3)


def test_bytes_and_layouts_stay_within_bounds(step):
    system, compiled = step
    accessed, moving, moved = BOUNDS[system]
    found = kernels(compiled.as_text())
    near = [kernel for kernel in found if kernel.convolution_near]
    assert compiled.cost_analysis()["bytes accessed"] / 2**20 <= accessed
    assert len(near) <= moving
    assert sum(kernel.transposed for kernel in near) / 2**20 <= moved


def test_the_step_says_nothing_to_the_host(step):
    _, compiled = step
    text = compiled.as_text()
    assert not any(word in text for word in ("callback", "infeed", "outfeed", " send(", " recv("))
