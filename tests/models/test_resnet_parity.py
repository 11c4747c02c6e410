"""VideoResNet against a ResNet written from scratch in PyTorch, with the same random weights.

The torch module has torchvision's names, so a file of its `state_dict` also tests `pretrained.load`.
"""

import flax.traverse_util as tree
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from resnet_tensors import with_temporal
from safetensors.numpy import save_file

from hallujax.models import VideoResNet, pretrained
from hallujax.models.layers import TemporalConv

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.parity


def torch_conv(cin, cout, size, stride=1):
    return torch.nn.Conv2d(cin, cout, size, stride, padding=size // 2, bias=False)


class TorchUnit(torch.nn.Module):
    def __init__(self, cin, width, stride, first):
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = torch_conv(cin, width, 1), torch.nn.BatchNorm2d(width)
        self.conv2, self.bn2 = torch_conv(width, width, 3, stride), torch.nn.BatchNorm2d(width)
        self.conv3, self.bn3 = torch_conv(width, 4 * width, 1), torch.nn.BatchNorm2d(4 * width)
        if first:
            convolution = torch_conv(cin, 4 * width, 1, stride)
            self.downsample = torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(4 * width))
        else:
            self.downsample = torch.nn.MaxPool2d(1, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class TorchResNet(torch.nn.Module):
    def __init__(self, num_classes, layout, stage_sizes=(3, 4, 6, 3), width=64):
        super().__init__()
        self.layout = layout
        self.conv1, self.bn1 = torch_conv(3, width, 7, 2), torch.nn.BatchNorm2d(width)
        cin = width
        self.stages = len(stage_sizes)
        for stage, units in enumerate(stage_sizes):
            if layout == "torchvision":
                strides = [1 if stage == 0 else 2] + [1] * (units - 1)
            else:
                strides = [1] * (units - 1) + [1 if stage == 3 else 2]
            layer = []
            for i, stride in enumerate(strides):
                layer.append(TorchUnit(cin, width * 2**stage, stride, i == 0))
                cin = 4 * width * 2**stage
            setattr(self, f"layer{stage + 1}", torch.nn.Sequential(*layer))
        self.fc = torch.nn.Linear(cin, num_classes)

    def forward(self, x):
        """Outputs of the four blocks and the logits, for frames [N, 3, H, W]."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.layout == "torchvision":
            x = F.max_pool2d(x, 3, 2, padding=1)
        else:  # SAME at an even size: the odd row and column of padding are at the end
            x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-float("inf")), 3, 2)
        blocks = []
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
            blocks.append(x)
        return blocks, self.fc(x.mean((2, 3)))


def random_resnet(layout, **shape):
    torch.manual_seed(0)
    net = TorchResNet(11, layout, **shape)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


def assert_close(ours, theirs, rel):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    ours = ours.reshape(theirs.shape)
    assert np.abs(ours - theirs).max() <= rel * np.abs(theirs).max()


@pytest.fixture(scope="module", params=["torchvision", "slim"])
def pair(request, tmp_path_factory):
    net = random_resnet(request.param)
    path = tmp_path_factory.mktemp(request.param) / "resnet50.safetensors"
    save_file({k: v.numpy() for k, v in net.state_dict().items()}, path)
    model = VideoResNet(11, layout=request.param)
    clips = np.random.default_rng(0).normal(size=(2, 2, 64, 96, 3)).astype(np.float32)
    variables = with_temporal(model, pretrained.load(path), clips)
    frames = torch.tensor(clips.reshape(-1, 64, 96, 3).transpose(0, 3, 1, 2))
    return net, model, variables, clips, frames


@pytest.mark.parametrize("train", [False, True])
def test_activations_and_logits_are_torchs(pair, train):
    net, model, variables, clips, frames = pair
    net.train(train)
    with torch.no_grad():
        blocks, logits = net(frames)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"]))
    output, _ = apply(variables, clips)
    # Batch statistics over few positions amplify rounding: torch in float32 is itself 1e-4 from float64 here.
    rel = 3e-4 if train else 1e-4
    for i, block in enumerate(blocks, start=1):
        assert_close(output.maps[f"block{i}"], block, rel)
    assert_close(output.logits, logits, rel)
    assert_close(output.features, blocks[-1].mean((2, 3)), rel)


def test_gradients_are_torchs():
    """Of every parameter, on a small network in training mode."""
    shape = {"stage_sizes": (2, 1), "width": 8}
    net = random_resnet("torchvision", **shape).train()
    model = VideoResNet(11, layout="torchvision", **shape)
    clips = np.random.default_rng(1).normal(size=(2, 3, 48, 64, 3)).astype(np.float32)
    variables = jax.tree.map(jnp.asarray, _converted(net, model, clips))
    net(torch.tensor(clips.reshape(-1, 48, 64, 3).transpose(0, 3, 1, 2)))[1].logsumexp(1).sum().backward()

    def loss(params):
        output, _ = model.apply(variables | {"params": params}, clips, train=True, mutable=["batch_stats"])
        return jax.nn.logsumexp(output.logits, axis=-1).sum()

    ours = tree.flatten_dict(jax.jit(jax.grad(loss))(variables["params"]))
    theirs = {pretrained.our_key(k)[1:]: v.grad.numpy() for k, v in net.named_parameters()}
    for key, gradient in theirs.items():
        expected = pretrained.our_axes(gradient)
        difference = np.abs(np.asarray(ours[key]) - expected).max()
        assert difference <= 1e-3 * np.abs(expected).max(), key


def _converted(net, model, clips):
    flat = {
        pretrained.our_key(k): pretrained.our_axes(v.numpy())
        for k, v in net.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    return with_temporal(model, tree.unflatten_dict(flat), clips)


def test_parameter_count_is_torchs_plus_the_temporal_layers():
    net = TorchResNet(60, "torchvision")
    expected = sum(p.numel() for p in net.parameters())
    expected += sum(5 * c * c + c for c in (64, 128, 256, 512))
    clip = jax.ShapeDtypeStruct((1, 5, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(VideoResNet(60).init, jax.random.key(0), clip)["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == expected


def test_temporal_convolution_is_conv3d():
    rng = np.random.default_rng(2)
    clips = rng.normal(size=(2, 4, 5, 6, 3)).astype(np.float32)
    kernel, bias = rng.normal(size=(5, 3, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    expected = F.conv3d(
        torch.tensor(clips.transpose(0, 4, 1, 2, 3)),
        torch.tensor(kernel.transpose(2, 1, 0)[..., None, None].copy()),
        torch.tensor(bias),
        padding=(2, 0, 0),
    ).relu()
    layer = TemporalConv(frames=4, kernel_size=5)
    ours = layer.apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(clips.reshape(8, 5, 6, 3)))
    np.testing.assert_allclose(
        np.asarray(ours).reshape(clips.shape), expected.numpy().transpose(0, 2, 3, 4, 1), atol=1e-5
    )
