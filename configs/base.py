"""Every configuration key, once, with what it means; the other files here say which stages there are.

A file in this folder is used as `--config=configs/FILE.py:DATASET,PROTOCOL`, and any key is overridden by
`--config.KEY=VALUE`. Keys under `training` are the defaults of every stage; `--config.stages.NAME.KEY=VALUE` changes
one stage alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

DATASETS = (
    "mocap_rgbd",
    "rgbd_objects",
    "folder",
    "ntu_rgbd60",
    "ntu_rgbd120",
    "nw_ucla",
    "uwa3dii",
    "nyud_objects",
)
PRESETS = ("", "paper", "authors_code")


def parse(arguments: str) -> tuple[str, str, str]:
    """`DATASET,PROTOCOL[,PRESET]` as its three parts.

    The presets say what to do where sources disagree: `paper` follows the slides, `authors_code` the released
    TensorFlow code. Without one the values are hallujax's own, for small networks from scratch.
    """
    dataset, protocol, preset, *more = (*arguments.split(","), "", "")
    if any(more):
        raise ValueError(f"too many arguments in {arguments!r}; they are DATASET,PROTOCOL,PRESET")
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; known: {', '.join(DATASETS)}")
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(PRESETS[1:])}")
    return dataset, protocol or "cross_subject", preset


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    """The keys that all configurations share; `arguments` as in `parse`."""
    dataset, protocol, preset = parse(arguments)
    config = ConfigDict()
    config.seed = 0  # of everything random
    config.imagenet_weights = ""  # a file or folder of weights, docs/weights.md; needed by init_from=("imagenet", "")
    config.log_every = 10  # updates between two lines of metrics.jsonl
    config.checkpoint_every = 200  # updates between two checkpoints

    config.mesh = ConfigDict()
    config.mesh.data = 0  # copies of the training state; 0 for as many as the devices allow
    config.mesh.model = 1  # devices that share a copy, each with a part of every large array

    config.data = ConfigDict()
    config.data.directory = "data/standard"  # holds the prepared datasets, a folder each
    config.data.dataset = dataset
    config.data.protocol = protocol  # cross_subject, cross_view, ...: data/protocols.py
    config.data.frames = 5  # T, of every clip (both papers)
    config.data.labelled = 1.0  # share of the training clips, of every class, whose label is known
    config.data.label_noise = 0.0  # share of these that have another class's label
    config.data.rgb_noise = 0.0  # standard deviation, of 255, in training and test alike
    config.data.sampling = "mixed"  # training: uniform or random frames with probability one half each
    config.data.short_clips = "repeat"  # clips of fewer frames: repeat or refuse
    config.data.evaluation_batch_size = 32  # clips
    config.data.threads = 1  # that read ahead
    config.data.keep_decoded = True  # in memory, those that are read: 2.7 GB of `standard`, 29 GB of `full`
    config.data.bad_records = "stop"  # training: at a damaged record stop, or skip its clip (0.1 % of them at most)

    config.transforms = ConfigDict()
    config.transforms.flip = 0.5  # probability of a horizontal flip, one draw a clip
    config.transforms.shift = 4  # pixels; the released code has none
    config.transforms.downsample = 2  # factor: the streams see 56x56 of `standard`'s 112x112
    config.transforms.rgb_normalization = "imagenet"  # imagenet, vgg or none
    config.transforms.depth_encoding = "grey"  # jet, metres, nearness, raw, normals, hha, picture: docs/depth.md
    config.transforms.depth_near = 1500.0  # millimetres, range of the encoding
    config.transforms.depth_far = 5500.0
    config.transforms.depth_camera = ()  # of normals and hha, if the dataset does not know it: docs/depth.md

    if dataset in ("nw_ucla", "uwa3dii"):
        config.transforms.depth_near, config.transforms.depth_far = 800.0, 4000.0  # what a Kinect of 2010 is made for
    if dataset == "rgbd_objects":
        config.data.frames = 1
        config.transforms.depth_near, config.transforms.depth_far = 1000.0, 5000.0
    if dataset == "nyud_objects":
        config.data.frames = 1
        config.transforms.depth_encoding = "picture"  # HHA

    config.training = ConfigDict()
    config.training.model = ConfigDict()  # VideoResNet's arguments
    config.training.model.stage_sizes = (2, 2, 2, 2)  # ResNet-50 is (3, 4, 6, 3), width 64
    config.training.model.width = 16
    config.training.model.bottleneck = 128  # features before the classifier; 0 for none
    config.training.model.temporal_kernel = 5  # frames
    config.training.model.temporal_init = "identity"  # or authors_code, which is not one
    config.training.model.layout = "torchvision"  # or slim
    config.training.model.dtype = "float32"  # of the convolutions; or bfloat16
    config.training.model.batch_norm_momentum = 0.9  # torchvision's; slim's is 0.997
    config.training.optimizer = ConfigDict()
    config.training.optimizer.name = "adam"  # or sgd
    config.training.optimizer.learning_rate = 2e-3
    config.training.optimizer.schedule = "cosine"  # or constant
    config.training.optimizer.warmup = 0.05  # fraction of the steps
    config.training.optimizer.momentum = 0.9  # sgd's
    config.training.optimizer.weight_decay = 0.0  # the released code declares 1e-4 and never applies it
    config.training.optimizer.clip = 0.0  # largest gradient norm of a player; 0 for none
    config.training.plateau = ConfigDict()
    config.training.plateau.patience = 0  # evaluations without a better score before the learning rate falls; 0 never
    config.training.plateau.factor = 0.1  # of the learning rate
    config.training.plateau.drops = 1  # and the plateau after so many ends the stage
    config.training.epochs = 15.0  # the most that a stage trains
    config.training.batch_size = 16  # clips, over all devices
    config.training.evaluations = 10  # on validation data, over the stage
    config.training.select = "best"  # or last
    config.training.ghost_batch = 0  # clips that batch norm normalises together; 0 for the whole batch
    config.training.accumulate = 1  # micro-batches that a batch is computed in, one after the other
    config.training.remat = False  # compute units again for the gradients: less memory, more time
    config.training.skipped_steps = 10  # in a row, since they were not finite; with one more the stage stops

    if preset == "authors_code":
        config.transforms.shift = 0
        config.transforms.downsample = 1
        config.transforms.rgb_normalization = "vgg"
        config.training.model.bottleneck = 0  # ADMD's streams have one: configs/admd.py
        config.training.model.temporal_kernel = 3
        config.training.model.temporal_init = "authors_code"
        config.training.model.layout = "slim"
        config.training.model.batch_norm_momentum = 0.997
        config.training.optimizer.learning_rate = 1e-3
        config.training.optimizer.schedule = "constant"
        config.training.optimizer.warmup = 0.0
        config.training.batch_size = 5
        config.training.epochs = 40.0
        config.training.evaluations = 40
    elif preset == "paper":
        config.transforms.shift = 0
        config.transforms.downsample = 1
        config.training.model.bottleneck = 0  # ADMD's depth stream has one: configs/admd.py
        config.training.optimizer.name = "sgd"
        config.training.optimizer.learning_rate = 1e-2  # not stated
        config.training.optimizer.schedule = "constant"
        config.training.optimizer.warmup = 0.0
        config.training.plateau.patience = 5  # "until validation accuracy reaches a plateau": how long is not stated
        config.training.epochs = 100.0
        config.training.evaluations = 100

    config.stages = ConfigDict(sort_keys=False)
    config.systems = ConfigDict(sort_keys=False)  # rows of the table, in order
    return config


def composed(arguments: str, *parts: Callable[[ConfigDict, str], None]) -> ConfigDict:
    """The shared keys and, in this order, the stages and systems that each part adds under the preset."""
    config, preset = get_config(arguments), parse(arguments)[2]
    for add in parts:
        add(config, preset)
    return config


def stage(
    config: ConfigDict,
    method: str,
    *,
    options: Mapping[str, Any] | None = None,
    init_from: Mapping[str, tuple[str, str]] | None = None,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    learning_rates: Mapping[str, float] | None = None,
    rounds: tuple[tuple[str, ...], ...] = (),
    unlabelled: bool = False,
) -> ConfigDict:
    """One stage: `method` with its `options`, started from other stages' networks, on `config.training`'s defaults.

    The defaults are followed until overridden: `--config.training.epochs=5` reaches every stage that does not say
    otherwise.
    """
    block = _following(config.training)
    block.method = method
    block.options = _ordered(options or {})
    block.init_from = _ordered({network: tuple(source) for network, source in (init_from or {}).items()})
    block.models = _ordered(models or {})  # {network: {key of model: value}} where a stream is another than `model`
    block.optimizer.learning_rates = ConfigDict(dict(learning_rates or {}))  # {player: learning rate}
    block.rounds = rounds  # which players move together, in order; empty for all at once
    block.unlabelled = unlabelled  # train on the clips without a label too: for methods with a teacher
    return block


def finetune(config: ConfigDict, name: str, preset: str) -> None:
    """Shortens and slows a stage whose streams are trained already; the sources' presets do no such thing."""
    if not preset:
        config.stages[name].epochs = config.training.get_ref("epochs") * 0.3
        config.stages[name].optimizer.learning_rate = config.training.optimizer.get_ref("learning_rate") * 0.15


def system(
    *stages: str,
    role: str = "other",
    published: tuple[str, str] = ("", ""),
    test_modalities: tuple[str, ...] = (),
) -> ConfigDict:
    """A row of the table: the mean of the stages' clip logits; the rest as in `hallujax.experiment.System`."""
    return ConfigDict(
        {"stages": stages, "role": role, "published": published, "test_modalities": test_modalities},
    )


def _ordered(mapping: Mapping[str, Any]) -> ConfigDict:
    """In the order of declaration: the first of two connected streams gives, the second takes."""
    ordered = ConfigDict(sort_keys=False)
    for key, value in mapping.items():
        ordered[key] = _ordered(value) if isinstance(value, Mapping) else value
    return ordered


def _following(block: ConfigDict) -> ConfigDict:
    return ConfigDict(
        {
            key: _following(value) if isinstance(value, ConfigDict) else block.get_ref(key).identity()
            for key, value in block.items()
        }
    )
