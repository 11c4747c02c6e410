"""Time of a prediction from RGB alone: hallujax beside PyTorch and ONNX Runtime, same network, weights and clips.

    python benchmarks/inference.py                                              # ResNet-50, 224 pixels
    python benchmarks/inference.py --stages 2 2 2 2 --width 16 --size 56 --classes 15        # a stream of the table
    python benchmarks/inference.py --arms hallujax torch torch_compile onnxruntime

From uint8 clips in memory to probabilities in memory, preprocessing included, at every size of batch. hallujax is
jitted with batch norm folded, ONNX Runtime runs the file of `hallujax export --to onnx`, PyTorch is in evaluation mode
and channels_last. Before timing, the probabilities must agree. The arms take turns, forwards and backwards (ABBA); the
median over blocks is reported with its extremes. Rows are appended to benchmarks/results/inference.csv.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from peers_torch import torch_clip_classifier
from recording import measure, spread, stamp, write

from hallujax.data.transforms import NORMALIZATIONS, TransformOptions
from hallujax.deploy.system import FUSED, Member, RgbSystem, TrainedSystem
from hallujax.deploy.weights import folded
from hallujax.models.streams import build_stream

RESULTS = Path(__file__).parent / "results" / "inference.csv"
PACKAGES = ("jax", "jaxlib", "flax", "torch", "onnx", "onnxruntime")
NORMALIZATION = "imagenet"


class HallujaxArm:
    """The library's own system, jitted, with batch norm folded."""

    def __init__(self, trained: TrainedSystem, clips: np.ndarray):
        variables = jax.device_put(folded(trained).variables)
        predict = jax.jit(lambda variables, clips: jax.nn.softmax(trained.system.logits(variables, clips)[FUSED]))
        compiled = predict.lower(variables, clips).compile()
        self._predict = lambda: np.asarray(compiled(variables, clips))

    def run(self, steps: int) -> np.ndarray:
        for _ in range(steps):
            probabilities = self._predict()
        return probabilities


class OnnxArm:
    """What `hallujax export --to onnx` writes, under ONNX Runtime as it is set up by default."""

    def __init__(self, trained: TrainedSystem, clips: np.ndarray):
        import onnxruntime

        from hallujax.deploy.onnx_graph import INPUT
        from hallujax.deploy.onnx_model import PROVIDERS, build_onnx

        available = [provider for provider in PROVIDERS if provider in onnxruntime.get_available_providers()]
        model = build_onnx(folded(trained)).SerializeToString()
        self._session, self._inputs = onnxruntime.InferenceSession(model, providers=available), {INPUT: clips}

    def run(self, steps: int) -> np.ndarray:
        for _ in range(steps):
            (probabilities,) = self._session.run(None, self._inputs)
        return probabilities


class TorchArm:
    """PyTorch in evaluation mode, channels_last, eager or compiled; on CUDA where there is one."""

    def __init__(self, trained: TrainedSystem, clips: np.ndarray, compiled: bool = False):
        import torch

        (member,), (variables,) = trained.system.members, trained.variables.values()
        net = torch_clip_classifier(
            {kind: trees["rgb"] for kind, trees in variables.items()},
            num_classes=len(trained.system.classes),
            stage_sizes=member.model["stage_sizes"],
            width=member.model["width"],
            taps=member.model["temporal_kernel"],
            frames=trained.system.frames,
            normalization=NORMALIZATIONS[NORMALIZATION],
        )
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        net = net.to(self._device, memory_format=torch.channels_last).eval()
        self._net = torch.compile(net, mode="max-autotune-no-cudagraphs") if compiled else net
        self._clips, self._torch = torch.from_numpy(clips), torch

    def run(self, steps: int) -> np.ndarray:
        with self._torch.inference_mode():
            for _ in range(steps):
                probabilities = self._net(self._clips.to(self._device)).cpu().numpy()
        return probabilities


