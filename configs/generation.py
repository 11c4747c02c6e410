"""Depth made from RGB: by a cross-modal autoencoder, and by depth estimation after FCRN, for the two-stream model.

    hallujax train --config=configs/generation.py:mocap_rgbd,cross_subject --workdir=runs/generation

The slides report 50.52 (autoencoder) and 50.23 (FCRN) on NYUD, beside 52.90 for RGB alone.
"""

from ml_collections import ConfigDict

from configs import base, streams, two_stream

WAYS = {
    "autoencoder": ("Autoencoder", "deconvolution", "squared_error", "Autoencoder"),
    "estimation": ("Depth estimation", "up_projection", "reverse_huber", "FCRN [23] depth estimation"),
}


def add(config: ConfigDict, preset: str) -> None:
    pair = {"depth": ("two_stream", "depth"), "rgb": ("two_stream", "rgb")}
    connect = config.stages.two_stream.options.connect
    for name, (row, decoder, loss, published) in WAYS.items():
        config.stages[name] = base.stage(
            config,
            "translation",
            options={"decoder": decoder, "loss": loss, "connect": connect},
            init_from={"encoder": ("rgb", "rgb")} | pair,
        )
        config.systems[f"{row}, two-stream on generated depth"] = base.system(
            name, role="privileged", published=("admd-nyud", published)
        )
        finetuned = f"{name}_two_stream"
        config.stages[finetuned] = base.stage(
            config,
            "generated_two_stream",
            options={"decoder": decoder, "connect": connect},
            init_from={"encoder": (name, "encoder"), "decoder": (name, "decoder")} | pair,
        )
        base.finetune(config, finetuned, preset)
        config.systems[f"{row}, two-stream fine-tuned on it"] = base.system(finetuned, role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, two_stream.add, add)
