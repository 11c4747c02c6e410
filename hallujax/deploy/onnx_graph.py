"""A traced program of jax as an ONNX model, equation by equation.

The program is traced at one size of batch, a prime that divides no other dimension: what is a multiple of it grows
with the batch, and is open in the graph. What depends on no input is computed by jax here and now. What ends up
unread is left out.

Arrays are held transposed where that is free: a convolution of ONNX has its channels second, and what follows it
element by element need not have them moved back.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from onnx import helper, numpy_helper

from hallujax.errors import UsageError

BATCH = 9973  # traced with
OPSET = 18
IR_VERSION = 8  # the oldest that has it: runtimes refuse later ones than they know
INPUT, OUTPUT = "frames", "probabilities"
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}

Order = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Constant:
    """An array that depends on no input; `name` is that of the weight it was made from."""

    array: np.ndarray
    name: str = "constant"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array of the program as the graph holds it: axis i of what `name` names is the array's axis `order[i]`."""

    name: str
    shape: tuple[int, ...]  # the array's
    order: Order


Value = Constant | Tensor
Primitive = Callable[..., Value]  # (graph, equation, *operands)


class Graph:
    """The nodes and weights so far."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._held: dict[tuple[int, Order], tuple[np.ndarray, str]] = {}
        self._transposed: dict[tuple[str, Order], str] = {}

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node of one output; returns the output's name."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def tensor(self, op: str, inputs: Sequence[str], shape: Sequence[int], order: Order | None = None, **attributes):
        """Adds a node; returns its output, an array of this shape held in `order`, its own if not said."""
        return Tensor(self.node(op, inputs, **attributes), tuple(shape), order or in_order(shape))

    def name(self, value: Value, order: Order | None = None) -> str:
        """The name of an array with its axes in `order`, its own if not said."""
        order = in_order(value.shape) if order is None else order
        if isinstance(value, Constant):
            return self._constant(value, order)
        if value.order == order:
            return value.name
        permutation = tuple(value.order.index(axis) for axis in order)
        if (value.name, permutation) not in self._transposed:
            transposed = self.node("Transpose", [value.name], perm=permutation)
            self._transposed[value.name, permutation] = transposed
        return self._transposed[value.name, permutation]

    def integers(self, numbers: Sequence[int]) -> str:
        """The name of a constant vector, int64."""
        return self.name(Constant(np.array(numbers, np.int64), "integers"))

    def sizes(self, shape: Sequence[int]) -> str:
        """The name of a shape as an int64 vector, computed from the input where it grows with the batch."""
        if not any(map(grows, shape)):
            return self.integers(shape)
        clips = self.node("Shape", [INPUT], start=0, end=1)
        multiples = self.node("Mul", [clips, self.integers([size // BATCH if grows(size) else 0 for size in shape])])
        return self.node("Add", [multiples, self.integers([0 if grows(size) else size for size in shape])])

    def _constant(self, constant: Constant, order: Order) -> str:
        key = (id(constant.array), order)  # the array is kept below, or its id would be another's one day
        if key not in self._held:
            name, copies = constant.name, 1
            while name in self.initializers:
                copies += 1
                name = f"{constant.name}_{copies}"
            array = np.ascontiguousarray(constant.array.transpose(order)).reshape([constant.shape[i] for i in order])
            self.initializers[name] = numpy_helper.from_array(array, name)
            self._held[key] = (constant.array, name)
        return self._held[key][1]


def in_order(shape: Sequence[int]) -> Order:
    return tuple(range(len(shape)))


def grows(size: int) -> bool:
    """Whether a dimension of the traced program is a multiple of the batch."""
    return size > 0 and size % BATCH == 0


def to_onnx(
    function: Callable[[Any, jax.Array], jax.Array],
    weights: Mapping[str, np.ndarray],
    frames: Sequence[int],
    primitives: Mapping[str, Primitive],
) -> onnx.ModelProto:
    """A model from `frames` uint8 `[clips, *frames]` to `probabilities` float32 `[clips, K]`, for any number of clips.

    Args:
      function: `(weights, frames) -> probabilities`, which treats every clip alike.
      weights: the arrays that go into the file, by name.
      frames: the shape of a clip.
      primitives: `onnx_primitives.PRIMITIVES`.

    Raises:
      UsageError: for an operation that has no translation, naming it.
    """
    if clash := [name for name, array in weights.items() if any(map(grows, array.shape))]:
        raise UsageError(f"ONNX: {clash[0]} has a dimension that is a multiple of {BATCH}, which stands for the batch")
    clips = jax.ShapeDtypeStruct((BATCH, *frames), np.uint8)
    program = jax.make_jaxpr(function)(dict(weights), clips)
    graph = Graph()
    ordered = [Constant(np.asarray(weights[name]), name) for name in sorted(weights)]  # as jax orders a dict's keys
    constants = [Constant(np.asarray(array)) for array in program.consts]
    inputs = [*ordered, Tensor(INPUT, clips.shape, in_order(clips.shape))]
    (result,) = _translate(graph, program.jaxpr, constants, inputs, primitives)
    graph.nodes.append(helper.make_node("Identity", [graph.name(result)], [OUTPUT], name=OUTPUT))

    nodes, read = _read_nodes(graph.nodes)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "hallujax",
            [helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["clips", *frames])],
            [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["clips", *result.shape[1:]])],
            [initializer for name, initializer in graph.initializers.items() if name in read],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hallujax",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _translate(
    graph: Graph,
    program: Jaxpr,
    constants: Sequence[Value],
    inputs: Sequence[Value],
    primitives: Mapping[str, Primitive],
) -> list[Value]:
    values = dict(zip([*program.constvars, *program.invars], [*constants, *inputs], strict=True))

    def read(atom: Any) -> Value:
        return Constant(np.asarray(atom.val)) if isinstance(atom, Literal) else values[atom]

    for equation in program.eqns:
        operands = [read(atom) for atom in equation.invars]
        if equation.primitive.name in CALLS:
            inner = equation.params[CALLS[equation.primitive.name]]
            inner_constants = [Constant(np.asarray(array)) for array in inner.consts]
            results = _translate(graph, inner.jaxpr, inner_constants, operands, primitives)
        else:
            results = _results(graph, equation, operands, primitives)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in program.outvars]


def _results(
    graph: Graph, equation: JaxprEqn, operands: list[Value], primitives: Mapping[str, Primitive]
) -> list[Value]:
    name = equation.primitive.name
    sizes = [size for variable in equation.outvars for size in variable.aval.shape]
    if all(isinstance(operand, Constant) for operand in operands) and not any(map(grows, sizes)):
        found = equation.primitive.bind(*[operand.array for operand in operands], **equation.params)
        called = next((operand.name for operand in operands if operand.name != "constant"), "constant")
        arrays = found if equation.primitive.multiple_results else [found]
        return [Constant(np.asarray(array), called) for array in arrays]
    if name not in primitives:
        raise UsageError(f"ONNX: jax's {name!r} has no translation; add one to hallujax/deploy/onnx_primitives.py")
    return [primitives[name](graph, equation, *operands)]


def _read_nodes(nodes: Sequence[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the output depends on, and all that they read."""
    read, kept = {OUTPUT}, []
    for node in reversed(nodes):
        if read.intersection(node.output):
            read.update(node.input)
            kept.append(node)
    return kept[::-1], read
