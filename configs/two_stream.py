"""RGB and depth together, at training and at test: with fine-tuning (ECCV 2018, step 2) and without (ADMD, row 19).

    hallujax train --config=configs/two_stream.py:mocap_rgbd,cross_subject --workdir=runs/two_stream

The upper bound of the tables: it needs the depth camera at test time.
"""

from ml_collections import ConfigDict

from configs import base, streams


def add(config: ConfigDict, preset: str) -> None:
    config.stages.two_stream = base.stage(
        config,
        "two_stream",
        # The slides draw the connections and the released code's commands switch them on for this step.
        options={
            "modalities": {"depth": "depth", "rgb": "rgb"},
            "connect": preset in ("paper", "authors_code"),
        },
        init_from={"depth": ("depth", "depth"), "rgb": ("rgb", "rgb")},
    )
    base.finetune(config, "two_stream", preset)
    config.systems["Two-stream, not fine-tuned"] = base.system(
        "depth", "rgb", published=("admd-4", "ADMD - Two-stream (no finetune)")
    )
    config.systems["Two-stream (step 2)"] = base.system("two_stream", published=("eccv18-3", "Ours - step 2"))


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, add)
