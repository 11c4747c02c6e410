"""The four systems whose steps are measured, as hallujax trains them, and the arguments that say of what size.

Needs jax, flax and optax alone, so that a bare GPU machine can run what uses it.
"""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hallujax import methods
from hallujax.methods import Method
from hallujax.models import VideoResNet
from hallujax.models.streams import initialize
from hallujax.training.sharding import make_mesh, replicated, split_over_data, to_devices
from hallujax.training.state import TrainState
from hallujax.training.step import initial_state, train_step

Batch = dict[str, np.ndarray]
Variables = dict[str, Any]  # {network: {"params", "batch_stats"}}

MOMENTUM, LEARNING_RATE = 0.9, 0.01
FEATURE_SCALE = 1e-4  # of the hallucination loss, a sum over the last maps: one step must not end the training

SYSTEMS: Mapping[str, Callable[[VideoResNet], Method]] = {
    "single_stream": methods.single_stream,
    "two_stream": partial(methods.two_stream, modalities={"depth": "depth", "rgb": "rgb"}, connect=True),
    "hallucination": lambda stream: methods.hallucination(
        stream, scale=FEATURE_SCALE, layer=f"block{len(stream.stage_sizes)}"
    ),
    "admd": methods.admd,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of the streams, of their input and of the batch."""

    stages: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    taps: int = 5
    classes: int = 60
    size: int = 224
    batch: int = 2
    frames: int = 5
    dtype: str = "float32"
    ghost_batch: int = 0  # clips that batch norm takes together, 0 for all

    @property
    def stream(self) -> VideoResNet:
        return VideoResNet(
            self.classes,
            self.stages,
            self.width,
            temporal_kernel=self.taps,
            dtype=jnp.dtype(self.dtype),
            ghost_batch=self.ghost_batch,
        )


QUICK = Case(stages=(1, 2), width=8, size=32, batch=2, classes=4)
DEMO = Case(stages=(2, 2, 2, 2), width=16, size=56, batch=16, classes=15)


def add_arguments(parser: argparse.ArgumentParser, default: Case = Case()) -> None:
    parser.add_argument("--stages", nargs="+", type=int, default=default.stages, help="units a block")
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--taps", type=int, default=default.taps, help="of the temporal convolutions")
    parser.add_argument("--classes", type=int, default=default.classes)
    parser.add_argument("--size", type=int, default=default.size, help="height and width of a frame, pixels")
    parser.add_argument("--batch", type=int, default=default.batch, help="clips")
    parser.add_argument("--frames", type=int, default=default.frames, help="a clip")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default=default.dtype)
    parser.add_argument("--ghost-batch", type=int, default=default.ghost_batch, help="clips; 0 for the whole batch")
    parser.add_argument("--quick", action="store_true", help="a tiny network, to see that it runs")


def case_of(args: argparse.Namespace) -> Case:
    if args.quick:
        return dataclasses.replace(QUICK, dtype=args.dtype)
    said = {field.name: getattr(args, field.name) for field in dataclasses.fields(Case)}
    return Case(**said | {"stages": tuple(args.stages)})


def random_batch(case: Case, seed: int = 0) -> Batch:
    """Encoded frames of RGB and depth, float32, with labels: nothing is left to prepare."""
    rng = np.random.default_rng(seed)
    shape = (case.batch, case.frames, case.size, case.size, 3)
    return {
        "rgb": rng.standard_normal(shape, np.float32),
        "depth": rng.standard_normal(shape, np.float32),
        "label": (np.arange(case.batch) % case.classes).astype(np.int32),
        "mask": np.ones(case.batch, np.float32),
        "sample": np.arange(case.batch, dtype=np.uint32),
    }


def fresh_variables(system: str, case: Case) -> Variables:
    """Networks at their initialisation; a frozen one has the statistics of a few clips, as if it were trained."""
    method = SYSTEMS[system](dataclasses.replace(case, dtype="float32").stream)
    few = random_batch(dataclasses.replace(case, batch=2, size=min(case.size, 64)))
    params, statistics = initialize(method.networks, method.forward, few, jax.random.key(0))
    for network in set(method.modalities) - set(method.players):
        module = method.networks[network].clone(batch_norm_momentum=0.0)
        run = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))
        _, moved = run({"params": params[network], "batch_stats": statistics[network]}, few[method.modalities[network]])
        statistics[network] = moved["batch_stats"]
    return jax.device_get({name: {"params": params[name], "batch_stats": statistics[name]} for name in params})


def optimizers_of(method: Method) -> dict[str, optax.GradientTransformation]:
    return {player: optax.sgd(LEARNING_RATE, MOMENTUM) for player in dict.fromkeys(method.players.values())}


def start(method: Method, variables: Variables) -> TrainState:
    copied = jax.tree.map(jnp.array, variables)
    params, statistics = ({name: copied[name][kind] for name in copied} for kind in ("params", "batch_stats"))
    return initial_state(params, statistics, method.players, optimizers_of(method))


def step_of(method: Method) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """The library's step on batches that are prepared already, to be jitted."""
    optimizers = optimizers_of(method)
    return partial(
        train_step, method=method, optimizers=optimizers, rounds=(tuple(optimizers),), prepare=lambda batch, key: batch
    )


class HallujaxArm:
    """The library's own step, compiled, on one device or divided over several."""

    def __init__(
        self,
        system: str,
        case: Case,
        variables: Variables,
        batch: Batch,
        devices: Sequence[jax.Device] | None = None,
    ):
        method, mesh = SYSTEMS[system](case.stream), make_mesh(devices=devices or jax.devices()[:1])
        seen = {*method.modalities.values(), "label", "mask", "sample"}
        batch = to_devices({name: value for name, value in batch.items() if name in seen}, split_over_data(mesh))
        self.state = jax.device_put(start(method, variables), replicated(mesh))
        self._rest = (batch, *jax.device_put((jnp.ones(()), jax.random.key(0)), replicated(mesh)))
        jitted = jax.jit(step_of(method), donate_argnums=0, out_shardings=replicated(mesh))
        self.compiled = jitted.lower(self.state, *self._rest).compile()

    def run(self, steps: int) -> float:
        """The players' losses, summed, of the last of so many steps."""
        for _ in range(steps):
            self.state, metrics = self.compiled(self.state, *self._rest)
        jax.block_until_ready(self.state)
        return float(sum(value for name, value in metrics.items() if name.startswith("loss/")))
