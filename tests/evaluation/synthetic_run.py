"""Writes a run folder such as `hallujax demo` leaves, with invented numbers, in a fraction of a second."""

import json

import numpy as np

from data_prep import writer

METHODS = {  # method: (stages whose logits are averaged, tested on, accuracy to aim at, published)
    "depth": (("depth",), ("depth",), 0.93, 70.53),
    "rgb": (("rgb",), ("rgb",), 0.45, 67.95),
    "rgb_ensemble": (("rgb", "rgb2"), ("rgb",), None, None),
    "control": (("control",), ("rgb",), 0.66, None),
    "rgb_control": (("rgb", "control"), ("rgb",), None, None),
    "two_stream": (("two_stream",), ("rgb", "depth"), 0.94, 79.73),
    "hallucination": (("hallucination",), ("rgb",), 0.72, 71.93),
    "hallucination_rgb": (("hallucination_rgb",), ("rgb",), 0.75, 73.42),
    "admd": (("admd",), ("rgb",), 0.7, 67.57),
    "admd_two_stream": (("admd", "rgb"), ("rgb",), None, 73.11),
}
ORIGINS = {
    "control": {"rgb": ["depth", "depth"]},
    "two_stream": {"depth": ["depth", "depth"], "rgb": ["rgb", "rgb"]},
    "hallucination": {"depth": ["two_stream", "depth"], "hallucination": ["two_stream", "depth"]},
    "hallucination_rgb": {"hallucination": ["hallucination", "hallucination"], "rgb": ["two_stream", "rgb"]},
    "admd": {"depth": ["depth", "depth"], "hallucination": ["depth", "depth"]},
}