ARMS = {
    "hallujax": HallujaxArm,
    "torch": TorchArm,
    "torch_compile": partial(TorchArm, compiled=True),
    "onnxruntime": OnnxArm,
}
NEEDS = {"torch": "torch", "torch_compile": "torch", "onnxruntime": "onnxruntime"}


def main() -> None:
    args = parse_arguments()
    trained, rng, rows = random_system(args), np.random.default_rng(0), []
    for name in [name for name in args.arms if importlib.util.find_spec(NEEDS.get(name, "jax")) is None]:
        print(f"{name}: left out, {NEEDS[name]} is not installed")
        args.arms.remove(name)
    for batch in args.batches:
        clips = rng.integers(0, 256, (batch, *trained.system.clip_shape), np.uint8)
        arms, setup, first = {}, {}, {}
        for name in args.arms:
            start = time.perf_counter()
            arms[name] = ARMS[name](trained, clips)
            first[name] = arms[name].run(1)
            setup[name] = time.perf_counter() - start
        apart = max(np.abs(found - first[args.arms[0]]).max() for found in first.values())
        if apart > 1e-4:
            sys.exit(f"the arms disagree by {apart:.2g} on a probability at batch {batch}; nothing more was timed")
        for name, ms in measure(arms, args.blocks, args.steps).items():
            rows.append(
                stamp(PACKAGES)
                | {"batch": str(batch), "arm": name}
                | spread(ms)
                | {
                    "clips_per_s": f"{1e3 * batch / statistics.median(ms):.2f}",
                    "setup_and_first_s": f"{setup[name]:.1f}",
                    "largest_probability_difference": f"{apart:.2g}",
                }
            )
            row = rows[-1]
            print(
                f"batch {batch:3d}  {name:14s} {row['median_ms']:>9s} ms ({row['min_ms']} to {row['max_ms']}),"
                f" {row['clips_per_s']} clips/s, ready in {row['setup_and_first_s']} s",
                flush=True,
            )
    write(rows, args.out)


def random_system(args: argparse.Namespace) -> TrainedSystem:
    """One RGB stream, fresh but for its statistics and gains, which are drawn."""
    model = {
        "stage_sizes": tuple(args.stages),
        "width": args.width,
        "bottleneck": 0,
        "temporal_kernel": args.taps,
        "dtype": "float32",
    }
    system = RgbSystem(
        name="RGB",
        classes=tuple(f"class{i}" for i in range(args.classes)),
        frames=args.frames,
        frame_size=(args.size, args.size),
        transforms=TransformOptions(
            flip=0.0,
            shift=0,
            downsample=1,
            rgb_normalization=NORMALIZATION,
            depth_encoding="grey",
            depth_near=500.0,
            depth_far=4000.0,
        ),
        members=(Member(stage="rgb", method="single_stream", options={}, model=model),),
    )
    fresh = jax.jit(build_stream(model, args.classes).init)(jax.random.key(0), np.zeros((1, 1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            np.asarray(leaf) * rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
            if path[-1].key in ("scale", "var")
            else np.asarray(leaf)
        ),
        fresh,
    )
    return TrainedSystem(system, {"rgb": {kind: {"rgb": tree} for kind, tree in variables.items()}}, {}, Path(), "")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["hallujax", "torch", "onnxruntime"])
    parser.add_argument("--stages", nargs="+", type=int, default=[3, 4, 6, 3], help="units a block")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--taps", type=int, default=5, help="of the temporal convolutions")
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--size", type=int, default=224, help="height and width of a frame, pixels")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64], help="clips")
    parser.add_argument("--frames", type=int, default=5, help="a clip")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=3, help="a block and arm")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it runs")
    args = parser.parse_args()
    if args.quick:
        args.stages, args.width, args.size, args.classes, args.batches, args.blocks = [1, 2], 8, 32, 4, [1, 3], 2
    return args


if __name__ == "__main__":
    main()
