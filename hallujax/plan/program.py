"""What a traced program moves, computes and holds, under a stated model of a compiler's fusion; nothing is compiled.

XLA's compilers take minutes for a ResNet-50 step, and each has to be installed. What decides a convolutional network's
memory and traffic can be read off its jaxpr, in seconds and for any device:

- Matrix products and convolutions read their operands from memory and write their results to memory.
- A reduction reads what its operand is computed from, and writes its result; reductions over the same arrays are one
  sweep (a batch's mean and mean square).
- All else (casts, broadcasts, arithmetic, activations) is computed where it is used, from what is in memory. It goes
  to memory itself only as an operand of a product, as a result of the program, or where reading it again is cheaper
  than computing it again from what it is made of.

So batch norm and its ReLU read a convolution's result twice and write once, the least that XLA does where convolutions
are library calls (GPUs). A TPU's compiler also fuses into its convolutions and moves less.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

VIEWS = ("reshape", "squeeze", "expand_dims", "transpose", "copy", "copy_p", "stop_gradient", "optimization_barrier")
ALONE = ("select_and_scatter_add", "scatter", "scatter-add", "sort", "fft", "ragged_dot_general")
WORTH_IT = 1.25  # how much more computing again must read, before compilers keep a value instead


@dataclasses.dataclass(eq=False, slots=True)
class Value:
    """An array of the program."""

    elements: int
    bytes: int
    floating: bool


@dataclasses.dataclass(eq=False, slots=True)
class Operation:
    """An equation, with those of the functions it calls in its place.

    `flops` are those of products; `repeats` how often a loop runs it.
    """

    name: str
    inputs: list[Value]
    outputs: list[Value]
    flops: float
    float32: bool
    repeats: int

    @property
    def kind(self) -> str:
        if self.name in ("dot_general", "conv_general_dilated") or self.name in ALONE:
            return "alone"
        reduces = self.name.startswith(("reduce_", "argm", "cum")) and self.name != "reduce_precision"
        return "reduction" if reduces else "fused"


@dataclasses.dataclass(eq=False, slots=True)
class Kernel:
    """One sweep: what it reads from and writes to memory.

    Attributes:
      flops: of a product, else 0.
      float32: whether the product's operands are.
      repeats: how often a loop runs it.
    """

    reads: set[Value]
    writes: set[Value]
    flops: float = 0.0
    float32: bool = False
    repeats: int = 1

    @property
    def bytes(self) -> int:
        return sum(value.bytes for value in self.reads | self.writes)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program's kernels in order.

    Attributes:
      kernels: see there.
      peak: most bytes of temporaries (neither arguments nor results) that are alive at once.
    """

    kernels: Sequence[Kernel]
    peak: int

    @property
    def flops(self) -> float:
        """Of convolutions and matrix products, two a multiplication and addition, padding counted as if computed."""
        return sum(kernel.flops * kernel.repeats for kernel in self.kernels)

    @property
    def bytes(self) -> float:
        """Read and written."""
        return sum(kernel.bytes * kernel.repeats for kernel in self.kernels)

    def seconds(self, bandwidth: float, flops: Callable[[bool], float]) -> float:
        """The roofline: every kernel as long as its bytes or its products take, whichever is longer.

        Args:
          bandwidth: bytes a second.
          flops: a second, of products whose operands are float32 (True) or narrower.
        """
        return sum(
            kernel.repeats * max(kernel.bytes / bandwidth, kernel.flops / flops(kernel.float32))
            for kernel in self.kernels
        )


def analyse(closed: ClosedJaxpr) -> Program:
    """The kernels of a program and the most it holds."""
    jaxpr = closed.jaxpr
    operations: list[Operation] = []
    arguments = [_value(var.aval) for var in jaxpr.invars]
    results = _flatten(jaxpr, arguments, [_value(var.aval) for var in jaxpr.constvars], operations, 1)
    operations = _needed(operations, results)
    stored = _stored(operations, arguments, results)
    kernels = _kernels(operations, stored)
    return Program(kernels, _peak(kernels, {*arguments, *results}))


def _value(aval: Any) -> Value:
    elements = math.prod(aval.shape)
    # A PRNG key's type is no NumPy dtype; it is two words.
    size = aval.dtype.itemsize if not jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key) else 8
    return Value(elements, elements * size, jax.dtypes.issubdtype(aval.dtype, jax.numpy.floating))


