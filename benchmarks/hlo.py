"""What a compiled step is made of, read from its optimised HLO: kernels, the bytes they move, the products they do.

`kernels(compiled.as_text())` lists what the device starts one after the other: what a fusion computes inside is one
kernel, what a call or a loop runs is listed by itself. Bytes are those of a kernel's operands and results, where only
a slice of an operand is read those of the slice; floating-point operations are those of matrix products and
convolutions, cuDNN's and cuBLAS's calls among them. The rest of the arithmetic is never what a kernel waits for.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
# What takes no time: it names memory, or another instruction's result.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
FREE |= {"copy-done", "async-done", "async-update", "opt-barrier", "add-dependency"}
SLICES = {"slice", "dynamic-slice", "gather"}
VIEWS = {"bitcast", "get-tuple-element", "reshape", "tuple"}
CONVOLUTIONS = ("__cudnn$conv", "__onednn$conv", "__cudnn$fusion")
PRODUCTS = ("__cublas$", "__onednn$matmul")

_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](?:\{([\d,]*)[^}]*\})?")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)$")
_START = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result."""

    dtype: str
    shape: tuple[int, ...]
    layout: tuple[int, ...]  # dimensions, the fastest first

    @property
    def bytes(self) -> int:
        return BYTES.get(self.dtype, 0) * math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str  # all that follows the opcode
    root: bool

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.arrays)

    @property
    def target(self) -> str:
        """Of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.text)
        return found[1] if found else ""


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One start of the device.

    Attributes:
      name: as the profiler has it.
      kind: `convolution`, `product`, `reduction`, `transpose` or `other`, by the dearest thing in it.
      bytes: read and written, in one run of the step.
      flops: of products and convolutions.
      dtype: of the operands of these, else of the result.
      transposed: bytes of the arrays that it lays out anew; 0 for a kernel that moves no dimension.
      convolution_near: whether such an array comes from a convolution or goes into one.
    """

    name: str
    kind: str
    bytes: int
    flops: int
    dtype: str
    transposed: int = 0
    convolution_near: bool = False


def kernels(text: str) -> list[Kernel]:
    """Every kernel of a module; one that a loop of known length repeats counts so many times."""
    computations, entry = _parse(text)
    found: list[Kernel] = []
    _collect(computations, entry, 1, found)
    return found


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", {}
    for line in text.splitlines():
        if start := _START.match(line):
            current = computations.setdefault(start[2], {})
            entry = start[2] if start[1] else entry
        elif parsed := _LINE.match(line):
            root, name, shape, opcode, rest = parsed.groups()
            arrays = tuple(
                Array(dtype, _numbers(dims), _numbers(layout or "")) for dtype, dims, layout in _ARRAY.findall(shape)
            )
            operands = tuple(re.findall(r"%([\w.\-]+)", rest[: _closing(rest)]))
            current[name] = Instruction(name, opcode, arrays, operands, rest, bool(root))
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of an HLO module")
    return computations, entry


def _collect(computations: Mapping[str, Computation], name: str, times: int, found: list[Kernel]) -> None:
    here = computations[name]
    for instruction in here.values():
        called = list(_called(instruction))
        if instruction.opcode in FREE:
            continue
        if instruction.opcode in ("call", "while", "conditional", "async-start"):
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.text)
            for each in called:
                _collect(computations, each, times * int(trips[1]) if trips else times, found)
            continue
        inside = computations[called[0]] if instruction.opcode == "fusion" else {instruction.name: instruction}
        around = here if instruction.opcode != "fusion" else inside
        flops, dtype, kind = 0, instruction.arrays[0].dtype if instruction.arrays else "", "other"
        for each in inside.values():
            done = flops_of(each, around)
            if done:
                flops, dtype = flops + done, around[each.operands[0]].arrays[0].dtype
            kind = _kind(each) if _RANK[_kind(each)] > _RANK[kind] else kind
        moved = sum(each.bytes for each in inside.values() if _moves(each, around))
        found.append(
            Kernel(
                instruction.name,
                "transpose" if moved and kind == "other" else kind,
                times * (_read(instruction, here, inside) + instruction.bytes),
                times * flops,
                dtype,
                times * moved,
                bool(moved) and _near_convolution(instruction, here),
            )
        )


_RANK = {"other": 0, "reduction": 1, "product": 2, "convolution": 3}


def _kind(instruction: Instruction) -> str:
    if instruction.opcode == "convolution" or instruction.target.startswith(CONVOLUTIONS):
        return "convolution"
    if instruction.opcode == "dot" or instruction.target.startswith(PRODUCTS):
        return "product"
    return "reduction" if instruction.opcode in ("reduce", "reduce-window", "select-and-scatter") else "other"


def _called(instruction: Instruction) -> Iterator[str]:
    yield from _CALLED.findall(instruction.text)
    for branches in _BRANCHES.findall(instruction.text):
        yield from re.findall(r"%?([\w.\-]+)", branches)


