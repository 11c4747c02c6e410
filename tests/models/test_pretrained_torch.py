"""Files of `torch.save` read without PyTorch: the same tensors, and nothing but tensors."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resnet_tensors import SHAPE, torchvision, values

from hallujax.errors import CheckpointError
from hallujax.models import pretrained
from hallujax.models.pretrained import torch_file

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

FORMATS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}


@pytest.fixture(params=FORMATS)
def save(request, tmp_path):
    def save(thing):
        torch.save(thing, tmp_path / "weights.pth", **FORMATS[request.param])
        return tmp_path / "weights.pth"

    return save


def state():
    """Tensors of every kind that weights and their bookkeeping are of, some sharing a storage, one transposed."""
    torch.manual_seed(0)
    whole = torch.randn(6, 4)
    tensors = {
        "whole": whole,
        "row": whole[2],
        "turned": whole.T,
        "every other": whole[:, ::2],
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "double": torch.randn(2, 3).double(),
        "steps": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    return OrderedDict(tensors)


def assert_same(found, tensors):
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wide = tensor.detach().double().numpy()
        assert found[name].shape == wide.shape
        np.testing.assert_array_equal(found[name].astype(np.float64), wide, err_msg=name)


def test_tensors_are_torchs(save):
    assert_same(torch_file.read(save(state())), state())


@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_the_state_dict_is_found_beside_the_rest_of_a_training(save, inside):
    parallel = {f"module.{name}": tensor for name, tensor in state().items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.randn(5)}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
    rest = {"epoch": 3, "best": 0.76, "arch": "resnet50", "optimizer": optimizer, "done": True, "args": None}
    assert_same(torch_file.read(save({inside: parallel} | rest)), state())


def test_a_module_with_its_metadata(save):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
    assert_same(torch_file.read(save(module.state_dict())), module.state_dict())


def test_a_resnet_is_the_same_network_as_from_safetensors(save):
    tensors = torchvision(values())
    loaded = pretrained.load(save({name: torch.tensor(value) for name, value in tensors.items()}), **SHAPE)
    np.testing.assert_array_equal(loaded["params"]["logits"]["kernel"], tensors["fc.weight"].T)
    np.testing.assert_array_equal(
        loaded["batch_stats"]["block1"]["unit2"]["bn2"]["var"], tensors["layer1.1.bn2.running_var"]
    )


def test_a_big_endian_archive(tmp_path):
    path, swapped = tmp_path / "weights.pth", tmp_path / "swapped.pth"
    torch.save({"a": torch.arange(6.0)}, path)
    with zipfile.ZipFile(path) as there, zipfile.ZipFile(swapped, "w") as here:
        for entry in there.infolist():
            data = there.read(entry)
            if entry.filename.endswith("byteorder"):
                data = b"big"
            elif "/data/" in entry.filename:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            here.writestr(entry.filename, data)
    np.testing.assert_array_equal(torch_file.read(swapped)["a"], np.arange(6.0))


class Bomb:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_file_that_would_run_something_runs_nothing(save, tmp_path):
    canary = tmp_path / "canary"
    refused = r"^[^\n]*weights\.pth: would import [^\n]*only tensors are read$"
    for bomb in (
        Bomb(os.system, f"touch {canary}"),
        Bomb(eval, f"open({str(canary)!r}, 'w')"),
        Bomb(open, str(canary), "w"),
        Bomb(getattr, str, "format"),
    ):
        for thing in ({"conv1.weight": bomb}, {"state_dict": state(), "extra": bomb}, [bomb]):
            with pytest.raises(CheckpointError, match=refused):
                pretrained.read(save(thing))
    assert not canary.exists()
    torch.load(save({"a": Bomb(os.system, f"touch {canary}")}), weights_only=False)
    assert canary.exists(), "the bombs are live"


def test_what_is_no_state_dict_is_named(save):
    for thing, said in (
        (torch.nn.Linear(2, 2), r"would import torch\.nn\.modules\.linear\.Linear"),
        (torch.zeros(3), "holds no state dict"),
        ({"epoch": 3}, "holds no state dict: 'epoch' is no tensor"),
        ({"state_dict": {"a": [torch.zeros(2)]}}, "holds no state dict: 'a' is no tensor"),
        ({(1, 2): torch.zeros(2)}, "keys are neither names nor numbers"),
        ({"a": np.float64(3.0)}, "would import"),
        ({}, "holds no state dict"),
    ):
        with pytest.raises(CheckpointError, match=said):
            torch_file.read(save(thing))


def archive(path, program, storages=(), **writing):
    with zipfile.ZipFile(path, "w", **writing) as file:
        file.writestr("x/data.pkl", program)
        for key, data in storages:
            file.writestr(f"x/data/{key}", data)
    return path


def tensor_program(
    *, count=4, offset=0, shape=(4,), strides=(1,), storage="FloatStorage", function="_rebuild_tensor_v2"
):
    """A state dict of one tensor `a`, written by hand, so that it can lie."""

    class Storage:
        pass

    class Rebuilt:
        def __reduce__(self):
            return list, (here, offset, shape, strides, False, ())

    here = Storage()

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return ("storage", list, "0", "cpu", count) if thing is here else None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"a": Rebuilt()})
    # The first `list` is the function, the second the storage's type; a memo refers to it.
    program = out.getvalue()
    called = b"c__builtin__\nlist\n"
    assert program.count(called) == 1
    at = program.index(called) + len(called)
    memo = program[at : at + 2]
    reference = b"h" + memo[1:]
    head, tail = program[:at].replace(called, f"ctorch._utils\n{function}\n".encode()), program[at:]
    return head + tail.replace(reference, f"ctorch\n{storage}\n".encode(), 1)


def test_a_program_written_by_hand_is_read(tmp_path):
    path = archive(tmp_path / "a.pth", tensor_program(), [("0", np.arange(4, dtype="<f4").tobytes())])
    np.testing.assert_array_equal(torch_file.read(path)["a"], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"shape": (5,)}, "reaches beyond its storage"),
        ({"offset": 1}, "reaches beyond its storage"),
        ({"strides": (2,)}, "reaches beyond its storage"),
        ({"shape": (1 << 30,), "strides": (0,)}, "reaches beyond its storage"),  # gigabytes from one number
        ({"shape": (1 << 60,)}, "impossible shape"),
        ({"shape": (-4,)}, "impossible shape"),
        ({"offset": -1}, "impossible shape"),
        ({"strides": ()}, "impossible shape"),
        ({"shape": ("4",)}, "impossible shape"),
        ({"count": 1 << 20}, "storages would be larger than the file"),
        ({"count": 5}, "not in the archive, or of another size"),
        ({"count": -1}, "none of PyTorch's of numbers"),
        ({"storage": "UntypedStorage"}, r"would import torch\.UntypedStorage"),
        ({"function": "_rebuild_qtensor"}, r"would import torch\._utils\._rebuild_qtensor"),
    ],
)
def test_tensors_that_lie_are_refused(lie, said, tmp_path):
    path = archive(tmp_path / "lie.pth", tensor_program(**lie), [("0", bytes(16))])
    with pytest.raises(CheckpointError, match=f"lie.pth: .*{said}"):
        torch_file.read(path)


def test_archives_that_are_none_of_torchs_are_refused(tmp_path):
    path, program = tmp_path / "odd.pth", tensor_program()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"not of torch\.save: it has no data\.pkl"):
        torch_file.read(path)
    with pytest.raises(CheckpointError, match="compressed members"):
        torch_file.read(archive(path, program, [("0", bytes(16))], compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="storage '0' is not in the archive"):
        torch_file.read(archive(path, program))
    with pytest.raises(CheckpointError, match="would run pickle's"):
        torch_file.read(archive(path, pickle.dumps({"a": {1, 2}}, 4)))
    whole = archive(path, program, [("0", bytes(16))]).read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(CheckpointError, match=r"odd\.pth: damaged, or no PyTorch file"):
        torch_file.read(path)
    path.write_bytes(whole.replace(bytes(16), bytes(15) + b"\1"))
    with pytest.raises(CheckpointError, match="damaged"):  # the archive's checksum
        torch_file.read(path)


def test_a_legacy_file_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save({"a": torch.arange(8.0)}, path, **FORMATS["legacy"])
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 33, 200, 20):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"^[^\n]*cut\.pth: [^\n]*$"):
            torch_file.read(path)
    path.write_bytes(whole[:-40] + struct.pack("<q", 1 << 50) + whole[-32:])
    with pytest.raises(CheckpointError, match="cut short, or of another size"):
        torch_file.read(path)


def test_bombs_of_memory_are_refused(tmp_path):
    nest = b"\x80\x02" + b"]q\x00" + b"".join(b"(h\x00h\x00lq\x00" for _ in range(3))  # LIST is not an opcode we know
    for program in (
        nest,
        b"\x80\x02}q\x00(K\x01h\x00u.",  # a dict that holds itself
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # a byte array of a terabyte
        b"\x80\x02r\xff\xff\xff\xff.",  # a memo of four billion places, of nothing
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b".",
        b"\x80\x02" + b")" * 100_000 + b"\x85" * 100_000 + b".",  # a tuple a hundred thousand deep
    ):
        with pytest.raises(CheckpointError):
            torch_file.read(archive(tmp_path / "bomb.pth", program))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path, found = tmp_path_factory.mktemp("fuzz") / "a.pth", []
    for kwargs in FORMATS.values():
        torch.save({"state_dict": state(), "epoch": 3}, path, **kwargs)
        found.append(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(found[0])) as file:
        program = file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))
    return found, program


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(data, samples, tmp_path):
    """Changed bytes and cuts of whole files, and of the program alone (which an archive's checksum would hide)."""
    files, program = samples
    chosen = data.draw(st.integers(0, len(files)))
    whole = bytearray(program if chosen == len(files) else files[chosen])
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    path = tmp_path / "fuzz.pth"
    if chosen == len(files):
        archive(path, whole, [(str(i), bytes(96)) for i in range(8)])
    else:
        path.write_bytes(whole)
    try:
        found = torch_file.read(path)
    except CheckpointError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert all(isinstance(value, np.ndarray) for value in found.values())
