"""The RGB side of a system: what is left of its stages where there is one camera."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from hallujax.data.transforms import TransformOptions, encode
from hallujax.errors import CheckpointError, UsageError
from hallujax.methods import Method, build, clip_logits
from hallujax.methods.method import Outputs
from hallujax.models.streams import Networks, Variables, build_streams, initialize
from hallujax.trees import by_name

FUSED = "fused"  # beside the streams' names: the mean of the members' clip logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One stage of a system; `method`, `options`, `model` and `models` as in `experiment.Stage`."""

    stage: str
    method: str
    options: Mapping[str, Any]
    model: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RgbSystem:
    """A system that predicts from RGB alone, without its numbers.

    Attributes:
      name: its row in the table.
      classes: K names, in the order of the logits.
      frames: T, seen of every clip.
      frame_size: (height, width) in pixels of the frames it is given, the training data's.
      transforms: what `data.transforms.encode` does to them.
      members: the stages whose clip logits are averaged.

    Raises UsageError if a member needs more than RGB.
    """

    name: str
    classes: tuple[str, ...]
    frames: int
    frame_size: tuple[int, int]
    transforms: TransformOptions
    members: tuple[Member, ...]

    def __post_init__(self):
        for stage, method in self.methods.items():
            if method.test_modalities != ("rgb",):
                raise UsageError(
                    f"{self.name}: stage {stage} is tested on {' + '.join(method.test_modalities)}; "
                    "only a system that needs RGB alone can be deployed"
                )

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """`[T, H, W, 3]` of the frames it is given."""
        return (self.frames, *self.frame_size, 3)

    @functools.cached_property
    def methods(self) -> dict[str, Method]:
        """`{stage: its method}`."""
        methods = {}
        for member in self.members:
            stream, others = build_streams(member.model, member.models, len(self.classes))
            methods[member.stage] = build(member.method, stream, member.options, others)
        return methods

    @functools.cached_property
    def shapes(self) -> Variables:
        """`{stage: {"params" | "batch_stats": {network: tree of shapes}}}` of all that the logits depend on.

        Teachers are not in it, nor is a discriminator that nobody asks.
        """
        return {stage: _needed(method, self._modalities(method)) for stage, method in self.methods.items()}

    @functools.cached_property
    def streams(self) -> dict[str, tuple[str, str]]:
        """`{name: (stage, network)}` of the streams: the network's name, or the stage's where two share that."""
        pairs = [
            (stage, network)
            for stage, method in self.methods.items()
            for network in method.modalities
            if network in self.shapes[stage]["params"]
        ]
        networks, stages = [network for _, network in pairs], [stage for stage, _ in pairs]
        names = {}
        for stage, network in pairs:
            if networks.count(network) == 1:
                names[network] = (stage, network)
            else:
                names[stage if stages.count(stage) == 1 else f"{stage}/{network}"] = (stage, network)
        return names

    def logits(self, variables: Variables, rgb: jax.Array) -> dict[str, jax.Array]:
        """Clip logits `[B, K]` of every stream and, as `fused`, of the system.

        Args:
          variables: as `shapes`.
          rgb: uint8 `[B, T, H, W, 3]`.
        """
        return self.scores(self.outputs(variables, rgb))

    def scores(self, outputs: Mapping[str, Outputs]) -> dict[str, jax.Array]:
        """The logits of what `outputs` returned."""
        fused = jnp.mean(jnp.stack([self.methods[stage].predict(outputs[stage]) for stage in outputs]), axis=0)
        streams = {name: clip_logits(outputs[stage][network]) for name, (stage, network) in self.streams.items()}
        return {FUSED: fused, **streams}

    def outputs(self, variables: Variables, rgb: jax.Array) -> dict[str, Outputs]:
        """`{stage: {network: its output}}`; arguments as for `logits`."""
        batch = encode({"rgb": rgb}, self.transforms)
        return {stage: method.forward(_Kept(method, variables[stage]), batch) for stage, method in self.methods.items()}

    def check(self, variables: Variables, where: str) -> None:
        """Raises CheckpointError, naming the first array that is missing, left over or of another shape."""
        expected, found = by_name(self.shapes), by_name(variables)
        for name in sorted(expected.keys() ^ found.keys()):
            raise CheckpointError(f"{where}: {name} is {'missing' if name in expected else 'not of this network'}")
        for name, leaf in expected.items():
            if leaf.shape != found[name].shape or leaf.dtype != found[name].dtype:
                raise CheckpointError(
                    f"{where}: {name} is {found[name].dtype}{list(found[name].shape)}, "
                    f"the network's is {leaf.dtype}{list(leaf.shape)}"
                )

    def check_program(self, takes: Any, gives: Any, where: str) -> None:
        """Raises CheckpointError if a program's input or output, with a `dtype` and a `shape`, is not this system's."""
        clips, probabilities = ("uint8", *self.clip_shape), ("float32", len(self.classes))
        for what, found, expected in (("takes", takes, clips), ("gives", gives, probabilities)):
            if (str(found.dtype), *found.shape[1:]) != expected:
                shape = ", ".join(map(str, ("B", *expected[1:])))
                raise CheckpointError(
                    f"{where}: it {what} {found.dtype}{list(found.shape)}, config.json says {expected[0]}[{shape}]"
                )

    def _modalities(self, method: Method) -> dict[str, jax.ShapeDtypeStruct]:
        height, width = (side // self.transforms.downsample for side in self.frame_size)
        clip = jax.ShapeDtypeStruct((1, self.frames, height, width, 3), jnp.float32)
        return {modality: clip for modality in method.modalities.values()}


@dataclasses.dataclass(frozen=True)
class TrainedSystem:
    """One system of a run, ready to predict.

    Attributes:
      system: without its numbers.
      variables: its numbers, as `RgbSystem.shapes`.
      facts: what the run's files say of it, for people: where it was trained and how well it did.
      workdir: of the seed that it is from.
      origin: which system of which seed it is, and why that one, for people; empty if there was no choice.
    """

    system: RgbSystem
    variables: Variables
    facts: dict[str, Any]
    workdir: pathlib.Path
    origin: str


class _Kept(Networks):
    """The networks that were kept; any other answers None, which the prediction does not depend on."""

    def __init__(self, method: Method, variables: Variables):
        super().__init__(method.networks, variables["params"], variables["batch_stats"])

    def __call__(self, name: str, *inputs: Any, **arguments: Any) -> Any:
        return super().__call__(name, *inputs, **arguments) if name in self._params else None


def _needed(method: Method, clip: Mapping[str, jax.ShapeDtypeStruct]) -> Variables:
    """The shapes of the networks that the prediction from RGB depends on: one walk back over its program."""
    params, batch_stats = jax.eval_shape(
        lambda batch: initialize(method.networks, method.forward, batch, jax.random.key(0)), clip
    )

    def predict(params, batch_stats, rgb):
        return method.predict(method.forward(Networks(method.networks, params, batch_stats), {"rgb": rgb}))

    program = jax.make_jaxpr(predict)(params, batch_stats, clip["rgb"]).jaxpr
    live = set(program.outvars)
    for equation in reversed(program.eqns):
        if live.intersection(equation.outvars):
            live.update(variable for variable in equation.invars if not isinstance(variable, Literal))
    leaves = jax.tree.leaves_with_path(params)
    used = {path[0].key for (path, _), variable in zip(leaves, program.invars, strict=False) if variable in live}
    return {
        "params": {name: tree for name, tree in params.items() if name in used},
        "batch_stats": {name: tree for name, tree in batch_stats.items() if name in used},
    }


class Bound:
    """`RgbSystem.logits` with its variables on the default device, compiled once for each batch size.

    Attributes:
      variables: as `RgbSystem.shapes`; a program whose weights are inside it (StableHLO) is no `Bound` and has none.
    """

    def __init__(self, system: RgbSystem, variables: Variables):
        self.variables = jax.device_put(variables)
        self._step = jax.jit(system.logits)

    def __call__(self, clips: np.ndarray) -> dict[str, jax.Array]:
        return self._step(self.variables, clips)