def _read(instruction: Instruction, here: Computation, inside: Computation) -> int:
    """Bytes of the operands; of one that is only sliced, those of the slices."""
    total = 0
    parameters = {}
    if instruction.opcode == "fusion":
        for each in inside.values():
            if each.opcode == "parameter":
                parameters[int(each.text.split(")")[0])] = each.name
    for number, operand in enumerate(instruction.operands):
        if operand not in here:
            continue
        whole = here[operand].bytes
        users = [each for each in inside.values() if parameters.get(number, operand) in each.operands]
        if users and all(each.opcode in SLICES for each in users):
            whole = min(whole, sum(each.bytes for each in users))
        total += whole
    return total


def flops_of(instruction: Instruction, here: Computation) -> int:
    """Floating-point operations of a product or a convolution, two for a multiplication and its addition; else 0."""
    if instruction.opcode == "dot":
        left = here[instruction.operands[0]].arrays[0].shape
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.text)
        return 2 * math.prod(instruction.arrays[0].shape) * math.prod(left[i] for i in _numbers(contracted[1]))
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, here)
    if instruction.target.startswith(PRODUCTS):
        config = json.loads(re.search(r"backend_config=(\{.*\})", instruction.text)[1])
        numbers = config["gemm_backend_config"]["dot_dimension_numbers"]
        left = here[instruction.operands[0]].arrays[0].shape
        depth = math.prod(left[int(i)] for i in numbers["lhs_contracting_dimensions"])
        return 2 * depth * math.prod(instruction.arrays[0].shape)
    if instruction.target.startswith("__cudnn$conv"):
        # Forward, with respect to the input and to the kernel: as many operations, those of the forward pass.
        first, second = (here[name].arrays[0] for name in instruction.operands[:2])
        result, target = instruction.arrays[0], instruction.target
        output = first if "BackwardInput" in target else second if "BackwardFilter" in target else result
        kernel = result if "BackwardFilter" in target else second
        outputs = re.search(r"dim_labels=\w+_(\w+)->", instruction.text)[1].index("o")
        return 2 * math.prod(output.shape) * math.prod(kernel.shape) // kernel.shape[outputs]
    return 0


def _convolution_flops(instruction: Instruction, here: Computation) -> int:
    """Those that a kernel's tap and a value of the input meet in: padding and the holes of a dilation take none."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
    left, kernel = (here[name].arrays[0].shape for name in instruction.operands[:2])
    window = dict(re.findall(r"(\w+)=([\w\-]+)", re.search(r"window=\{([^}]*)\}", instruction.text)[1]))
    dimensions = len(left) - 2

    def said(key: str, default: int) -> list[int]:
        return [int(n) for n in window[key].split("x")] if key in window else [default] * dimensions

    pads = [tuple(map(int, pad.split("_"))) for pad in window.get("pad", "x".join(["0_0"] * dimensions)).split("x")]
    met = 1
    for i in range(dimensions):
        size, stride = said("size", 1)[i], said("stride", 1)[i]
        between, apart = said("lhs_dilate", 1)[i], said("rhs_dilate", 1)[i]
        given, results = (
            left[labels[1].index(str(i))],
            instruction.arrays[0].shape[labels[3].index(str(i))],
        )
        met *= sum(
            place >= 0 and place % between == 0 and place // between < given
            for result in range(results)
            for place in (result * stride + tap * apart - pads[i][0] for tap in range(size))
        )
    batch = instruction.arrays[0].shape[labels[3].index("b")]
    return 2 * met * batch * kernel[labels[2].index("i")] * kernel[labels[2].index("o")]


def _moves(instruction: Instruction, here: Computation) -> bool:
    """Whether it changes the order in which an array's dimensions (those longer than 1) lie in memory."""
    if instruction.opcode not in ("copy", "transpose") or instruction.operands[0] not in here:
        return False
    given, result = here[instruction.operands[0]].arrays[0], instruction.arrays[0]
    order = tuple(range(len(result.shape)))
    if instruction.opcode == "transpose":
        order = _numbers(re.search(r"dimensions=\{([\d,]*)\}", instruction.text)[1])
    before = [d for d in given.layout if given.shape[d] > 1]
    after = [order[d] for d in result.layout if result.shape[d] > 1]
    return before != after


def _near_convolution(instruction: Instruction, here: Computation) -> bool:
    def is_convolution(name: str) -> bool:
        return name in here and _kind(here[name]) == "convolution"

    def sources(name: str) -> Iterator[str]:
        for operand in here[name].operands if name in here else ():
            yield operand
            if operand in here and here[operand].opcode in VIEWS:
                yield from sources(operand)

    def users(name: str) -> Iterator[str]:
        for each in here.values():
            if name in each.operands:
                yield each.name
                if each.opcode in VIEWS and not each.root:
                    yield from users(each.name)

    return any(map(is_convolution, [*sources(instruction.name), *users(instruction.name)]))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def _closing(text: str) -> int:
    """Where the bracket that the opcode opened closes."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return place
    return len(text)
