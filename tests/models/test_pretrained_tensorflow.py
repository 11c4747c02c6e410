"""TensorFlow checkpoints read without TensorFlow; slim's ResNet against a statement of its layout in PyTorch."""

import dataclasses
import struct

import jax
import numpy as np
import pytest
import tensorflow_checkpoints as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resnet_tensors import SHAPE, slim, torchvision, values, with_temporal
from safetensors.numpy import save_file
from tensorboardX.crc32c import crc32c

from hallujax.cli import main
from hallujax.errors import CheckpointError
from hallujax.models import VideoResNet, pretrained
from hallujax.models.pretrained import table, tensorflow_file

RNG = np.random.default_rng(0)
TENSORS = {
    "net/weights": RNG.normal(size=(3, 3, 8, 16)).astype(np.float32),
    "net/weights/Momentum": RNG.normal(size=(3, 3, 8, 16)).astype(np.float32),
    "net/biases": RNG.normal(size=7).astype(np.float32),
    "global_step": np.array(123_456_789_012),
    "counts": np.array([-3, 0, 5]),
    "large": RNG.normal(size=(260, 300)).astype(np.float32),  # more than one block
}


def assert_same(found, tensors=TENSORS):
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_checksums_are_castagnolis():
    """The check value of the catalogue of CRCs, RFC 3720's vectors (B.4), and any length against another's code."""
    assert table.crc32c(b"123456789") == 0xE3069283
    assert table.crc32c(bytes(32)) == 0x8A9136AA
    assert table.crc32c(b"\xff" * 32) == 0x62A8AB43
    for length in (0, 1, 4095, 4096, 4097, 20_000):
        data = RNG.bytes(length)
        assert table.crc32c(data) == crc32c(data)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_single_file_holds_what_was_written(parts, tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(tf.v1(TENSORS, parts))
    assert_same(tensorflow_file.read_v1(path))


@pytest.mark.parametrize("shards", [1, 2])
def test_an_index_with_its_data_holds_what_was_written(shards, tmp_path):
    tf.v2(TENSORS, tmp_path / "model.ckpt-7", shards)
    for given_name in ("model.ckpt-7", "model.ckpt-7.index", f"model.ckpt-7.data-00000-of-{shards:05}"):
        prefix = tensorflow_file.bundle_prefix(tmp_path / given_name)
        assert prefix == tmp_path / "model.ckpt-7"
    assert_same(tensorflow_file.read_bundle(prefix))


def test_slims_resnet_lands_where_torchvisions_does(tmp_path):
    """Either version, and through import: the same values, slim's layout and normalization, the rest named."""
    path = tmp_path / "resnet_v1_50.ckpt"
    path.write_bytes(tf.v1(slim(values())))
    weights = pretrained.read(path)
    assert (weights.source, weights.layout, weights.normalization) == ("slim", "slim", "vgg")
    assert weights.left_over == ("global_step", "resnet_v1_50/mean_rgb")
    save_file(torchvision(values()), tmp_path / "same.safetensors")
    expected = pretrained.load(tmp_path / "same.safetensors", **SHAPE)
    jax.tree.map(np.testing.assert_array_equal, weights.variables, expected)

    trained = slim(values()) | {"resnet_v1_50/conv1/weights/Adam_1": np.zeros(3, np.float32)}
    tf.v2(trained | {"beta1_power": np.array([0.9], np.float32)}, tmp_path / "model.ckpt-9")
    assert main(["import-weights", str(tmp_path / "model.ckpt-9"), "--out", str(tmp_path / "imported")]) == 0
    again = pretrained.read(tmp_path / "imported")
    assert dataclasses.replace(again, variables={}, left_over=()) == dataclasses.replace(
        weights, variables={}, left_over=()
    )
    assert {"beta1_power", "resnet_v1_50/conv1/weights/Adam_1"} < set(again.left_over)
    jax.tree.map(np.testing.assert_array_equal, again.variables, expected)


def test_checkpoints_that_are_no_resnet_v1_are_named(tmp_path):
    path = tmp_path / "resnet.ckpt"
    path.write_bytes(tf.v1(slim(values(), "resnet_v2_50")))
    with pytest.raises(CheckpointError, match=r"slim's ResNet v2.* take resnet_v1_50"):
        pretrained.read(path)
    path.write_bytes(tf.v1(slim(values((3, 4, 23, 3), 1), "resnet_v1_101")))
    with pytest.raises(CheckpointError, match=r"\(ResNet-101\), not \(3, 4, 6, 3\) \(ResNet-50\)"):
        pretrained.load(path)
    tensors = slim(values())
    biased = tensors | {"resnet_v1_50/conv1/biases": np.zeros(4, np.float32)}
    path.write_bytes(tf.v1(biased))
    with pytest.raises(CheckpointError, match="1 tensors fit no layer: resnet_v1_50/conv1/biases"):
        pretrained.read(path)
    del tensors["resnet_v1_50/block1/unit_2/bottleneck_v1/conv2/BatchNorm/moving_mean"]
    path.write_bytes(tf.v1(tensors))
    with pytest.raises(CheckpointError, match="1 tensors missing: batch_stats/block1/unit2/bn2/mean"):
        pretrained.read(path)
    path.write_bytes(tf.v1(slim(values()) | {"resnet_v1_50/mean_rgb": np.array([127.5] * 3, np.float32)}))
    with pytest.raises(CheckpointError, match=r"mean_rgb is \[127.5, 127.5, 127.5\], where slim's is"):
        pretrained.read(path)


def test_cut_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.ckpt"
    whole = tf.v1(TENSORS)
    for length in (len(whole) - 1, len(whole) // 2, 47):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.ckpt: .*cut short"):
            pretrained.read(path)
    for at in (100, len(whole) // 2):  # within numbers: only a checksum can tell
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"model\.ckpt: damaged: the checksum of the block at byte"):
            pretrained.read(path)


def test_damaged_data_files_are_refused(tmp_path):
    prefix = tmp_path / "model.ckpt"
    tf.v2(TENSORS, prefix)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"model\.ckpt\.index: large lies outside its data file"):
        tensorflow_file.read_bundle(prefix)
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(CheckpointError, match="net/weights is damaged: the checksum of its numbers differs"):
        tensorflow_file.read_bundle(prefix)
    data.unlink()
    with pytest.raises(CheckpointError, match=r"data-00000-of-00001: no such file; a checkpoint is its \.index and"):
        tensorflow_file.read_bundle(prefix)


def entry(kind=tf.FLOAT, shape=(2,), size=8, **fields):
    said = tf.number(1, kind) + tf.message(2, b"".join(tf.message(2, tf.number(1, n)) for n in shape))
    said += tf.number(5, size)
    return said + b"".join(tf.number(int(field[1:]), value) for field, value in fields.items())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (entry(), "read"),
        (entry(kind=8), "of TensorFlow's type 8, which is none of numbers"),
        (entry(shape=(1 << 50,)), "an impossible shape"),
        (entry(shape=(-2, -1)), "an impossible shape"),
        (entry(shape=(1 << 30, 1 << 30)), "8 bytes, which is not what its shape"),
        (entry(f3=1), "lies in data file 1 of 1"),
        (entry(f4=1 << 60), "outside its data file"),
        (entry(f4=-8), "outside its data file"),
        (entry() + tf.message(7, b""), "is partitioned"),
        (entry()[:-1], "a number that does not end"),
        (entry() + b"\x3b", "wire type 3"),
        (tf.message(1, b"float"), "a message where a number is expected"),
        (tf.number(2, 5) + tf.number(1, 1), "a number where a message is expected"),
        (b"\x0a\xff\x01", "longer than its message"),
    ],
)
def test_entries_that_lie_are_refused(row, said, tmp_path):
    prefix = tmp_path / "lie.ckpt"
    (tmp_path / "lie.ckpt.index").write_bytes(tf.table({b"": tf.number(1, 1), b"a": row}))
    (tmp_path / "lie.ckpt.data-00000-of-00001").write_bytes(np.array([1, 2], np.float32).tobytes())
    if said == "read":
        np.testing.assert_array_equal(tensorflow_file.read_bundle(prefix)["a"], [1, 2])
        return
    with pytest.raises(CheckpointError, match=rf"^[^\n]*lie\.ckpt\.index: [^\n]*{said}"):
        tensorflow_file.read_bundle(prefix)


