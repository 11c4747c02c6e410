"""The model card of an export: what the run's files say, for the people who will use it."""

import jax

from hallujax.deploy.system import TrainedSystem

USE = {
    "safetensors": """\
```python
import hallujax

prediction = hallujax.load("this/folder")("clip.mp4")
print(prediction.top(3))
```""",
    "stablehlo": """\
```python
import jax.export

program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
probabilities = program.call(frames)  # uint8 SHAPE -> float32 [B, K]
```

B is any number of clips. It runs on CPU, CUDA and TPU under jax JAX or later; `hallujax.load("this/folder")` reads it
too, and takes video files.""",
    "onnx": """\
```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(probabilities,) = session.run(None, {"frames": frames})  # uint8 SHAPE -> float32 [B, K]
```

B is any number of clips. The file's metadata name the classes; `hallujax.load("this/folder")` reads it too, and takes
video files.""",
    "saved_model": """\
```python
import tensorflow

model = tensorflow.saved_model.load("saved_model").signatures["serving_default"]
probabilities = model(frames=frames)["probabilities"]  # uint8 SHAPE -> float32 [B, K]
```

B is any number of clips.""",
}

PRECISIONS = {
    "fp32": "float32",
    "bf16": "kernels and convolutions in bfloat16, the rest in float32",
    "fp16": "kernels and convolutions in float16",
    "int8": "kernels in 8 bits, what they are multiplied with by the range that each batch has (dynamic quantization)",
}

NOTES = {
    "mocap_rgbd": "`mocap_rgbd` is rendered: one recording of motion capture a class, posed, lit and filmed "
    "synthetically. A model of it says little about filmed people."
}


def model_card(trained: TrainedSystem, to: str, precision: str, file: str, size: int) -> str:
    """MODEL_CARD.md of an export as `to`, whose `file` has `size` bytes."""
    system, facts = trained.system, trained.facts
    data, classes, transforms = facts["dataset"], system.classes, system.transforms
    height, width = system.frame_size
    weights = [stage["params"] for stage in trained.variables.values()]
    numbers = sum(leaf.size for leaf in jax.tree.leaves(weights))
    tested = " + ".join(facts["test_modalities"])
    taught = " + ".join(facts["training_modalities"])
    imagenet = f", started from ImageNet weights ({facts['imagenet_weights']})" if facts["imagenet_weights"] else ""
    shape = f"[B, {system.frames}, {height}, {width}, 3]"
    limits = [
        "It knows these classes and no others: whatever it is shown, it names one of them.",
        "The accuracies are of clips of the same dataset. Nothing is known of other cameras, people or places.",
        "One seed: another may differ by some points.",
        "The probabilities are not calibrated.",
        *([NOTES[data]] if data in NOTES else []),
    ]
    return "\n".join(
        [
            f"# {system.name}",
            "",
            "A classifier of video clips that needs one RGB camera; no network that sees another modality is in it.",
            "",
            f"- `{file}`: {numbers:,} parameters, {size / 2**20:.2f} MiB",
            f"- precision: {PRECISIONS[precision]}; batch norm folded into the convolutions",
            f"- streams: {', '.join(f'{name} (stage {stage})' for name, (stage, _) in system.streams.items())}",
            "",
            "## Use",
            "",
            USE[to].replace("SHAPE", shape).replace("JAX", jax.__version__),
            "",
            f"A clip is {system.frames} frames, evenly over it by number, its first and last included. Frames that are",
            f"not {width}x{height} are cropped to the largest centred part of that shape and resized, by means over",
            f"areas when they shrink. Normalization (`{transforms.rgb_normalization}`) and the reduction by",
            f"{transforms.downsample} are part of the model.",
            "",
            "## Classes",
            "",
            ", ".join(classes),
            "",
            "## Training",
            "",
            f"- data: `{data}`, preset `{facts['preset']}`, SHA-256 {facts['dataset_fingerprint']}",
            f"- protocol `{facts['protocol']}`, seed {facts['seed']}",
            f"- modalities seen in training: {taught}{imagenet}",
            f"- {facts['clip_passes']:,} clip-passes, those of the stages it rests on included",
            f"- hallujax {facts['versions']['hallujax']}, revision {facts['revision']}; jax {facts['versions']['jax']}",
            "",
            "## Accuracy",
            "",
            f"| clips of `{facts['protocol']}` | number | modalities | accuracy % |",
            "|---|---|---|---|",
            f"| validation | {facts['validation_clips']} | {tested} | {100 * facts['validation_accuracy']:.2f} |",
            f"| test | {facts['test_clips']} | {tested} | {100 * facts['test_accuracy']:.2f} |",
            "",
            f"Chance is {100 / len(classes):.2f} %. Validation clips chose the checkpoints, test clips nothing.",
            *(
                []
                if precision == "fp32"
                else ["The accuracies are those of float32, before its precision was lowered."]
            ),
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in limits),
            "",
            "## Licence",
            "",
            f"hallujax is Apache-2.0. The weights come from `{data}`{' and ImageNet' if imagenet else ''}, "
            "whose terms apply to them.",
            "",
        ]
    )