def _flatten(
    jaxpr: Jaxpr, arguments: Sequence[Value], constants: Sequence[Value], into: list[Operation], repeats: int
) -> list[Value]:
    """Appends a function's operations; returns its results."""
    known = dict(zip([*jaxpr.invars, *jaxpr.constvars], [*arguments, *constants], strict=True))

    def read(var):
        return _value(var.aval) if isinstance(var, Literal) else known[var]

    for equation in jaxpr.eqns:
        name, inputs = equation.primitive.name, [read(var) for var in equation.invars]
        same_type = name == "convert_element_type" and equation.invars[0].aval.dtype == equation.outvars[0].aval.dtype
        if name in VIEWS or same_type:
            outputs = inputs[: len(equation.outvars)]
        elif name == "scan":
            outputs = _flatten_scan(equation, inputs, into, repeats)
        elif called := _called(equation):
            outputs = _flatten(called.jaxpr, inputs[-len(called.jaxpr.invars) :], _constants(called), into, repeats)
        else:
            outputs = [_value(var.aval) for var in equation.outvars]
            float32 = bool(equation.invars) and equation.invars[0].aval.dtype == jax.numpy.float32
            into.append(Operation(name, inputs, outputs, _flops(equation), float32, repeats))
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _flatten_scan(equation: Any, inputs: Sequence[Value], into: list[Operation], repeats: int) -> list[Value]:
    """A loop's body, once; what is sliced from and stacked into longer arrays goes through memory."""
    length, body = equation.params["length"], equation.params["jaxpr"]
    whole = equation.params["num_consts"] + equation.params["num_carry"]
    slices = [_value(var.aval) for var in body.jaxpr.invars[whole:]]
    into += [
        Operation("slice", [x], [part], 0.0, False, repeats) for x, part in zip(inputs[whole:], slices, strict=True)
    ]
    results = _flatten(body.jaxpr, [*inputs[:whole], *slices], _constants(body), into, repeats * length)
    carried = equation.params["num_carry"]
    stacks = [_value(var.aval) for var in equation.outvars[carried:]]
    into += [
        Operation("scatter", [part], [stack], 0.0, False, repeats)
        for part, stack in zip(results[carried:], stacks, strict=True)
    ]
    return [*results[:carried], *stacks]


def _called(equation: Any) -> ClosedJaxpr | None:
    """The function that an equation calls; of several (branches) the longest."""
    if equation.primitive.name.startswith("reduce"):  # a `reduce` calls its operator
        return None
    held = [equation.params[name] for name in ("jaxpr", "call_jaxpr", "body_jaxpr") if name in equation.params]
    called = [*held, *equation.params.get("branches", ())]
    closed = [ClosedJaxpr(each, ()) if isinstance(each, Jaxpr) else each for each in called]
    return max(closed, key=lambda each: len(each.jaxpr.eqns), default=None)


def _constants(closed: ClosedJaxpr) -> list[Value]:
    return [_value(var.aval) for var in closed.jaxpr.constvars]


def _flops(equation: Any) -> float:
    """Two for every multiplication and addition; a kernel's taps are counted at every place, padding or not."""
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        taps = math.prod(kernel) / kernel[numbers.rhs_spec[0]]  # of one output feature, over its input features
        spread = math.prod(equation.params["lhs_dilation"])  # zeros between the inputs are not multiplied
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * taps / spread
    return 0.0


def _needed(operations: list[Operation], results: Iterable[Value]) -> list[Operation]:
    """Without those that no result depends on."""
    wanted, kept = set(results), []
    for operation in reversed(operations):
        if wanted.intersection(operation.outputs):
            wanted.update(operation.inputs)
            kept.append(operation)
    return kept[::-1]


def _stored(operations: list[Operation], arguments: Iterable[Value], results: Iterable[Value]) -> set[Value]:
    """The values that are in memory."""
    stored = {*arguments, *results}
    for operation in operations:
        if operation.kind == "alone":
            stored.update(operation.inputs)
        if operation.kind != "fused":
            stored.update(operation.outputs)
    readers = collections.Counter(value for operation in operations for value in operation.inputs)
    # Masks first: with those of the ReLUs in memory, what they are masks of need not be.
    for floating in (False, True):
        sweeps = _sweeps(operations, stored)
        made_of: dict[Value, frozenset[Value]] = {}
        for operation in operations:
            sources = frozenset().union(*(_sources(x, stored, made_of) for x in operation.inputs))
            for value in operation.outputs:
                made_of[value] = sources
                if value.floating != floating or (floating and readers[value] < 2):
                    continue  # what has one reader is an intermediate value of that
                uses, cost = len(sweeps.get(value, ())), sum(source.bytes for source in sources)
                # Read `uses` times what it is made of, or that once, and written once and read `uses` times?
                if uses * cost > WORTH_IT * (cost + (1 + uses) * value.bytes):
                    stored.add(value)
    return stored


