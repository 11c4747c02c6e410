"""Training on clips that are read while it trains, beside training on one batch that is on the device already.

    python benchmarks/end_to_end.py                  # the demo's network: 56 pixels of 112, 16 clips of RGB and depth
    python benchmarks/end_to_end.py --quick          # to see that it runs

    synthetic   the same batch, uint8 and uint16, on the device: augmentation and encoding are part of the step
    kept        data.keep_decoded, the default, after the epochs in which every frame comes for the first time
    decoded     every frame decoded whenever it is read, as in the first epoch

The step is the library's, hallucination by default, so that both modalities are read; arms take turns (ABBA), the
ratio is clips a second over those of `synthetic`, block by block. Rows go to benchmarks/results/end_to_end.csv.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from recording import measure, spread, stamp, write
from synthetic import write_prepared
from systems import DEMO, SYSTEMS, Case, add_arguments, case_of, fresh_variables, start, step_of

from hallujax.data.pipeline import ClipLoader, training_batches
from hallujax.data.records import PreparedDataset
from hallujax.data.transforms import TransformOptions, prepare_training
from hallujax.training.sharding import make_mesh, replicated, split_over_data, to_devices

RESULTS = Path(__file__).parent / "results" / "end_to_end.csv"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "array-record", "pillow", "simplejpeg")
TRANSFORMS = TransformOptions(
    flip=0.5,
    shift=4,
    downsample=2,
    rgb_normalization="imagenet",
    depth_encoding="grey",
    depth_near=1500.0,
    depth_far=5500.0,
)


class Arm:
    """The step as the loop takes it, fed by `next_batch`."""

    def __init__(self, system: str, case: Case, next_batch, close):
        method, self._mesh = SYSTEMS[system](case.stream), make_mesh()
        self._next, self.close = next_batch, close
        self._state = jax.device_put(start(method, fresh_variables(system, case)), replicated(self._mesh))
        self._rest = (jnp.ones(()), jax.random.key(0))
        prepare = partial(prepare_training, options=TRANSFORMS)
        self._step = jax.jit(
            partial(step_of(method), prepare=prepare), donate_argnums=0, out_shardings=replicated(self._mesh)
        )

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._state, _ = self._step(self._state, self._next(self._mesh), *self._rest)
        jax.block_until_ready(self._state)


def main() -> None:
    args = parse_arguments()
    case = case_of(args)
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_prepared(Path(folder), args.clips, 30, TRANSFORMS.downsample * case.size)
        arms = {name: arm(name, dataset, case, args) for name in ("synthetic", "kept", "decoded")}
        times = measure(arms, args.blocks, args.steps)
        for each in arms.values():
            each.close()
    rows = []
    for name, ms in times.items():
        ratios = [base / mine for mine, base in zip(ms, times["synthetic"], strict=True)]
        rows.append(
            stamp(PACKAGES)
            | {"system": args.system, "clips": str(case.batch), "frame": str(case.size), "threads": str(args.threads)}
            | {"arm": name}
            | spread(ms)
            | {"clips_per_s": f"{1e3 * case.batch / statistics.median(ms):.2f}"}
            | {"ratio": f"{statistics.median(ratios):.3f}"}
            | {"ratio_min": f"{min(ratios):.3f}", "ratio_max": f"{max(ratios):.3f}"}
        )
        print(f"{name:10s} {rows[-1]['clips_per_s']:>8s} clips/s, {rows[-1]['ratio']} of synthetic")
    write(rows, args.out)


def arm(name: str, directory: Path, case: Case, args: argparse.Namespace) -> Arm:
    dataset = PreparedDataset.open(directory)
    modalities = sorted(set(SYSTEMS[args.system](case.stream).modalities.values()))
    if name == "kept":
        dataset.keep_decoded()
        for modality in modalities:
            for row, length in enumerate(dataset.length(modality)):
                dataset.read(modality, [row], [np.arange(length)])
    loader = ClipLoader(dataset, modalities, frames=case.frames, sampling="mixed", seed=0)
    batches = training_batches(loader, np.arange(len(dataset)), batch_size=case.batch, seed=0, threads=args.threads)
    if name == "synthetic":
        first = next(batches)
        batches.close()
        on_device = to_devices(first, split_over_data(make_mesh()))
        return Arm(args.system, case, lambda mesh: on_device, lambda: None)
    return Arm(args.system, case, lambda mesh: to_devices(next(batches), split_over_data(mesh)), batches.close)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=SYSTEMS, default="hallucination")
    add_arguments(parser, DEMO)
    parser.add_argument("--clips", type=int, default=128, help="in the dataset, of 30 frames")
    parser.add_argument("--threads", type=int, default=1, help="that read ahead")
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8, help="a block and arm")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.clips, args.blocks, args.steps = 6, 2, 2
    return args


if __name__ == "__main__":
    main()