def v1_with(meta, saved):
    return tf.table({b"": tf.message(1, meta), b"\0a": tf.message(2, saved)})


def test_slices_that_lie_are_refused(tmp_path):
    path = tmp_path / "lie.ckpt"
    shape = tf.message(2, tf.message(2, tf.number(1, 4)))
    meta = tf.message(1, tf.message(1, b"a") + shape + tf.number(3, tf.FLOAT))
    numbers = tf.message(3, tf.message(5, bytes(16)))
    half = tf.message(2, tf.message(1, tf.number(2, 2)))
    beyond = tf.message(2, tf.message(1, tf.number(1, 2) + tf.number(2, 4)))
    huge = tf.message(1, tf.message(1, b"a") + tf.message(2, tf.message(2, tf.number(1, 1 << 34))) + tf.number(3, 1))
    for data, said in (
        (v1_with(meta, tf.message(1, b"b") + numbers), "b is not in its table of contents"),
        (v1_with(meta, tf.message(1, b"a") + beyond + numbers), "a has a slice outside its shape"),
        (v1_with(meta, tf.message(1, b"a") + half + numbers), "a has 4 numbers where its slice has 2"),
        (v1_with(meta, tf.message(1, b"a") + half + tf.message(3, tf.message(5, bytes(8)))), "2 of its numbers are"),
        (v1_with(meta, tf.message(1, b"a") + tf.message(3, tf.message(5, bytes(15)))), "ends within a number"),
        (v1_with(huge, tf.message(1, b"a") + numbers), "would be larger than the file"),
        (tf.table({}), "an empty table"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"lie\.ckpt: .*{said}"):
            tensorflow_file.read_v1(path)


def test_a_compressed_table_is_refused_by_name(tmp_path):
    """TensorFlow writes none; LevelDB does, with Snappy."""
    block = tf.Block(16)
    block.add(b"", b"")
    data = block.finish() + b"\1"
    index = tf.Block(1)
    index.add(b"\0", tf.varint(0) + tf.varint(len(data) - 1))
    out = data + struct.pack("<I", tf.masked(data))
    rest = index.finish() + b"\0"
    footer = tf.varint(0) + tf.varint(0) + tf.varint(len(out)) + tf.varint(len(rest) - 1)
    out += rest + struct.pack("<I", tf.masked(rest)) + footer.ljust(40, b"\0") + table.MAGIC
    (tmp_path / "snappy.ckpt").write_bytes(out)
    with pytest.raises(CheckpointError, match=r"snappy\.ckpt: a block is compressed \(kind 1\)"):
        pretrained.read(tmp_path / "snappy.ckpt")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    small = {name: value for name, value in TENSORS.items() if name != "large"}
    tf.v2(small, folder / "a")
    meta = [value for key, value in table.entries(tf.v1(small)) if key == b""]
    entries = [value for _, value in table.entries((folder / "a.index").read_bytes())]
    return tf.v1(small), (folder / "a.index").read_bytes(), [bytes(value) for value in meta + entries]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_checkpoints_are_read_or_refused(data, samples, tmp_path):
    """Whole files, whose checksums notice nearly all, and messages alone, under checksums that are right."""
    v1, index, messages = samples

    def mutated(whole):
        whole = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        return bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])

    path, prefix = tmp_path / "fuzz.ckpt", tmp_path / "fuzz"
    (tmp_path / "fuzz.data-00000-of-00001").write_bytes(bytes(20_000))
    kind = data.draw(st.sampled_from(["v1", "v1 message", "v2", "v2 message"]))
    message = data.draw(st.sampled_from(messages))
    if kind == "v1":
        path.write_bytes(mutated(v1))
    elif kind == "v1 message":
        path.write_bytes(tf.table({b"": mutated(messages[0]), b"\0a": mutated(message)}))
    elif kind == "v2":
        prefix.with_name("fuzz.index").write_bytes(mutated(index))
    else:
        prefix.with_name("fuzz.index").write_bytes(tf.table({b"": mutated(messages[1]), b"a": mutated(message)}))
    try:
        found = tensorflow_file.read_v1(path) if "v1" in kind else tensorflow_file.read_bundle(prefix)
    except CheckpointError as error:
        assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
    else:
        assert all(isinstance(value, np.ndarray) for value in found.values())