def _sweeps(operations: list[Operation], stored: set[Value]) -> dict[Value, frozenset]:
    """Which sweeps over memory each value is computed in, if it is not stored itself."""
    waits: dict[Value, int] = {}  # reductions and products on the longest way to it
    for operation in operations:
        before = max((waits.get(value, 0) for value in operation.inputs), default=0)
        waits.update(dict.fromkeys(operation.outputs, before + (operation.kind != "fused")))
    sweeps: dict[Value, frozenset] = {}
    for operation in reversed(operations):
        if operation.kind == "reduction":
            ends = frozenset({(waits[operation.outputs[0]], operation.inputs[0].elements)})
        else:
            ends = frozenset().union(
                *(frozenset({value}) if value in stored else sweeps.get(value, ()) for value in operation.outputs)
            )
        for value in operation.inputs:
            sweeps[value] = sweeps.get(value, frozenset()) | ends
    return sweeps


def _sources(value: Value, stored: set[Value], made_of: dict[Value, frozenset[Value]]) -> frozenset[Value]:
    return frozenset({value}) if value in stored else made_of.get(value, frozenset())


def _kernels(operations: list[Operation], stored: set[Value]) -> list[Kernel]:
    """One a product; all else joins a sweep over arrays of its size that reads or writes what it is made of."""
    kernels: list[Kernel] = []
    sweeps: dict[tuple[int, int], list[_Sweep]] = {}
    made_of: dict[Value, frozenset[Value]] = {}
    depth: dict[Value, int] = {}  # kernels that must have run before
    for operation in operations:
        sources = frozenset().union(*(_sources(x, stored, made_of) for x in operation.inputs))
        made_of.update(dict.fromkeys(operation.outputs, sources))
        written = stored.intersection(operation.outputs)
        if not written:
            continue
        if operation.kind == "alone":
            after = max((depth.get(source, 0) for source in sources), default=0)
            kernels.append(Kernel(set(sources), written, operation.flops, operation.float32, operation.repeats))
        else:
            elements = (operation.inputs if operation.kind == "reduction" else operation.outputs)[0].elements
            among = sweeps.setdefault((elements, operation.repeats), [])
            sweep = next((sweep for sweep in reversed(among) if sweep.can_take(sources, depth)), None)
            if sweep is None:
                after = max((depth.get(source, 0) for source in sources), default=0)
                sweep = _Sweep(Kernel(set(), set(), repeats=operation.repeats), elements, after)
                among.append(sweep)
                kernels.append(sweep.kernel)
            after = sweep.after
            sweep.kernel.reads |= sources - sweep.kernel.writes
            sweep.kernel.writes |= written
        depth.update(dict.fromkeys(written, after + 1))
    return kernels


@dataclasses.dataclass(eq=False)
class _Sweep:
    """A kernel that more may join: over arrays of so many `elements`, when `after` kernels have run."""

    kernel: Kernel
    elements: int
    after: int

    def can_take(self, sources: frozenset[Value], depth: dict[Value, int]) -> bool:
        """Whether what is made of `sources` can be computed in this sweep, and shares a large array with it."""
        own = {source for source in sources & self.kernel.writes if source.elements == self.elements}
        shared = own or any(source.elements == self.elements for source in sources & self.kernel.reads)
        return bool(shared) and all(depth.get(source, 0) <= self.after for source in sources - own)


def _peak(kernels: Sequence[Kernel], outside: set[Value]) -> int:
    """Most bytes of temporaries alive at once, each from the kernel that writes it to the last that reads it."""
    last = {value: number for number, kernel in enumerate(kernels) for value in (*kernel.reads, *kernel.writes)}
    ends: dict[int, int] = {}
    for value, number in last.items():
        if value not in outside:
            ends[number] = ends.get(number, 0) + value.bytes
    alive = peak = 0
    begun: set[Value] = set(outside)
    for number, kernel in enumerate(kernels):
        new = {*kernel.reads, *kernel.writes} - begun
        begun |= new
        alive += sum(value.bytes for value in new)
        peak = max(peak, alive)
        alive -= ends.get(number, 0)
    return peak
