"""Two streams with and without multiplicative connections from depth to RGB, and what each teaches in step 3.

    hallujax train --config=configs/connections.py:mocap_rgbd,cross_subject --workdir=runs/connections

The slides draw the connections and give no number without them. The table's two streams have none, those of the presets
do; here is the other kind, with the same budget.
"""

from ml_collections import ConfigDict

from configs import base, hallucination, streams, two_stream


def add(config: ConfigDict, preset: str) -> None:
    connect = not config.stages.two_stream.options.connect
    name, row = ("connected", "with connections") if connect else ("unconnected", "without connections")
    config.stages[f"two_stream_{name}"] = base.stage(
        config,
        "two_stream",
        options={"modalities": {"depth": "depth", "rgb": "rgb"}, "connect": connect},
        init_from={"depth": ("depth", "depth"), "rgb": ("rgb", "rgb")},
    )
    base.finetune(config, f"two_stream_{name}", preset)
    config.stages[f"hallucination_{name}"] = hallucination.stage(config, preset, teacher=f"two_stream_{name}")
    config.systems[f"Two-stream {row}"] = base.system(f"two_stream_{name}")
    config.systems[f"Hallucination, its teacher {row}"] = base.system(f"hallucination_{name}", role="privileged")


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, two_stream.add, hallucination.add, add)
