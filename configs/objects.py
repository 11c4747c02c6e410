"""Object recognition from single images: the table with the object networks of the TPAMI article.

    hallujax prepare rgbd_objects --preset quick --out data/standard
    hallujax train --config=configs/objects.py:rgbd_objects,unseen_instances --workdir=runs/objects

    hallujax prepare nyud_objects --raw RAW --out data/standard --size 224
    hallujax train --config=configs/objects.py:nyud_objects,official --workdir=runs/nyud

One image a clip, a bottleneck that is a convolution over the whole last map (7x7 at 224 pixels), the deep
discriminator, no temporal position. The slides report 57.52 for ADMD on NYUD, beside 52.90 for RGB, 54.14 for two RGB
streams, 57.39 for RGB and depth, and 55.94 for the ECCV paper's method, without saying which of its steps. Nothing was
trained on NYUD here.
"""

from ml_collections import ConfigDict

from configs import (
    admd,
    adversarial,
    base,
    baselines,
    controls,
    generation,
    hallucination,
    moddrop,
    streams,
    two_stream,
)

_PUBLISHED = {
    "Depth": "Depth alone",
    "RGB": "RGB alone",
    "RGB ensemble": "RGB ensemble",
    "Two-stream (step 2)": "Two-stream (average preds.)",
    "Hallucination + RGB (step 4)": "Garcia et al.",
    "ADMD two-stream": "Ours (ADMD)",
    "Autoencoder, two-stream on generated depth": "Autoencoder",
    "Depth estimation, two-stream on generated depth": "FCRN [23] depth estimation",
}
# (stage, learning rate, batch, updates) in the released NYUD code; its training part has 2,186 crops.
_NYUD_CODE = (
    ("depth", 1e-4, 64, 2000),
    ("rgb", 1e-4, 64, 2000),
    ("rgb2", 1e-4, 64, 2000),
    ("two_stream", 1e-6, 32, 1000),
    ("moddrop", 1e-5, 32, 1000),
    ("admd", 1e-6, 64, 5000),
    ("adversarial_least_squares", 1e-6, 64, 10_000),
    ("autoencoder", 1e-4, 32, 10_000),
)
_NYUD_CROPS = 2186


def get_config(arguments: str = "rgbd_objects,unseen_instances") -> ConfigDict:
    config = base.get_config(arguments)
    dataset, _, preset = base.parse(arguments)
    config.data.frames = 1
    config.data.sampling = "uniform"
    config.data.keep_decoded = dataset != "nyud_objects"  # 224x224: 1.4 GB
    config.transforms.downsample = 1
    if preset:
        config.transforms.flip = 0.0  # "no augmentation" in the released code
    config.training.model.bottleneck = 128
    config.training.model.bottleneck_pooling = "convolution"  # over the whole last map
    config.training.model.bottleneck_norm = not preset  # without, RGB from scratch hardly learns: docs/results.md
    config.training.model.temporal_kernel = 1  # there is one frame
    config.training.model.temporal_init = "identity"
    for part in (streams, baselines, two_stream, hallucination, moddrop, admd, adversarial, generation, controls):
        part.add(config, preset)
    if not preset:
        _small_discriminator(config)
    for stage in config.stages.values():
        stage.model.bottleneck = config.training.model.get_ref("bottleneck").identity()  # in every stream
        if stage.method in ("admd", "adversarial"):
            stage.options.task = stage.options.get("task", "object")
            stage.options.position = False
            stage.options.discriminator_batch_norm = False
            stage.options.discriminator_weight = 1.0
    if preset == "authors_code":
        _as_released(config)
    for name, row in config.systems.items():
        method = _PUBLISHED.get(name)
        row.published = ("admd-nyud", method) if method else row.published if "ModDrop" in name else ("", "")
    return config


def _small_discriminator(config: ConfigDict) -> None:
    """ADMD with the discriminator of the action networks; the released one of objects has nine times a small stream's
    parameters.
    """
    name = "admd_small_discriminator"
    config.stages[name] = admd.stage(config, "", options={"objective": "non_saturating", "task": "action"})
    config.systems["ADMD hallucination, a small discriminator"] = base.system(name, role="privileged")
    config.systems["ADMD two-stream, a small discriminator"] = base.system(name, "rgb", role="privileged")


def _as_released(config: ConfigDict) -> None:
    """Rates, batches and lengths of the NYUD code; the discriminator moves first, the teacher is the two-stream's."""
    for name in ("ADMD depth with bottleneck", "ADMD RGB"):  # of the action code
        del config.systems[name]
    for name in admd.teacher("authors_code"):
        del config.stages[name]
    for name, rate, batch, updates in _NYUD_CODE:
        stage = config.stages[name]
        stage.optimizer.learning_rate = rate
        stage.batch_size = batch
        stage.epochs = updates * batch / _NYUD_CROPS
    for stage in config.stages.values():
        if stage.method in ("admd", "adversarial"):
            stage.rounds = (("discriminator",), ("student",))
            stage.init_from = {"depth": ("two_stream", "depth"), "hallucination": ("two_stream", "depth")}
    config.systems["ADMD two-stream"].stages = ("admd", "rgb")
    for stage in config.stages.values():
        if "connect" in stage.options:
            stage.options.connect = False
