"""What the game costs: ADMD's step beside the student's alone, and players' gradients beside hand-written ones.

    python benchmarks/game.py                                         # ResNet-50, 224 pixels, 2 clips
    python benchmarks/game.py --dtype bfloat16 --batch 64             # on a GPU

    student         one RGB stream and cross-entropy: what the student would cost without a teacher
    hallucination   step 3 of ECCV 2018: a frozen teacher beside the student
    admd            ADMD: the frozen teacher, the student and the discriminator
    admd_by_hand    the same step without players: one loss, the sum of all, and a stop_gradient wherever one must stand

A training step is three forward passes, a frozen teacher one more: in theory ADMD's is 4/3 of the student's. The last
two arms compute the same, so their losses must agree over two steps before anything is timed. The arms take turns
(ABBA). Rows go to benchmarks/results/game.csv; `gflop` is XLA's own count for the compiled step.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from recording import measure, spread, stamp, write
from systems import (
    LEARNING_RATE,
    MOMENTUM,
    SYSTEMS,
    Batch,
    Case,
    HallujaxArm,
    Variables,
    add_arguments,
    case_of,
    fresh_variables,
    random_batch,
)

from hallujax import losses
from hallujax.models.streams import Networks

RESULTS = Path(__file__).parent / "results" / "game.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax")


class ByHandArm:
    """hallujax's networks and losses in a step as one writes it without players, teacher and student named."""

    def __init__(self, system: str, case: Case, variables: Variables, batch: Batch):
        modules, stop = SYSTEMS[system](case.stream).networks, jax.lax.stop_gradient
        optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)

        def loss_fn(trained, still, statistics, batch):
            nets = Networks(modules, trained | still, statistics, training=frozenset({"hallucination"}))
            real, student = nets("depth", batch["depth"]).features, nets("hallucination", batch["rgb"])
            fake = student.features
            place = jnp.broadcast_to(jnp.eye(case.frames), (*fake.shape[:2], case.frames))
            judge = partial(modules["discriminator"].apply, train=True)
            held, moving = ({"params": tree} for tree in (stop(trained["discriminator"]), trained["discriminator"]))
            fool = losses.admd_hallucination(judge(held, fake, place), batch["label"], objective="non_saturating")
            on_real, on_fake = judge(moving, real, place), judge(moving, stop(fake), place)
            told = losses.admd_real(on_real, batch["label"]) + losses.admd_fake(on_fake)
            right = (student.logits.mean(1).argmax(-1) == batch["label"]).mean()
            return fool.mean() + told.mean(), (nets.batch_stats, right)

        def step(trained, statistics, opt_state, still, batch):
            (loss, (moved, right)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
                trained, still, statistics, batch
            )
            updates, opt_state = optimizer.update(gradients, opt_state, trained)
            norms = {name: optax.tree.norm(gradients[name]) for name in gradients}  # hallujax reports them too
            return optax.apply_updates(trained, updates), moved, opt_state, (loss, right, norms)

        copied = jax.tree.map(jnp.array, variables)
        params = {name: trees["params"] for name, trees in copied.items()}
        trained, still = {n: params[n] for n in ("hallucination", "discriminator")}, {"depth": params["depth"]}
        statistics = {name: trees["batch_stats"] for name, trees in copied.items()}
        self._state = (trained, statistics, optimizer.init(trained))
        self._rest = (still, jax.device_put({name: batch[name] for name in ("rgb", "depth", "label")}))
        jitted = jax.jit(step, donate_argnums=(0, 1, 2))
        self.compiled = jitted.lower(*self._state, *self._rest).compile()

    def run(self, steps: int) -> float:
        for _ in range(steps):
            *self._state, (loss, *_) = self.compiled(*self._state, *self._rest)
        jax.block_until_ready(self._state)
        return float(loss)


ARMS = {
    "student": ("single_stream", HallujaxArm),
    "hallucination": ("hallucination", HallujaxArm),
    "admd": ("admd", HallujaxArm),
    "admd_by_hand": ("admd", ByHandArm),
}


def main() -> None:
    args = parse_arguments()
    case, arms, first = case_of(args), {}, {}
    batch = random_batch(case)
    for name, (system, kind) in ARMS.items():
        arms[name] = kind(system, case, fresh_variables(system, case), batch)
        first[name] = [arms[name].run(1), arms[name].run(1)]
        print(f"{name}: compiled, first losses {first[name]}", flush=True)
    tolerance = 1e-4 if case.dtype == "float32" else 3e-2
    for ours, by_hand in zip(first["admd"], first["admd_by_hand"], strict=True):
        if abs(ours - by_hand) > tolerance * by_hand:
            sys.exit(f"players and hand-written gradients disagree: {first}; nothing was timed")
    times = measure(arms, args.blocks, args.steps)
    gflop = {name: arm.compiled.cost_analysis()["flops"] / 1e9 for name, arm in arms.items()}
    of = {"student": "student", "hallucination": "student", "admd": "student", "admd_by_hand": "admd"}
    rows = []
    for name, ms in times.items():
        paired = [mine / theirs for mine, theirs in zip(ms, times[of[name]], strict=True)]
        rows.append(
            stamp(PACKAGES)
            | {"dtype": case.dtype, "clips": str(case.batch), "frame": str(case.size), "arm": name}
            | spread(ms)
            | {
                "gflop": f"{gflop[name]:.4f}",
                "of": of[name],
                "time_ratio": f"{statistics.median(paired):.3f}",
                "time_ratio_min": f"{min(paired):.3f}",
                "time_ratio_max": f"{max(paired):.3f}",
                "flop_ratio": f"{gflop[name] / gflop[of[name]]:.4f}",
            }
        )
        row = rows[-1]
        print(
            f"{name:14s} {row['median_ms']:>9s} ms, {row['time_ratio']} times {of[name]}"
            f" ({row['time_ratio_min']} to {row['time_ratio_max']}), operations {row['flop_ratio']} times"
        )
    write(rows, args.out)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="a block and arm")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.blocks = 2
    return args


if __name__ == "__main__":
    main()
