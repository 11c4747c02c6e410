"""What a program computes, moves and holds, in closed form, and beside what XLA says of the same."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from hallujax.plan.program import analyse

FLOAT = 4  # bytes


def of(function, *shapes, dtype=jnp.float32):
    return analyse(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)))


def convolve(x, kernel, stride=1, padding="VALID"):
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_a_convolution_is_two_operations_a_tap():
    shapes = (2, 8, 9, 3), (3, 3, 3, 5)
    program = of(convolve, *shapes)
    assert program.flops == 2 * (2 * 6 * 7 * 5) * (3 * 3 * 3)
    lowered = jax.jit(convolve).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    assert program.flops == lowered.cost_analysis()["flops"]
    assert program.bytes == FLOAT * (2 * 8 * 9 * 3 + 3 * 3 * 3 * 5 + 2 * 6 * 7 * 5)
    assert program.peak == 0  # arguments and results are not temporaries


@pytest.mark.parametrize("stride", [1, 2])
def test_both_gradients_of_a_convolution_are_as_much_as_itself(stride):
    x, kernel = (2, 8, 8, 4), (1, 1, 4, 6)

    def both(x, kernel, g):
        return jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)[1](g)

    result = (2, 8 // stride, 8 // stride, 6)
    assert of(both, x, kernel, result).flops == 2 * of(lambda x, k: convolve(x, k, stride), x, kernel).flops


def test_a_matrix_product_and_what_follows_it():
    """`relu(x @ w)` to a second product: its result and the activation go to memory, no more."""
    program = of(lambda x, w, v: jax.nn.relu(x @ w) @ v, (16, 8), (8, 32), (32, 4))
    assert program.flops == 2 * 16 * 8 * 32 + 2 * 16 * 32 * 4
    hidden = 16 * 32
    products = (16 * 8 + 8 * 32 + hidden) + (hidden + 32 * 4 + 16 * 4)
    assert program.bytes == FLOAT * (products + 2 * hidden)
    assert program.peak == FLOAT * 2 * hidden


def test_reductions_over_one_array_are_one_sweep():
    program = of(lambda x: (x.mean(0), jnp.square(x).mean(0)), (64, 8))
    (sweep,) = (kernel for kernel in program.kernels if kernel.bytes > FLOAT * 64)
    assert sweep.bytes == FLOAT * (64 * 8 + 2 * 8)


def test_a_normalisation_reads_twice_and_writes_once():
    def normalise(x, y):
        mean = x.mean(0)
        return ((x - mean) / jnp.sqrt(jnp.square(x - mean).mean(0))) @ y

    program = of(normalise, (1024, 16), (16, 16))
    large = [kernel for kernel in program.kernels if kernel.bytes >= FLOAT * 1024 * 16]
    # Mean, variance around it, the normalised array; the product reads that.
    assert [round(kernel.bytes / (FLOAT * 1024 * 16)) for kernel in large] == [1, 1, 2, 2]


def test_adam_moves_seven_numbers_a_parameter():
    def update(w, g, m, v):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return w - 0.01 * m / (jnp.sqrt(v) + 1e-8), m, v

    assert of(update, *[(32, 32)] * 4).bytes == 7 * FLOAT * 32 * 32


def test_a_value_is_kept_where_computing_it_again_reads_more():
    """A sum of four arrays that five reductions need: read four times twenty, or written once and read."""

    def sums(a, b, c, d):
        total = a + b + c + d
        chained = [total.sum()]
        for _ in range(4):
            chained.append((total * chained[-1]).sum())
        return chained

    size = FLOAT * 4096
    assert of(sums, *[(4096,)] * 4).bytes == pytest.approx(size * (4 + 1 + 4), rel=1e-3)


def test_what_nothing_needs_is_not_counted():
    assert of(lambda x, y: (x @ y, x @ x)[0], (8, 8), (8, 8)).flops == 2 * 8**3


def test_a_loop_runs_its_body_as_often_in_the_memory_of_one():
    def loop(w, xs):
        return lax.scan(lambda total, x: (total + (jax.nn.relu(x @ w) @ w).sum(), None), 0.0, xs)[0]

    once, often = of(loop, (32, 32), (1, 64, 32)), of(loop, (32, 32), (5, 64, 32))
    assert often.flops == 5 * once.flops == 5 * 2 * 2 * 64 * 32 * 32
    assert often.peak == once.peak


def test_rematerialisation_computes_more_and_holds_less():
    def loss(ws, x):
        def layer(x, w):
            return jnp.tanh(jnp.tanh(x @ w) @ w)

        for w in ws:
            x = (jax.checkpoint(layer) if again else layer)(x, w)
        return x.sum()

    found = {}
    for again in (False, True):
        found[again] = of(lambda *arrays: jax.grad(loss)(arrays[1:], arrays[0]), (4096, 16), *[(16, 16)] * 6)
    assert found[True].flops > 1.2 * found[False].flops
    assert found[True].peak < 0.8 * found[False].peak


def test_the_roofline_is_a_sum_of_the_larger():
    """A product that computes much and one that reads much."""
    program = of(lambda x, y, z: (x @ x, y * z), (64, 64), (4096,), (4096,))
    flops, bandwidth = 1e6, 1e5
    assert program.seconds(bandwidth, lambda float32: flops) == pytest.approx(
        2 * 64**3 / flops + 3 * FLOAT * 4096 / bandwidth
    )
    half = of(lambda x: x @ x, (64, 64), dtype=jnp.bfloat16)
    assert half.seconds(1e30, lambda float32: 1.0 if float32 else 2.0) == pytest.approx(2 * 64**3 / 2)


def test_calls_and_branches_are_looked_into():
    def branch(x):
        return lax.cond(x[0, 0] > 0, lambda x: jax.jit(lambda x: x @ x)(x), lambda x: x, x)

    assert of(branch, (8, 8)).flops == 2 * 8**3