def slim_resnet(torch, tensors, frames, stage_sizes):
    """slim.nets.resnet_v1 from its own variables, said once more: `conv2d_same` pads a strided convolution by hand, the
    stride of a block is in its last unit, whose shortcut is subsampled, and pooling is SAME. Returns the outputs of the
    blocks and the logits, for frames [N, 3, H, W]."""
    F = torch.nn.functional
    scope = "resnet_v1_50"

    def normalized(x, where):
        gamma, beta, mean, variance = (
            torch.tensor(tensors[f"{where}/BatchNorm/{name}"])[:, None, None]
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * gamma + beta

    def conv(x, where, size, stride=1):
        kernel = torch.tensor(tensors[f"{where}/weights"]).permute(3, 2, 0, 1)
        total = size - 1
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        return normalized(F.conv2d(x, kernel, stride=stride), where)

    x = F.relu(conv(frames, f"{scope}/conv1", 7, 2))
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)  # SAME, of even sizes
    blocks = []
    for block, units in enumerate(stage_sizes, start=1):
        for unit in range(1, units + 1):
            where = f"{scope}/block{block}/unit_{unit}/bottleneck_v1"
            stride = 2 if unit == units and block < 4 else 1
            shortcut = conv(x, f"{where}/shortcut", 1) if f"{where}/shortcut/weights" in tensors else x
            shortcut = F.max_pool2d(shortcut, 1, stride)
            y = F.relu(conv(x, f"{where}/conv1", 1))
            y = F.relu(conv(y, f"{where}/conv2", 3, stride))
            x = F.relu(conv(y, f"{where}/conv3", 1) + shortcut)
        blocks.append(x)
    pooled = x.mean((2, 3), keepdim=True)
    kernel = torch.tensor(tensors[f"{scope}/logits/weights"]).permute(3, 2, 0, 1)
    logits = F.conv2d(pooled, kernel, torch.tensor(tensors[f"{scope}/logits/biases"]))
    return blocks, logits[:, :, 0, 0]


