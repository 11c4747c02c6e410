"""What step 4 is worth at its own budget: two RGB streams, or one and a control, trained for as many clip-passes.

    hallujax table --config=configs/equal_budget.py:mocap_rgbd,cross_subject --workdir=runs/table --seeds 3
    hallujax compare --workdir runs/table

"[RGB + hallucination] outperforms [RGB + RGB]": distillation is more than regularisation (slides). Step 4 has behind it
depth, RGB, step 3 and two fine-tunings, 3.6 times a stream's passes. So have here two RGB streams, RGB and a stream
that starts from depth's weights and sees labels alone, and the same with label smoothing, which has no teacher.
"""

from ml_collections import ConfigDict

from configs import admd, base, baselines, hallucination, streams, two_stream

ENSEMBLE, CONTROL = 1.8, 1.6  # of a stream's epochs: 2 of the first, or RGB, depth and one of the second, make 3.6


def add(config: ConfigDict, preset: str) -> None:
    from_depth = {"rgb": ("depth", "depth")}
    for name, epochs, smoothing, init_from in (
        ("rgb_equal", ENSEMBLE, 0.0, {}),
        ("rgb2_equal", ENSEMBLE, 0.0, {}),
        ("control_equal", CONTROL, 0.0, from_depth),
        ("smoothing_equal", CONTROL, 0.1, from_depth),
    ):
        options = {"modality": "rgb"} | ({"label_smoothing": smoothing} if smoothing else {})
        config.stages[name] = base.stage(config, "single_stream", options=options, init_from=init_from)
        if not preset:  # their stages end on a plateau, or are all as long
            config.stages[name].epochs = config.training.get_ref("epochs") * epochs
    config.systems["RGB ensemble, as long as step 4"] = base.system("rgb_equal", "rgb2_equal", role="ensemble")
    config.systems["RGB + control, as long as step 4"] = base.system("rgb", "control_equal", role="rgb+control")
    config.systems["RGB + control with label smoothing, as long as step 4"] = base.system(
        "rgb", "smoothing_equal", role="smoothing"
    )


def get_config(arguments: str = "mocap_rgbd,cross_subject") -> ConfigDict:
    return base.composed(arguments, streams.add, baselines.add, two_stream.add, hallucination.add, admd.add, add)
