"""Tensors of a file that `torch.save` wrote, the zip format and the one before it, without PyTorch and without pickle.

Such a file describes its objects as a program for pickle's stack machine, which may call any function there is. The
machine here knows only what a state dict needs: containers, strings, numbers, `OrderedDict()`, and PyTorch's functions
that lay a tensor over a storage. Everything else is refused by name, and nothing is imported or called on the file's
behalf. Tensors are described first and filled in afterwards, from storages whose place in the file is checked.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from hallujax.errors import CheckpointError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LARGEST_PICKLE = 1 << 26  # bytes; a ResNet-152's is 100 KB
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype(bool),
}
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in _STORAGES),
}
_INSIDE = ("state_dict", "model")  # where training scripts keep the state dict
_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, struct.error)


class _Refused(Exception):
    """The file wants more than tensors."""


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_one(path: Path) -> bool:
    """Whether a file looks like one of `torch.save`'s, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4)
    return head == b"PK\x03\x04" or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the state dict in a file: what it holds, or what it holds under `state_dict` or `model`.

    A prefix `module.` that all names share (DataParallel's) is taken off.

    Raises:
      CheckpointError: if the file is damaged, holds anything but tensors, containers, strings and numbers, or no state
        dict.
    """
    try:
        with path.open("rb") as file:
            read_format = _read_zip if file.read(2) == b"PK" else _read_legacy
            file.seek(0)
            return read_format(file)
    except _Refused as error:
        raise CheckpointError(f"{path}: {error}") from error
    # zipfile raises the two errors without a kind of their own for encrypted members and for compression it lacks.
    except (*_MALFORMED, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged, or no PyTorch file ({type(error).__name__}: {reason})") from error


def _read_zip(file: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Refused("a zip archive, but not of torch.save: it has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise _Refused("a zip archive with compressed members, which torch.save does not write")
        if entries[pickles[0]].file_size > _LARGEST_PICKLE:
            raise _Refused(f"its data.pkl has {entries[pickles[0]].file_size} bytes: no state dict")
        order = archive.read(root + "byteorder") if root + "byteorder" in entries else b"little"
        state = _state_dict(_run(io.BytesIO(archive.read(pickles[0])), _zip_storage))

        def numbers(storage: _Storage) -> np.ndarray:
            entry = entries.get(f"{root}data/{storage.key}")
            if entry is None or entry.file_size != storage.count * storage.dtype.itemsize:
                raise _Refused(f"storage {storage.key[:80]!r} is not in the archive, or of another size")
            return np.frombuffer(archive.read(entry), _ordered(storage.dtype, order == b"little"))

        return _filled(state, numbers, _size(file))


def _read_legacy(file: BinaryIO) -> dict[str, np.ndarray]:
    """Five pickles, then for each storage the count and the numbers, in the order of the last pickle's keys."""
    if _run(file, _no_storage) != _LEGACY_MAGIC:
        raise _Refused("a pickle, but not of torch.save; save the model's state_dict() with it, or as .safetensors")
    _run(file, _no_storage)  # the version
    system = _run(file, _no_storage)
    little = not isinstance(system, dict) or system.get("little_endian", True)
    stored: dict[str, _Storage] = {}  # what is beside the state dict too: its numbers have to be skipped

    def storage_of(pid: Any) -> _Storage:
        storage = _legacy_storage(pid)
        return stored.setdefault(storage.key, storage)

    state = _state_dict(_run(file, storage_of))
    keys = _run(file, _no_storage)
    size, places = _size(file), {}
    for key in _list(keys):
        (count,) = struct.unpack("<q" if little else ">q", file.read(8))
        storage = stored[_name(key)]
        places[key] = file.tell()
        if count != storage.count or places[key] + count * storage.dtype.itemsize > size:
            raise _Refused(f"storage {str(key)[:80]!r} is cut short, or of another size than its tensors say")
        file.seek(count * storage.dtype.itemsize, io.SEEK_CUR)

    def numbers(storage: _Storage) -> np.ndarray:
        if storage.key not in places:
            raise _Refused(f"storage {storage.key[:80]!r} is not in the file")
        file.seek(places[storage.key])
        return np.frombuffer(file.read(storage.count * storage.dtype.itemsize), _ordered(storage.dtype, little))

    return _filled(state, numbers, size)


def _state_dict(root: Any) -> dict[str, _Tensor]:
    for name in _INSIDE:
        if isinstance(root, dict) and isinstance(root.get(name), dict):
            root = root[name]
            break
    if not isinstance(root, dict) or not root:
        raise _Refused("holds no state dict; save the model's state_dict()")
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise _Refused(
                f"holds no state dict: {str(name)[:80]!r} is no tensor, and there is none under 'state_dict'"
            )
    if all(name.startswith("module.") for name in root):
        root = {name.removeprefix("module."): value for name, value in root.items()}
    return root


def _filled(
    state: Mapping[str, _Tensor], numbers: Callable[[_Storage], np.ndarray], file_size: int
) -> dict[str, np.ndarray]:
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    for name, tensor in state.items():
        if storages[tensor.storage.key] != tensor.storage:
            raise _Refused(f"{name[:80]} takes its storage for another type than other tensors do")
    if sum(storage.count * storage.dtype.itemsize for storage in storages.values()) > file_size:
        raise _Refused("its storages would be larger than the file")
    known = {key: numbers(storage) for key, storage in storages.items()}
    return {name: _laid_over(name, tensor, known[tensor.storage.key]) for name, tensor in state.items()}


def _laid_over(name: str, tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    count = math.prod(tensor.shape)
    if count > len(numbers) or (count and last >= len(numbers)):
        raise _Refused(f"{name[:80]} reaches beyond its storage")
    if count == 0:
        return np.zeros(tensor.shape, numbers.dtype)
    step = numbers.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, [s * step for s in tensor.strides], writeable=False
    )
    return view.astype(tensor.storage.dtype)


def _ordered(dtype: np.dtype, little: bool) -> np.dtype:
    return dtype if little else dtype.newbyteorder(">")


def _size(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size


# What a program's persistent ids, call and memo may do.


def _zip_storage(pid: Any) -> _Storage:
    kind, storage_type, key, _, count = pid
    return _storage(kind, storage_type, key, count)


def _legacy_storage(pid: Any) -> _Storage:
    kind, storage_type, key, _, count, view = pid
    if view is not None:
        raise _Refused("a file of PyTorch before 0.4, with views of storages; save it again with a later one")
    return _storage(kind, storage_type, key, count)


def _no_storage(pid: Any) -> _Storage:
    raise _Refused(f"refers to {str(pid)[:80]} outside its objects")


def _storage(kind: Any, storage_type: Any, key: Any, count: Any) -> _Storage:
    name = storage_type.name.removeprefix("torch ") if isinstance(storage_type, _Global) else ""
    if kind != "storage" or name not in _STORAGES or not isinstance(key, str) or not _natural(count):
        raise _Refused("holds a storage that is none of PyTorch's of numbers")
    return _Storage(key, _STORAGES[name], count)


def _natural(number: Any) -> bool:
    return type(number) is int and 0 <= number < 1 << 40


def _call(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, _Global) else "what is no function"
    if name == "collections OrderedDict":
        pairs = arguments[0] if arguments else []  # Python 2 gave the items
        return {_name(key): value for key, value in pairs}
    if name == "torch._utils _rebuild_parameter":
        return arguments[0]
    if name in ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"):
        storage, offset, shape, strides, *_ = arguments
        if (
            not isinstance(storage, _Storage)
            or not isinstance(shape, tuple)
            or not isinstance(strides, tuple)
            or not all(map(_natural, (offset, *shape, *strides)))
            or len(shape) != len(strides)
            or len(shape) > 8
        ):
            raise _Refused("holds a tensor of impossible shape")
        return _Tensor(storage, offset, shape, strides)
    raise _Refused(f"would call {name}; only tensors are read")


def _run(file: BinaryIO, storage: Callable[[Any], _Storage]) -> Any:
    """Runs one pickle to its STOP, on a machine without imports, objects and calls but `_call`'s."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    start = file.tell()
    for opcode, argument, place in pickletools.genops(file):
        if place - start > _LARGEST_PICKLE:
            raise _Refused("a description of its objects that is too long for a state dict's")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                items = tuple(stack[-count:])
                if len(items) != count:
                    raise IndexError("stack underflow")
                stack[-count:] = [items]
            case "APPEND":
                item = stack.pop()
                _list(stack[-1]).append(item)
            case "APPENDS":
                items = since_mark()
                _list(stack[-1]).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _dict(stack[-1])[_name(key)] = value
            case "SETITEMS":
                items = since_mark()
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _dict(stack[-1])[_name(key)] = value
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(f"{_name(module)} {_name(name)}"))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":  # attributes of a dict: PyTorch's versions of its modules
                stack.pop()
                _dict(stack[-1])
            case other:
                raise _Refused(f"would run pickle's {other}; only tensors are read")
    raise EOFError("no STOP")


def _global(name: str) -> _Global:
    if name not in _GLOBALS:
        raise _Refused(f"would import {name[:80].replace(' ', '.')}; only tensors are read")
    return _Global(name)


def _name(key: Any) -> Any:
    """A key of a dict; not a tuple, whose hash a nest of tuples makes endless."""
    if not isinstance(key, str | int):
        raise _Refused("holds a dict whose keys are neither names nor numbers")
    return key


def _dict(value: Any) -> dict:
    if not isinstance(value, dict):
        raise TypeError("not a dict")
    return value


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value