@pytest.mark.parity
def test_activations_are_slims(tmp_path):
    """ResNet-50's depth in narrow layers: all four blocks and the logits of a checkpoint's network."""
    torch = pytest.importorskip("torch")
    stage_sizes, width = (3, 4, 6, 3), 8
    tensors = slim(values(stage_sizes, width, classes=11))
    (tmp_path / "resnet_v1_50.ckpt").write_bytes(tf.v1(tensors))
    loaded = pretrained.load(tmp_path / "resnet_v1_50.ckpt", width=width)
    model = VideoResNet(11, stage_sizes, width, layout="slim")
    clips = np.random.default_rng(1).normal(size=(1, 2, 64, 96, 3)).astype(np.float32)
    output = jax.jit(model.apply)(with_temporal(model, loaded, clips), clips)
    with torch.no_grad():
        blocks, logits = slim_resnet(torch, tensors, torch.tensor(clips[0].transpose(0, 3, 1, 2)), stage_sizes)
    expected = {f"block{i}": block.numpy().transpose(0, 2, 3, 1) for i, block in enumerate(blocks, start=1)}
    found = {name: np.asarray(output.maps[name][0]) for name in expected}
    expected["logits"], found["logits"] = logits.numpy(), np.asarray(output.logits[0])
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert np.abs(found[name] - value).max() <= 1e-4 * np.abs(value).max(), name
