"""Writes a run folder such as `hallujax demo` leaves, with invented numbers, in a fraction of a second."""

import json

import numpy as np

from data_prep import writer

SYSTEMS = {  # row of the table: stages whose logits are averaged, published
    "Depth": (("depth",), 70.44),
    "RGB": (("rgb",), 66.52),
    "RGB ensemble": (("rgb", "rgb2"), None),
    "RGB from depth (control)": (("control",), None),
    "RGB + control": (("rgb", "control"), None),
    "Two-stream (step 2)": (("two_stream",), 79.73),
    "Hallucination (step 3)": (("hallucination",), 71.93),
    "Hallucination + RGB (step 4)": (("step4",), 73.42),
    "ADMD hallucination": (("admd",), 67.57),
    "ADMD two-stream": (("admd", "rgb"), 73.11),
}
STAGES = {  # tested on, accuracy to aim at, {network: (stage, its network)}
    "depth": (["depth"], 0.93, {}),
    "rgb": (["rgb"], 0.45, {}),
    "rgb2": (["rgb"], 0.45, {}),
    "control": (["rgb"], 0.66, {"rgb": ["depth", "depth"]}),
    "two_stream": (["rgb", "depth"], 0.94, {"depth": ["depth", "depth"], "rgb": ["rgb", "rgb"]}),
    "hallucination": (["rgb"], 0.72, {n: ["two_stream", "depth"] for n in ("depth", "hallucination")}),
    "step4": (["rgb"], 0.75, {"hallucination": ["hallucination", "hallucination"]}),
    "admd": (["rgb"], 0.7, {n: ["depth", "depth"] for n in ("depth", "hallucination")}),
}


def write_run(folder, *, classes=("jump", "kick", "walk"), clips=60, seeds=(0,), stages=None, data=True, frames=6):
    """Only `stages` (all by default) leave a folder; rows that rest on others have no number."""
    classes, label = list(classes), np.arange(clips) % len(classes)
    ids = np.array([f"{classes[k]}-s{i // 9:02}-c{i % 3}-{i:04}" for i, k in enumerate(label)], "S48")
    scores = {}
    for seed in seeds:
        for number, name in enumerate(STAGES if stages is None else stages):
            draw = np.random.default_rng([seed, number])
            scores[seed, name] = _logits(draw, label, len(classes), STAGES[name][1])
            _write_stage(folder / f"seed{seed}" / name, draw, ids, label, scores[seed, name])
    rows, results = [], []
    for method, (members, published) in SYSTEMS.items():
        modalities = list(dict.fromkeys(m for member in members for m in STAGES[member][0]))
        accuracies = {}
        for seed in seeds:
            if all((seed, member) in scores for member in members):
                logits = np.mean([scores[seed, member] for member in members], axis=0)
                accuracies[seed] = float((logits.argmax(1) == label).mean())
                results.append(
                    {
                        "method": method,
                        "test_modalities": modalities,
                        "seed": seed,
                        "accuracy": accuracies[seed],
                        "test_clips": clips,
                    }
                )
        values = list(accuracies.values())
        rows.append(
            {
                "method": method,
                "test_modalities": modalities,
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
    systems = [{"name": method, "stages": list(entry[0])} for method, entry in SYSTEMS.items()]
    run = {
        "config": {"seed": 0, "systems": systems, "data": {"dataset": "mocap_rgbd"}},
        "versions": {"jax": "0"},
    }
    for name, value in (("table", table), ("results", results), ("run", run)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    if data:
        write_dataset(folder / "data" / "mocap_rgbd", classes, ids[:9], label[:9], frames)
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
            rgb = np.where(disc[..., None], (200, 90, 60), (90, 120, 140)) + draw.normal(0, 6, (*disc.shape, 3))
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


def _write_stage(folder, draw, ids, label, logits):
    folder.mkdir(parents=True)
    name = folder.name
    modalities, _, init_from = STAGES[name]
    adversarial, taught = name == "admd", name in ("admd", "hallucination")
    single = name in ("depth", "rgb", "rgb2", "control")
    seen = {"depth": "depth", "hallucination": "rgb"} if taught else {m: m for m in modalities}
    terms = ("student/fool", "discriminator/real", "discriminator/fake") if adversarial else (f"{name}/ce",)
    lines = []
    for step in range(50, 1001, 50):
        fall = np.exp(-step / 400)
        values = {term: float((1 + i / 3) * fall + 0.3 + draw.normal(0, 0.04)) for i, term in enumerate(terms)}
        lines.append(
            {
                "step": step,
                "clip_passes": 12 * step,
                **values,
                "loss/all": 1.0,
                "train/accuracy": float(1 - fall),
                "gradient_norm/x": 2.0,
            }
        )
        if step % 200 == 0:
            lines.append({"step": step, "validation/accuracy": float(1 - fall * 0.9), "validation/clips": 30})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.savez(folder / "predictions_test.npz", clip=ids, label=label, logits=logits)
    stage = {
        "name": name,
        "method": "single_stream" if single else name,
        "networks": seen,
        "players": {"hallucination": "student"} if taught else {network: network for network in seen},
        "init_from": init_from,
        "steps": 1000,
        "batch_size": 12,
        "clip_passes": 12000,
        "test_modalities": modalities,
        "parameters": {next(iter(seen)): 34567} if single else {"depth": 1200000, "hallucination": 34567},
        "seconds": 61.5,
        "best_step": 800,
        "best_validation_accuracy": 0.88,
    }
    (folder / "stage.json").write_text(json.dumps(stage))
