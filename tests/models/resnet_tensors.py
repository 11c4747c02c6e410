"""The tensors of small image ResNets under the names of those who publish them, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hallujax.models.layers import identity_kernel

STAGE_SIZES, WIDTH = (2, 1, 1, 1), 4
SHAPE = {"stage_sizes": STAGE_SIZES, "width": WIDTH}
TORCH = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
SLIM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def layers(stage_sizes=STAGE_SIZES, width=WIDTH):
    """Every convolution with its batch norm: `(stage, unit, convolution, out, in, size)`, counted from 1, the stem's
    stage 0, the shortcut's convolution 0."""
    found, cin = [(0, 0, 1, width, 3, 7)], width
    for stage, units in enumerate(stage_sizes, start=1):
        inner = width * 2 ** (stage - 1)
        for unit in range(1, units + 1):
            if unit == 1:
                found.append((stage, unit, 0, 4 * inner, cin, 1))
            found.append((stage, unit, 1, inner, cin, 1))
            found.append((stage, unit, 2, inner, inner, 3))
            found.append((stage, unit, 3, 4 * inner, inner, 1))
            cin = 4 * inner
    return found


def values(stage_sizes=STAGE_SIZES, width=WIDTH, classes=6, seed=0):
    """`{(stage, unit, convolution): {"kernel" [out, in, h, w], "gamma", "beta", "mean", "variance"}}` and, as `fc`,
    `{"kernel" [out, in], "bias"}`: of sizes that let activations through."""
    rng = np.random.default_rng(seed)
    found = {}
    for stage, unit, convolution, out, cin, size in layers(stage_sizes, width):
        found[stage, unit, convolution] = {
            "kernel": rng.normal(size=(out, cin, size, size)) * np.sqrt(2 / (cin * size * size)),
            "gamma": rng.uniform(0.5, 1.0, out),
            "beta": rng.normal(size=out) * 0.1,
            "mean": rng.normal(size=out) * 0.1,
            "variance": rng.uniform(0.5, 2.0, out),
        }
    features = 4 * width * 2 ** (len(stage_sizes) - 1)
    found["fc"] = {"kernel": rng.normal(size=(classes, features)), "bias": rng.normal(size=classes)}
    return {layer: {k: v.astype(np.float32) for k, v in parts.items()} for layer, parts in found.items()}


def torchvision(values):
    named = {}
    for layer, parts in values.items():
        if layer == "fc":
            named |= {"fc.weight": parts["kernel"], "fc.bias": parts["bias"]}
            continue
        stage, unit, convolution = layer
        where = f"layer{stage}.{unit - 1}." if stage else ""
        kernel, norm = (f"conv{convolution}", f"bn{convolution}") if convolution else ("downsample.0", "downsample.1")
        named[f"{where}{kernel}.weight"] = parts["kernel"]
        named |= {f"{where}{norm}.{name}": parts[part] for part, name in TORCH.items()}
        named[f"{where}{norm}.num_batches_tracked"] = np.array(7)
    return named


def huggingface(values):
    named = {}
    for layer, parts in values.items():
        if layer == "fc":
            named |= {"classifier.1.weight": parts["kernel"], "classifier.1.bias": parts["bias"]}
            continue
        stage, unit, convolution = layer
        where = f"resnet.encoder.stages.{stage - 1}.layers.{unit - 1}" if stage else "resnet.embedder.embedder"
        where += ("" if not stage else ".shortcut" if not convolution else f".layer.{convolution - 1}") + "."
        named[f"{where}convolution.weight"] = parts["kernel"]
        named |= {f"{where}normalization.{name}": parts[part] for part, name in TORCH.items()}
        named[f"{where}normalization.num_batches_tracked"] = np.array(7)
    return named


def slim(values, scope="resnet_v1_50"):
    """With what `resnet_v1_50.ckpt` of 2016-08-28 holds beside the network."""
    named = {"global_step": np.array(0), f"{scope}/mean_rgb": np.array([123.68, 116.78, 103.94], np.float32)}
    for layer, parts in values.items():
        if layer == "fc":
            named[f"{scope}/logits/weights"] = parts["kernel"].T[None, None]
            named[f"{scope}/logits/biases"] = parts["bias"]
            continue
        stage, unit, convolution = layer
        where = f"{scope}/block{stage}/unit_{unit}/bottleneck_v1" if stage else scope
        where += f"/conv{convolution}" if convolution else "/shortcut"
        named[f"{where}/weights"] = parts["kernel"].transpose(2, 3, 1, 0)
        named |= {f"{where}/BatchNorm/{name}": parts[part] for part, name in SLIM.items()}
    return {name: np.ascontiguousarray(value) for name, value in named.items()}


def with_temporal(model, loaded, clips):
    """The loaded variables and temporal layers at the identity."""
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), clips))
    loaded = flatten_dict(loaded)
    temporal = {path: like for path, like in shapes.items() if "temporal" in path}
    assert temporal and temporal.keys() == shapes.keys() - loaded.keys()
    for path, like in temporal.items():
        value = identity_kernel(None, like.shape) if path[-1] == "kernel" else jnp.zeros(like.shape)
        loaded[path] = value
    return unflatten_dict(loaded)
