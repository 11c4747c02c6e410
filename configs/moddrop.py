"""ModDrop (Neverova et al.): RGB and depth together, either blanked at times, tested on both and on RGB alone.

    hallujax train --config=configs/moddrop.py:mocap_rgbd,cross_subject --workdir=runs/moddrop

The slides report 58.93 (both) and 53.73 (RGB) on NYUD, beside 57.39 for the plain two-stream; nothing on NTU RGB+D.
"""

from ml_collections import ConfigDict

from configs import base, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.moddrop = base.stage(
        config,
        "moddrop",
        options={
            "modalities": {"depth": "depth", "rgb": "rgb"},
            "keep": 0.9,
            "keep_values": 0.8 if preset else 1.0,  # from scratch, 0.8 spoils both streams: docs/results.md
            "draw": "batch" if preset == "authors_code" else "clip",
        },
        init_from={"depth": ("depth", "depth"), "rgb": ("rgb", "rgb")},
    )
    base.finetune(config, "moddrop", preset)
    published = ("admd-nyud", "ModDrop [22]")
    config.systems["ModDrop"] = base.system("moddrop", published=published, test_modalities=("rgb", "depth"))
    config.systems["ModDrop, RGB alone"] = base.system(
        "moddrop", role="privileged", published=published, test_modalities=("rgb",)
    )


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
