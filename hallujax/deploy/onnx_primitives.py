"""Each operation of jax that our networks use, as nodes of ONNX (opset 18).

A function takes the graph, the equation and its operands, of which at least one is a `Tensor`, and returns the result.
"""

from collections.abc import Mapping, Sequence

from jax.extend.core import JaxprEqn
from onnx import helper

from hallujax.deploy.onnx_graph import Constant, Graph, Order, Primitive, Tensor, Value, grows, in_order
from hallujax.errors import UsageError


def elementwise(op: str) -> Primitive:
    """`op` of arrays that are broadcast, in the order in which the largest of them is held."""

    def emit(graph: Graph, equation: JaxprEqn, *operands: Value) -> Tensor:
        shape = equation.outvars[0].aval.shape
        tensors = [operand for operand in operands if isinstance(operand, Tensor)]
        order = next((tensor.order for tensor in tensors if tensor.shape == shape), tensors[0].order)
        names = [graph.name(operand, order if operand.shape else ()) for operand in operands]
        return graph.tensor(op, names, shape, order)

    return emit


def maximum(graph: Graph, equation: JaxprEqn, x: Value, y: Value) -> Tensor:
    """Also the ReLU, which runtimes fuse with what is before it."""
    if isinstance(y, Constant) and not y.shape and y.array == 0:
        return elementwise("Relu")(graph, equation, x)
    return elementwise("Max")(graph, equation, x, y)


def multiply(graph: Graph, equation: JaxprEqn, x: Value, y: Value) -> Tensor:
    """A folded batch norm's gain is 1, and no node."""
    for factor, other in ((x, y), (y, x)):
        if isinstance(factor, Constant) and other.shape == equation.outvars[0].aval.shape and (factor.array == 1).all():
            return other
    return elementwise("Mul")(graph, equation, x, y)


