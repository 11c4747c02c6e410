"""How a stage starts: its method, its step, fresh networks, and those it takes over from other stages."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from hallujax import methods
from hallujax.data.transforms import encode, prepare_training
from hallujax.errors import UsageError
from hallujax.experiment import IMAGENET, Experiment, Stage
from hallujax.models import Head, pretrained
from hallujax.models.streams import build_streams, initialize
from hallujax.training.checkpoint import read_networks
from hallujax.training.optimizer import build_optimizers
from hallujax.training.sharding import gather
from hallujax.training.state import TrainState
from hallujax.training.step import Metrics, train_step
from hallujax.training.warm_start import warm_start, warm_start_from_imagenet

Variables = dict[str, Any]


def build_method(stage: Stage, num_classes: int) -> methods.Method:
    """The method that a stage declares, for a dataset of so many classes.

    Raises:
      UsageError: for an unknown model argument, method or option, or if a network that no loss teaches, in whole or
        in part, is not started from another stage: it would stay random.
    """
    try:
        model = {**stage.model, "ghost_batch": stage.ghost_batch, "remat": stage.remat}
        stream, others = build_streams(model, stage.models, num_classes)
    except (TypeError, KeyError) as error:
        raise UsageError(f"stages.{stage.name}.model: {error}") from error
    method = methods.build(stage.method, stream, stage.options, others)
    if strangers := set(stage.init_from) - set(method.networks):
        raise UsageError(
            f"stages.{stage.name}.init_from names {sorted(strangers)}; the networks are {sorted(method.networks)}"
        )
    untaught = (set(method.networks) - set(method.players)) | set(method.idle)
    if missing := untaught - set(stage.init_from):
        raise UsageError(
            f"stages.{stage.name}.init_from lacks {sorted(missing)}: no loss teaches it, so it would stay random"
        )
    players = list(dict.fromkeys(method.players.values()))
    if stage.rounds and {player for movers in stage.rounds for player in movers} != set(players):
        raise UsageError(f"stages.{stage.name}.rounds is {stage.rounds}; it must name the players {players}, each")
    return method


def bind_step(
    experiment: Experiment,
    stage: Stage,
    method: methods.Method,
    steps: int,
    *,
    mesh: Mesh | None = None,
    mirror: Sequence[int] = (),
) -> tuple[Callable[..., tuple[TrainState, Metrics]], dict[str, optax.GradientTransformation]]:
    """A stage's training step, `step(state, batch, learning_rate_scale, key)`, and the optimisers it moves by.

    Args:
      steps: updates in the whole stage, for the schedules.
      mesh: that the state lies on, if it is sharded.
      mirror: see `data.joints.mirrored_joints`.
    """
    rounds = stage.rounds or (tuple(dict.fromkeys(method.players.values())),)
    optimizers = build_optimizers(stage.optimizer, method.players, steps, method.idle, rounds)
    whole = {} if mesh is None else {"gather": functools.partial(gather, mesh=mesh)}
    step = functools.partial(
        train_step,
        method=method,
        optimizers=optimizers,
        rounds=rounds,
        prepare=functools.partial(prepare_training, options=experiment.transforms, mirror=mirror),
        accumulate=stage.accumulate,
        ghost_batch=stage.ghost_batch,
        **whole,
    )
    return step, optimizers


def starting_networks(
    experiment: Experiment, stage: Stage, method: methods.Method, example: dict[str, Any], workdir: pathlib.Path
) -> tuple[Variables, Variables, list[str]]:
    """A stage's networks before its first step.

    Args:
      example: a batch as the pipeline yields it, for the shapes.
      workdir: where the stages that this one starts from are.

    Returns:
      `params`, `batch_stats`, each `{network: tree}`, and a line for every network taken over.

    Raises:
      UsageError: as `imagenet_weights`.
      CheckpointError: if a source cannot be read, or is of another architecture.
    """
    shapes = jax.eval_shape(lambda batch: encode(batch, experiment.transforms), example)
    key = jax.jit(lambda: jax.random.key(experiment.stage_seed(stage.name)))()  # jitted: one program, not two
    params, batch_stats = initialize(method.networks, method.forward, shapes, key)
    said = []
    for network, (source, its_network) in stage.init_from.items():
        fresh = {"params": params[network], "batch_stats": batch_stats[network]}
        if source == IMAGENET:
            weights = imagenet_weights(experiment, stage, network, method)
            channels = fresh["params"]["conv1"]["kernel"].shape[2]
            given = pretrained.adapt_input(weights.variables, channels)
            variables, what = warm_start_from_imagenet(network, fresh, given, experiment.imagenet_weights)
            if given is not weights.variables:
                what += "; conv1 summed over red, green and blue"
        else:
            found = read_network(workdir / source, its_network)
            if isinstance(method.networks[network], Head):
                found = method.networks[network].part_of(found)
            variables, what = warm_start(network, fresh, found, f"{source}/{its_network}")
        params[network], batch_stats[network] = variables["params"], variables["batch_stats"]
        said.append(what)
    return params, batch_stats, said


def read_network(stage_folder: pathlib.Path, network: str) -> Variables:
    """`{"params", "batch_stats"}` of one network of a finished stage.

    Raises:
      UsageError: if the stage has no such network.
      CheckpointError: if its checkpoint cannot be read.
    """
    networks = read_networks(stage_folder, [network])
    if network not in networks["params"]:
        others = ", ".join(read_networks(stage_folder)["params"])
        raise UsageError(f"stage {stage_folder.name!r} has no network {network!r}; it has {others}")
    return {kind: networks[kind].get(network, {}) for kind in ("params", "batch_stats")}


def imagenet_weights(experiment: Experiment, stage: Stage, network: str, method: methods.Method) -> pretrained.Weights:
    """The ImageNet weights that a network of a stage starts from.

    Raises:
      UsageError: if none are given, or the stage's layout or the normalization of RGB is not that of their training.
      CheckpointError: if they cannot be read, or are of another network.
    """
    path = experiment.imagenet_weights
    if not path:
        raise UsageError(f"{network} starts from ImageNet: set config.imagenet_weights to a file of weights")
    model = {**stage.model, **stage.models.get(network, {})}
    weights = pretrained.read(path, stage_sizes=model["stage_sizes"], width=model["width"])
    if model["layout"] != weights.layout:
        raise UsageError(
            f"stages.{stage.name}.model.layout is {model['layout']}, but {path} was trained with its strides where "
            f"{weights.source} has them: set it to {weights.layout}"
        )
    normalization = experiment.transforms.rgb_normalization
    if method.modalities[network] == "rgb" and normalization != weights.normalization:
        raise UsageError(
            f"transforms.rgb_normalization is {normalization}, but {path} was trained on RGB normalized as "
            f"{weights.normalization} ({weights.source}'s): set it to that"
        )
    return weights
