"""The peers of the benchmarks: the same ResNet 2D+1D in plain flax and in PyTorch.

Each is written as its users would write it. Both keep hallujax's parameter names, so that all start from one
set of weights.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict


class FlaxUnit(nn.Module):
    width: int
    stride: int
    project: bool
    taps: int
    frames: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        def conv(features, size, stride, name):
            pad = size // 2
            return nn.Conv(
                features, (size, size), stride, ((pad, pad), (pad, pad)), use_bias=False, dtype=self.dtype, name=name
            )

        def norm(name):
            return nn.BatchNorm(not self.train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=name)

        shortcut = x
        if self.project:
            shortcut = norm("shortcut_bn")(conv(4 * self.width, 1, self.stride, "shortcut_conv")(x))
        y = nn.relu(norm("bn1")(conv(self.width, 1, 1, "conv1")(x)))
        y = nn.relu(norm("bn2")(conv(self.width, 3, self.stride, "conv2")(y)))
        if self.taps:
            n, h, w, c = y.shape
            y = y.reshape(n // self.frames, self.frames, h * w, c)
            y = nn.relu(nn.Conv(c, (self.taps, 1), dtype=self.dtype, name="temporal")(y)).reshape(n, h, w, c)
        return nn.relu(shortcut + norm("bn3")(conv(4 * self.width, 1, 1, "conv3")(y)))


class FlaxBlock(nn.Module):
    units: int
    width: int
    stride: int
    taps: int
    frames: int
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        for i in range(1, self.units + 1):
            x = FlaxUnit(
                self.width,
                self.stride if i == 1 else 1,
                i == 1,
                self.taps if i == min(2, self.units) else 0,
                self.frames,
                self.train,
                self.dtype,
                name=f"unit{i}",
            )(x)
        return x


class FlaxResNet(nn.Module):
    """Clip logits [B, K] of frames [B, T, H, W, 3]; torchvision's strides."""

    num_classes: int
    stage_sizes: Sequence[int]
    width: int
    taps: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, frames, train=True):
        b, t = frames.shape[:2]
        x = frames.reshape(-1, *frames.shape[2:]).astype(self.dtype)
        x = nn.Conv(self.width, (7, 7), 2, ((3, 3), (3, 3)), use_bias=False, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name="bn1")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i, units in enumerate(self.stage_sizes):
            width, stride = self.width * 2**i, 1 if i == 0 else 2
            x = FlaxBlock(units, width, stride, self.taps, t, train, self.dtype, name=f"block{i + 1}")(x)
        x = x.astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.num_classes, name="logits")(x).reshape(b, t, -1).mean(1)


class FlaxArm:
    """Plain flax: jitted value_and_grad, SGD with momentum, donated state."""

    def __init__(self, variables, clips, labels, *, num_classes, stage_sizes, width, taps, dtype, learning_rate):
        model = FlaxResNet(num_classes, stage_sizes, width, taps, jnp.dtype(dtype))
        optimizer = optax.sgd(learning_rate, momentum=0.9)
        flat = flatten_dict(variables["params"])
        params = unflatten_dict(
            {k: jnp.array(v[:, None] if k[-2:] == ("temporal", "kernel") else v) for k, v in flat.items()}
        )
        stats = jax.tree.map(jnp.array, variables["batch_stats"])

        def step(params, stats, opt_state, clips, labels):
            def loss_fn(params):
                both = {"params": params, "batch_stats": stats}
                logits, moved = model.apply(both, clips, mutable=["batch_stats"])
                loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
                return loss, moved["batch_stats"]

            (loss, moved), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), moved, opt_state, loss

        self._state = (params, stats, optimizer.init(params))
        self._batch = (jnp.asarray(clips), jnp.asarray(labels))
        self._step = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*self._state, *self._batch).compile()

    def run(self, steps: int) -> float:
        for _ in range(steps):
            *self._state, loss = self._step(*self._state, *self._batch)
        return float(loss)


