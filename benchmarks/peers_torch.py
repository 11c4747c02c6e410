"""The four systems in PyTorch, eager or compiled, channels-last, autocast: as its users write them.

Modules have hallujax's parameter names, so that all arms start from one set of weights.
"""

import numpy as np
from flax.traverse_util import flatten_dict
from peers_flax import FROZEN
from systems import FEATURE_SCALE, LEARNING_RATE, MOMENTUM, Batch, Case, Variables


class TorchArm:
    """PyTorch on CUDA where there is one; autocast when the type is bfloat16; `compiled` by max-autotune.

    The forward pass and the loss are compiled together; SGD is fused where there is such a kernel, as on CUDA.
    """

    def __init__(self, system: str, case: Case, variables: Variables, batch: Batch, compiled: bool = False):
        import torch

        self._torch, self._autocast = torch, case.dtype == "bfloat16"
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self._device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            # XLA's float32 products and convolutions are TF32 there, unless told otherwise: so are PyTorch's.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        net = torch_system(system, case)
        for name, trees in variables.items():
            missing = net.nets[name].load_state_dict(_state(trees), strict=False).missing_keys
            if lost := [key for key in missing if not key.endswith("num_batches_tracked")]:
                raise KeyError(f"{name} has no weights for {lost}")
        net = net.to(self._device, memory_format=torch.channels_last).train()
        for name in FROZEN[system]:
            net.nets[name].requires_grad_(False).eval()
        self._loss = torch.compile(net, mode="max-autotune") if compiled else net
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.SGD(trained, LEARNING_RATE, MOMENTUM, fused=self._device.type == "cuda")
        self._batch = [
            torch.from_numpy(batch[name].reshape(-1, *batch[name].shape[2:]).transpose(0, 3, 1, 2)).to(
                self._device, memory_format=torch.channels_last
            )
            for name in ("rgb", "depth")
        ]
        self._batch.append(torch.from_numpy(batch["label"]).long().to(self._device))

    def run(self, steps: int) -> float:
        torch = self._torch
        for _ in range(steps):
            self._optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                loss = self._loss(*self._batch)
            loss.backward()
            self._optimizer.step()
        return loss.item()


def torch_system(system: str, case: Case):
    """The module whose forward pass is a system's loss: (rgb, depth [B*T, 3, H, W], labels [B]) to a scalar."""
    import torch
    from torch.nn import functional as F

    def resnet():
        return torch_resnet(case.classes, case.stages, case.width, case.taps, case.frames)

    class System(torch.nn.Module):
        def __init__(self, **nets):
            super().__init__()
            self.nets = torch.nn.ModuleDict(nets)

    class SingleStream(System):
        def forward(self, rgb, depth, labels):
            return F.cross_entropy(self.nets["rgb"](rgb)[0].float(), labels)

    class TwoStream(System):
        def forward(self, rgb, depth, labels):
            from_depth, _, _, given = self.nets["depth"](depth)
            from_rgb = self.nets["rgb"](rgb, given)[0]
            return F.cross_entropy((from_depth.float() + from_rgb.float()) / 2, labels)

    class Hallucination(System):
        def forward(self, rgb, depth, labels):
            with torch.no_grad():
                taught, _, real, _ = self.nets["depth"](depth)
            logits, _, maps, _ = self.nets["hallucination"](rgb)
            soft = F.cross_entropy(logits.float(), (taught.float() / 10.0).softmax(-1))
            feature = (maps.float().sigmoid() - real.float().sigmoid()).square().sum() / len(labels)
            return 0.25 * F.cross_entropy(logits.float(), labels) + 0.25 * soft + 0.5 * FEATURE_SCALE * feature

    class Admd(System):
        def forward(self, rgb, depth, labels):
            with torch.no_grad():
                real = self.nets["depth"](depth)[1]
            fake, judge = self.nets["hallucination"](rgb)[1], self.nets["discriminator"]
            frames = labels[:, None].expand(-1, case.frames).flatten()
            held = {name: parameter.detach() for name, parameter in judge.named_parameters()}
            fool = F.cross_entropy(torch.func.functional_call(judge, held, fake).float(), frames)
            on_fake = judge(fake.detach()).float()
            return (
                fool
                + F.cross_entropy(judge(real).float(), frames)
                + F.cross_entropy(on_fake, torch.full_like(frames, case.classes))
            )

    class Discriminator(torch.nn.Module):
        def __init__(self, features):
            super().__init__()
            self.fc1, self.fc2 = torch.nn.Linear(case.frames + features, 256), torch.nn.Linear(256, 128)
            self.logits = torch.nn.Linear(128, case.classes + 1)

        def forward(self, x):  # [B*T, D]
            place = torch.eye(case.frames, device=x.device).repeat(len(x) // case.frames, 1)
            x = F.leaky_relu(self.fc1(torch.cat([place, x], 1)), 0.2)
            return self.logits(F.leaky_relu(self.fc2(x), 0.2))

    if system == "single_stream":
        return SingleStream(rgb=resnet())
    if system == "two_stream":
        return TwoStream(depth=resnet(), rgb=resnet())
    if system == "hallucination":
        return Hallucination(depth=resnet(), hallucination=resnet())
    last = 4 * case.width * 2 ** (len(case.stages) - 1)
    return Admd(depth=resnet(), hallucination=resnet(), discriminator=Discriminator(last))


def torch_resnet(num_classes, stage_sizes, width, taps, frames):
    """A stream: frames [B*T, 3, H, W] to clip logits [B, K], features [B*T, D], last maps, what goes to another one."""
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

        def forward(self, x, injected=None):
            y = F.relu(self.bn1(self.conv1(x if injected is None else x + injected)))
            y = F.relu(self.bn2(self.conv2(y)))
            if self.temporal is not None:  # views: [B*T, C, H, W] and [B, C, T, H*W] are both channels-last
                n, c, h, w = y.shape
                y = y.permute(0, 2, 3, 1).reshape(n // frames, frames, h * w, c).permute(0, 3, 1, 2)
                y = F.relu(self.temporal(y)).permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
            y = self.bn3(self.conv3(y))
            return y + (self.shortcut_bn(self.shortcut_conv(x)) if self.project else x)

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

        def forward(self, x, modulation=None):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            given = []
            for i, units in enumerate(stage_sizes):
                first = None
                for j, unit in enumerate(getattr(self, f"block{i + 1}").children(), start=1):
                    total = unit(x, first * modulation[i] if j == 2 and modulation is not None else None)
                    x = F.relu(total)
                    if j == 1:
                        first, connection = total, x
                given.append(connection if units > 1 else None)
            features = x.float().mean((2, 3))
            return self.logits(features).unflatten(0, (-1, frames)).mean(1), features, x, given

    return Net()


def torch_clip_classifier(variables, *, num_classes, stage_sizes, width, taps, frames, normalization):
    """The network with what goes before and after it: uint8 [B, T, H, W, 3] to probabilities [B, K]."""
    import torch

    class ClipClassifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch_resnet(num_classes, stage_sizes, width, taps, frames)
            self.net.load_state_dict(_state(variables), strict=False)
            self.scale = normalization[0]
            self.register_buffer("mean", torch.tensor(normalization[1]))
            self.register_buffer("deviation", torch.tensor(normalization[2]))

        def forward(self, clips):
            x = (clips.flatten(0, 1).float() / self.scale - self.mean) / self.deviation
            return self.net(x.permute(0, 3, 1, 2))[0].softmax(-1)  # the permuted view is channels-last

    return ClipClassifier()


def _state(variables):
    """hallujax's variables of one network as PyTorch's."""
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