def square(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    return elementwise("Mul")(graph, equation, x, x)


def rsqrt(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    return elementwise("Reciprocal")(graph, equation, elementwise("Sqrt")(graph, equation, x))


def unchanged(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    del graph, equation
    return x


def convert(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    dtype = equation.outvars[0].aval.dtype
    if dtype == equation.invars[0].aval.dtype:
        return x
    return graph.tensor("Cast", [x.name], x.shape, x.order, to=helper.np_dtype_to_tensor_dtype(dtype))


def select(graph: Graph, equation: JaxprEqn, which: Value, *cases: Value) -> Tensor:
    if equation.invars[0].aval.dtype != bool:
        raise _beyond(equation, "of more than two cases")
    return elementwise("Where")(graph, equation, which, *reversed(cases))


def reduction(op: str) -> Primitive:
    def emit(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
        axes = equation.params["axes"]
        if any(grows(x.shape[axis]) for axis in axes):
            raise _beyond(equation, "over the clips of a batch")
        left = [axis for axis in x.order if axis not in axes]
        order = tuple(sorted(left).index(axis) for axis in left)
        names = [x.name, graph.integers([x.order.index(axis) for axis in axes])]
        return graph.tensor(op, names, equation.outvars[0].aval.shape, order, keepdims=0)

    return emit


def transpose(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    del graph
    permutation = equation.params["permutation"]
    order = tuple(permutation.index(axis) for axis in x.order)
    return Tensor(x.name, equation.outvars[0].aval.shape, order)


def reshape(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    return _reshaped(graph, x, equation.outvars[0].aval.shape)


def broadcast(graph: Graph, equation: JaxprEqn, x: Value) -> Tensor:
    shape, sizes = equation.params["shape"], [1] * len(equation.params["shape"])
    for size, axis in zip(x.shape, equation.params["broadcast_dimensions"], strict=True):
        sizes[axis] = size
    if isinstance(x, Constant):
        x = Constant(x.array.reshape(sizes), x.name)
    else:
        x = _reshaped(graph, x, sizes)
    if tuple(sizes) == tuple(shape):
        return x
    return graph.tensor("Expand", [graph.name(x), graph.sizes(shape)], shape)


def slices(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    cut = [axis for axis in in_order(x.shape) if (starts[axis], limits[axis], strides[axis]) != (0, x.shape[axis], 1)]
    if any(grows(x.shape[axis]) for axis in cut):
        raise _beyond(equation, "of the clips of a batch")
    vectors = [[values[axis] for axis in cut] for values in (starts, limits, in_order(x.shape), strides)]
    vectors[2] = [x.order.index(axis) for axis in cut]
    names = [x.name, *map(graph.integers, vectors)]
    return graph.tensor("Slice", names, equation.outvars[0].aval.shape, x.order)


def concatenate(graph: Graph, equation: JaxprEqn, *parts: Value) -> Tensor:
    order = next(part.order for part in parts if isinstance(part, Tensor))
    return _concatenated(graph, parts, equation.params["dimension"], order, equation.outvars[0].aval.shape)


def stack(graph: Graph, equation: JaxprEqn, *parts: Value) -> Tensor:
    shape, axis = equation.outvars[0].aval.shape, equation.params["axis"]
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    return _concatenated(graph, [_reshaped(graph, part, one) for part in parts], axis, in_order(shape), shape)


def pad(graph: Graph, equation: JaxprEqn, x: Tensor, value: Constant) -> Tensor:
    config = equation.params["padding_config"]
    if any(low < 0 or high < 0 or inside for low, high, inside in config):
        raise _beyond(equation, "that cuts, or lies between the elements")
    pads = [config[axis][0] for axis in x.order] + [config[axis][1] for axis in x.order]
    names = [x.name, graph.integers(pads), graph.name(value)]
    return graph.tensor("Pad", names, equation.outvars[0].aval.shape, x.order)


def product(graph: Graph, equation: JaxprEqn, x: Value, y: Value) -> Tensor:
    if equation.params["dimension_numbers"] != (((len(x.shape) - 1,), (0,)), ((), ())) or len(y.shape) != 2:
        raise _beyond(equation, f"along {equation.params['dimension_numbers']}")
    return graph.tensor("MatMul", [graph.name(x), graph.name(y)], equation.outvars[0].aval.shape)


def convolution(graph: Graph, equation: JaxprEqn, x: Value, kernel: Value) -> Tensor:
    params = equation.params
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise _beyond(equation, "with a dilated input or groups of clips")
    layout = params["dimension_numbers"]
    return graph.tensor(
        "Conv",
        [graph.name(x, layout.lhs_spec), graph.name(kernel, layout.rhs_spec)],
        equation.outvars[0].aval.shape,
        layout.out_spec,
        strides=params["window_strides"],
        pads=_ends(params["padding"]),
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )


def max_pooling(graph: Graph, equation: JaxprEqn, x: Tensor) -> Tensor:
    params = equation.params
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    still = [axis for axis in in_order(x.shape) if (window[axis], strides[axis], padding[axis]) == (1, 1, (0, 0))]
    if len(still) != 2 or set(params["base_dilation"]) != {1}:
        raise _beyond(equation, "over other than all axes but two, or with a dilated input")
    spatial = [axis for axis in in_order(x.shape) if axis not in still]
    order = (*still, *spatial)
    return graph.tensor(
        "MaxPool",
        [graph.name(x, order)],
        equation.outvars[0].aval.shape,
        order,
        kernel_shape=[window[axis] for axis in spatial],
        strides=[strides[axis] for axis in spatial],
        pads=_ends([padding[axis] for axis in spatial]),
        dilations=[params["window_dilation"][axis] for axis in spatial],
    )


def _reshaped(graph: Graph, x: Value, shape: Sequence[int]) -> Tensor:
    if sum(map(grows, shape)) > 1:
        raise UsageError(f"ONNX: an array of shape {list(shape)} grows with the batch along two axes")
    sizes = graph.integers([-1 if grows(size) else size for size in shape])
    return graph.tensor("Reshape", [graph.name(x), sizes], shape)


def _concatenated(graph: Graph, parts: Sequence[Value], axis: int, order: Order, shape: Sequence[int]) -> Tensor:
    if grows(shape[axis]):
        raise UsageError("ONNX: arrays are joined along an axis that grows with the batch")
    return graph.tensor("Concat", [graph.name(part, order) for part in parts], shape, order, axis=order.index(axis))


def _ends(padding: Sequence[tuple[int, int]]) -> list[int]:
    """`[(low, high), ...]` as ONNX has it: all lows, then all highs."""
    return [low for low, _ in padding] + [high for _, high in padding]


def _beyond(equation: JaxprEqn, what: str) -> UsageError:
    return UsageError(f"ONNX: jax's {equation.primitive.name!r} {what} has no translation")


PRIMITIVES: Mapping[str, Primitive] = {
    "abs": elementwise("Abs"),
    "add": elementwise("Add"),
    "and": elementwise("And"),
    "broadcast_in_dim": broadcast,
    "concatenate": concatenate,
    "conv_general_dilated": convolution,
    "convert_element_type": convert,
    "copy": unchanged,
    "div": elementwise("Div"),
    "dot_general": product,
    "eq": elementwise("Equal"),
    "exp": elementwise("Exp"),
    "expand_dims": reshape,
    "ge": elementwise("GreaterOrEqual"),
    "gt": elementwise("Greater"),
    "le": elementwise("LessOrEqual"),
    "log": elementwise("Log"),
    "logistic": elementwise("Sigmoid"),
    "lt": elementwise("Less"),
    "max": maximum,
    "min": elementwise("Min"),
    "mul": multiply,
    "neg": elementwise("Neg"),
    "pad": pad,
    "reduce_max": reduction("ReduceMax"),
    "reduce_min": reduction("ReduceMin"),
    "reduce_sum": reduction("ReduceSum"),
    "reduce_window_max": max_pooling,
    "reshape": reshape,
    "rsqrt": rsqrt,
    "select_n": select,
    "slice": slices,
    "sqrt": elementwise("Sqrt"),
    "square": square,
    "squeeze": reshape,
    "stack": stack,
    "stop_gradient": unchanged,  # a method's wiring may hold one; it matters to gradients alone
    "sub": elementwise("Sub"),
    "tanh": elementwise("Tanh"),
    "transpose": transpose,
}