class TorchArm:
    """PyTorch eager or compiled, channels_last; autocast when the type is bfloat16; on CUDA where there is one."""

    def __init__(
        self, variables, clips, labels, *, num_classes, stage_sizes, width, taps, dtype, learning_rate, compiled=False
    ):
        import torch

        self._torch = torch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._autocast = dtype == "bfloat16"
        net = torch_resnet(num_classes, stage_sizes, width, taps, clips.shape[1])
        net.load_state_dict(_torch_state(variables), strict=False)  # num_batches_tracked is torch's own
        self._net = net.to(self._device, memory_format=torch.channels_last).train()
        self._forward = torch.compile(self._net, mode="max-autotune") if compiled else self._net
        self._optimizer = torch.optim.SGD(self._net.parameters(), learning_rate, momentum=0.9)
        frames = torch.from_numpy(clips.reshape(-1, *clips.shape[2:]).transpose(0, 3, 1, 2))
        self._frames = frames.to(self._device, memory_format=torch.channels_last)
        self._labels = torch.from_numpy(labels).long().to(self._device)

    def run(self, steps: int) -> float:
        torch = self._torch
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                logits = self._forward(self._frames)
            loss = torch.nn.functional.cross_entropy(logits.float(), self._labels)
            loss.backward()
            self._optimizer.step()
        return loss.item()


def torch_resnet(num_classes, stage_sizes, width, taps, frames):
    """The network in PyTorch: frames [B*T, 3, H, W] to clip logits [B, K]."""
    import torch
    from torch.nn import functional as F

    def conv(cin, cout, size, stride=1):
        return torch.nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)

    class Unit(torch.nn.Module):
        def __init__(self, cin, width, stride, project, taps):
            super().__init__()
            self.conv1, self.bn1 = conv(cin, width, 1), torch.nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3, stride), torch.nn.BatchNorm2d(width)
            self.conv3, self.bn3 = conv(width, 4 * width, 1), torch.nn.BatchNorm2d(4 * width)
            self.project = project
            if project:
                self.shortcut_conv = conv(cin, 4 * width, 1, stride)
                self.shortcut_bn = torch.nn.BatchNorm2d(4 * width)
            self.temporal = torch.nn.Conv2d(width, width, (taps, 1), padding=(taps // 2, 0)) if taps else None

        def forward(self, x):
            y = F.relu(self.bn1(self.conv1(x)))
            y = F.relu(self.bn2(self.conv2(y)))
            if self.temporal is not None:  # views: [B*T, C, H, W] and [B, C, T, H*W] are both channels-last
                n, c, h, w = y.shape
                y = y.permute(0, 2, 3, 1).reshape(n // frames, frames, h * w, c).permute(0, 3, 1, 2)
                y = F.relu(self.temporal(y)).permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
            y = self.bn3(self.conv3(y))
            return F.relu(y + (self.shortcut_bn(self.shortcut_conv(x)) if self.project else x))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = conv(3, width, 7, 2), torch.nn.BatchNorm2d(width)
            cin = width
            for i, units in enumerate(stage_sizes):
                block = torch.nn.Module()
                for j in range(1, units + 1):
                    stride = 2 if j == 1 and i > 0 else 1
                    temporal = taps if j == min(2, units) else 0
                    setattr(block, f"unit{j}", Unit(cin, width * 2**i, stride, j == 1, temporal))
                    cin = 4 * width * 2**i
                setattr(self, f"block{i + 1}", block)
            self.logits = torch.nn.Linear(cin, num_classes)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for i in range(len(stage_sizes)):
                for unit in getattr(self, f"block{i + 1}").children():
                    x = unit(x)
            return self.logits(x.float().mean((2, 3))).unflatten(0, (-1, frames)).mean(1)

    return Net()


def torch_clip_classifier(variables, *, num_classes, stage_sizes, width, taps, frames, normalization):
    """The network with what goes before and after it: uint8 [B, T, H, W, 3] to probabilities [B, K]."""
    import torch

    class ClipClassifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch_resnet(num_classes, stage_sizes, width, taps, frames)
            self.net.load_state_dict(_torch_state(variables), strict=False)
            self.scale = normalization[0]
            self.register_buffer("mean", torch.tensor(normalization[1]))
            self.register_buffer("deviation", torch.tensor(normalization[2]))

        def forward(self, clips):
            x = (clips.flatten(0, 1).float() / self.scale - self.mean) / self.deviation
            return self.net(x.permute(0, 3, 1, 2)).softmax(-1)  # the permuted view is channels-last

    return ClipClassifier()


def _torch_state(variables):
    import torch

    fields = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    axes = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}
    state = {}
    for path, value in flatten_dict(variables).items():
        value = np.asarray(value).transpose(axes[value.ndim])
        if path[-2:] == ("temporal", "kernel"):
            value = value[..., None]
        state[".".join((*path[1:-1], fields[path[-1]]))] = torch.from_numpy(value.copy())
    return state