def write_run(folder, *, classes=("jump", "kick", "walk"), clips=60, seeds=(0,), stages=None, data=True):
    """Only `stages` (all by default) leave a folder; rows that rest on others have no number."""
    classes, label = list(classes), np.arange(clips) % len(classes)
    ids = np.array([f"{classes[k]}-s{i // 9:02}-c{i % 3}-{i:04}" for i, k in enumerate(label)], "S48")
    trained = [name for name in [*METHODS, "rgb2"] if name in METHODS and len(METHODS[name][0]) == 1] + [
        "rgb2"
    ]
    present = [name for name in trained if stages is None or name in stages]
    scores = {}
    for seed in seeds:
        for number, name in enumerate(present):
            draw = np.random.default_rng([seed, number])
            scores[seed, name] = _logits(draw, label, len(classes), METHODS.get(name, METHODS["rgb"])[2])
            _write_stage(
                folder / f"seed{seed}" / name, name, draw, ids, label, scores[seed, name], len(classes)
            )
    rows, results = [], []
    for method, (members, modalities, _, published) in METHODS.items():
        accuracies = {}
        for seed in seeds:
            if all((seed, member) in scores for member in members):
                logits = np.mean([scores[seed, member] for member in members], axis=0)
                accuracies[seed] = float((logits.argmax(1) == label).mean())
                results.append(
                    {
                        "method": method,
                        "test_modalities": list(modalities),
                        "seed": seed,
                        "accuracy": accuracies[seed],
                        "test_clips": clips,
                    }
                )
        values = list(accuracies.values())
        rows.append(
            {
                "method": method,
                "test_modalities": list(modalities),
                "accuracies": accuracies,
                "mean": float(np.mean(values)) if values else None,
                "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "clip_passes": 12000 * len(members),
                "published": {"ntu_cross_subject": published},
                "note": "mean of the logits" if len(members) > 1 else "",
            }
        )
    table = {
        "dataset": "mocap_rgbd",
        "protocol": "cross_subject",
        "preset": "quick",
        "classes": classes,
        "rows": rows,
        "command": "hallujax demo --out demo",
        "seconds": 571.3,
    }
    systems = [{"name": method, "stages": list(entry[0])} for method, entry in METHODS.items()]
    run = {
        "config": {"seed": 0, "systems": systems, "data": {"dataset": "mocap_rgbd"}},
        "versions": {"jax": "0"},
    }
    for name, value in (("table", table), ("results", results), ("run", run)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    if data:
        write_dataset(folder / "data" / "mocap_rgbd", classes, ids[:9], label[:9])
    return folder


def write_dataset(target, classes, ids, label, frames=6, size=48):
    """A disc that moves before a wall: RGB and depth, with a frame of no return around the picture."""
    kinds = {"rgb": writer.Modality("jpeg", (size, size, 3)), "depth": writer.Modality("png16", (size, size))}
    index = writer.clip_index(kinds, len(ids))
    index["clip"], index["label"] = ids, label
    for name in kinds:
        index[f"{name}_first"], index[f"{name}_length"] = np.arange(len(ids)) * frames, frames
    draw, grid = np.random.default_rng(0), np.mgrid[:size, :size]

    def clips():
        for i, clip in enumerate(ids):
            at = np.stack([np.full(frames, size * (0.3 + 0.05 * i)), np.linspace(0.2, 0.8, frames) * size], 1)
            disc = ((grid[None] - at[:, :, None, None]) ** 2).sum(1) < (size / 6) ** 2
            depth = np.where(disc, 2200, 3400) + draw.normal(0, 15, disc.shape)
            depth[:, :2] = 0
            depth[draw.random(disc.shape) < 0.01] = 0
            rgb = np.where(disc[..., None], (200, 90, 60), (90, 120, 140)) + draw.normal(
                0, 6, (*disc.shape, 3)
            )
            yield clip.decode(), {"rgb": rgb.clip(0, 255).astype(np.uint8), "depth": depth.astype(np.uint16)}

    partial = target.with_name("partial")
    writer.write_shard(partial, target.name, kinds, 0, 1, clips())
    info = {"classes": list(classes), "frame_size": [size, size], "preset": "tiny"}
    writer.finish(partial, target, target.name, kinds, 1, index, info, "discs before a wall")


def _logits(draw, label, classes, accuracy):
    """Logits that are right for about `accuracy` of the clips, and unsure when wrong."""
    logits = draw.normal(0, 0.3, (len(label), classes)).astype(np.float32)
    hit = draw.random(len(label)) < accuracy
    other = (label + draw.integers(1, classes, len(label))) % classes
    logits[np.arange(len(label)), np.where(hit, label, other)] += np.where(hit, 3.0, 1.5)
    return logits


def _write_stage(folder, name, draw, ids, label, logits, classes):
    folder.mkdir(parents=True)
    adversarial = name == "admd"
    terms = ("student/fool", "discriminator/real", "discriminator/fake") if adversarial else (f"{name}/ce",)
    lines = []
    for step in range(50, 1001, 50):
        fall = np.exp(-step / 400)
        values = {
            term: float((1 + i / 3) * fall + 0.3 + draw.normal(0, 0.04)) for i, term in enumerate(terms)
        }
        lines.append(
            {"step": step, "clip_passes": 12 * step, **values, "loss/all": 1.0, "gradient_norm/x": 2.0}
        )
        if step % 200 == 0:
            lines.append({"step": step, "validation/accuracy": float(1 - fall * 0.9), "validation/clips": 30})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.savez(folder / "predictions_test.npz", clip=ids, label=label, logits=logits)
    stage = {
        "name": name,
        "method": name,
        "networks": {"depth": "depth", "hallucination": "rgb"} if adversarial else {name: "rgb"},
        "players": {"hallucination": "student"} if adversarial else {name: name},
        "init_from": ORIGINS.get(name, {}),
        "steps": 1000,
        "batch_size": 12,
        "clip_passes": 12000,
        "test_modalities": list(METHODS.get(name, METHODS["rgb"])[1]),
        "parameters": 1234567,
        "seconds": 61.5,
        "best_step": 800,
        "best_validation_accuracy": 0.88,
    }
    (folder / "stage.json").write_text(json.dumps(stage))
