"""Checkpoints of a stage: `latest` to continue from, `best` to use.

`latest` holds the state, packed, and in the same step folder the progress: plateau and best-score counters, the data
position (samples consumed), the length of the metrics log. `best` holds the parameters and statistics with the best
validation score, each array by its name, for whoever reads them. Both are orbax checkpoints, written asynchronously
with a manifest of checksums, and made visible by one rename; in a bucket, which knows none, by the file that is written
last. A damaged `latest` is moved into `damaged` and the one before it continued from: the same steps then give the same
state.
"""

import pathlib
import shutil
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import LatestN

from hallujax import paths
from hallujax.errors import CheckpointError
from hallujax.training import packing, processes
from hallujax.training.manifest import damage, write_manifest
from hallujax.training.sharding import lay_out
from hallujax.training.state import TrainState
from hallujax.training.summary import read_summary
from hallujax.trees import by_name

KEPT = 2  # of each kind, so that what `latest` speaks of is still there while the next pair is written
_ENTRIES = "arrays"  # beside the progress: what `packing` says is where
FOLDERS_AND_METADATA = 2**20  # bytes; on the safe side of what orbax adds to the arrays


class Checkpoints:
    """The checkpoints under one stage folder."""

    def __init__(self, directory: pathlib.Path):
        self._directory = paths.absolute(directory)
        self.noticed: list[str] = []  # lines about checkpoints that were found damaged
        processes.agree(lambda: _drop_unreadable_accounts(self._directory))
        self._latest = _manager(self._directory / "latest")
        self._best = _manager(self._directory / "best")

    def save(self, step: int, state: TrainState, progress: dict[str, Any]) -> None:
        """Starts writing the state and the progress after `step` updates."""
        self._check_room(state)
        packed, entries = packing.pack(_as_dict(state))
        progress = progress | {_ENTRIES: entries}
        self._write(
            self._latest,
            step,
            ocp.args.Composite(state=ocp.args.PyTreeSave(packed), progress=ocp.args.JsonSave(progress)),
        )

    def save_best(self, step: int, networks: dict[str, Any]) -> None:
        """Writes `{"params", "batch_stats"}` as the best so far, and waits until it is on disk.

        So a `latest` never speaks of a best that is not there.
        """
        self._check_room(networks)
        self._write(self._best, step, ocp.args.Composite(networks=ocp.args.PyTreeSave(networks)))
        self.wait()

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The latest state and progress that are whole, or None before the first save.

        Raises:
          CheckpointError: if none is whole, it cannot be read, or holds another architecture than `template`.
        """
        step = self._latest_whole()
        if step is None:
            return None
        try:
            progress = self._latest.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))["progress"]
            entries = [packing.Entry(*entry) for entry in progress.pop(_ENTRIES, [])]
            wanted = _as_dict(template)
            state = self._read_packed(step, entries, wanted) if entries else self._read_one_by_one(step, wanted)
            return TrainState(**state), progress
        except CheckpointError:
            raise
        except Exception as error:  # orbax raises many kinds for a damaged checkpoint
            raise CheckpointError(
                f"{self._directory}/latest/{step} cannot be read ({_first_line(error)}); remove it to start over"
            ) from error

    def _read_packed(self, step: int, entries: list[packing.Entry], wanted: dict[str, Any]) -> dict[str, Any]:
        self._compare(step, {entry.name: (tuple(entry.shape), entry.dtype) for entry in entries}, wanted)
        shardings = {name: leaf.sharding for name, leaf in by_name(wanted).items()}
        packed = self._read(step, packing.template(entries, shardings.__getitem__))
        arrays = packing.unpack(packed, entries)
        treedef = jax.tree.structure(wanted)
        return lay_out(treedef.unflatten([arrays[name] for name in shardings]), treedef.unflatten(shardings.values()))

    def _read_one_by_one(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """A state from before they were packed."""
        found = by_name(self._latest.item_metadata(step)["state"])
        self._compare(step, {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in found.items()}, wanted)
        return self._read(step, jax.tree.map(_abstract, wanted))

    def _read(self, step: int, template: dict[str, Any]) -> dict[str, Any]:
        return self._latest.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template)))["state"]

    def _latest_whole(self) -> int | None:
        """Sets the damaged ones after it aside; None before the first save."""
        found = dict(
            processes.agree(
                lambda: [
                    (step, damage(self._directory / "latest" / str(step))) for step in sorted(self._latest.all_steps())
                ]
            )
        )
        steps = list(found)
        whole = [step for step in steps if found[step] is None]
        if steps and not whole:
            raise CheckpointError(
                f"{self._directory}/latest/{steps[-1]} is damaged: {found[steps[-1]]}. None before it is whole; "
                f"remove the folder {self._directory.parent} to train that stage again"
            )
        for step in steps:
            if step > whole[-1]:
                aside = self._directory / "damaged" / str(step)
                if processes.is_first():
                    paths.move(self._directory / "latest" / str(step), aside)
                self.noticed.append(f"the checkpoint of step {step} is damaged ({found[step]}); it is now {aside}")
        if self.noticed:
            processes.wait("what is damaged is set aside")
            self._latest.reload()
        return whole[-1] if whole else None

    def restore_best(self, step: int | None = None, *, networks: Collection[str] | None = None) -> dict[str, Any]:
        """`{"params", "batch_stats"}` of the best validation (or of `step`), on the default device.

        Args:
          networks: those to read; all if not said. One that is not there is left out.

        Raises:
          CheckpointError: if there is none or it cannot be read.
        """
        step = processes.agree(lambda: self._best.latest_step() if step is None else step)
        if step is None:
            raise CheckpointError(f"{self._directory} holds no finished checkpoint; train that stage first")
        if what := processes.agree(lambda: damage(self._directory / "best" / str(step))):
            raise CheckpointError(
                f"{self._directory}/best/{step} is damaged: {what}; remove the folder {self._directory.parent} "
                "to train that stage again"
            )
        try:
            device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            # Not asked of the manager: in a bucket it takes what it has saved itself for unfinished, but in process 0.
            item = epath.Path(self._directory / "best" / str(step) / "networks")
            metadata = ocp.StandardCheckpointHandler().metadata(item)
            template = {
                kind: {
                    network: jax.tree.map(
                        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), tree
                    )
                    for network, tree in trees.items()
                    if networks is None or network in networks
                }
                for kind, trees in metadata.items()
            }
            args = ocp.args.Composite(
                networks=ocp.args.PyTreeRestore(
                    template,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(template),
                    partial_restore=True,
                )
            )
            return self._best.restore(step, args=args)["networks"]
        except Exception as error:
            raise CheckpointError(f"{self._directory}/best/{step} cannot be read ({_first_line(error)})") from error

    def forget_best_after(self, step: int) -> None:
        """Drops best networks later than the progress knows of: a kill fell between the two writes."""
        for later in processes.agree(lambda: list(self._best.all_steps())):
            if later > step:
                self._best.delete(later)

    def wait(self) -> None:
        """Blocks until all that was saved is whole on disk."""
        for manager in (self._latest, self._best):
            try:
                manager.wait_until_finished()
            except Exception as error:
                raise _write_error(self._directory, error) from error

    def close(self) -> None:
        """Finishes writing and releases the background threads."""
        self.wait()
        for manager in (self._latest, self._best):
            manager.close()

    def _check_room(self, tree: Any) -> None:
        """A disk that fills up under orbax leaves debris and tracebacks of its threads: better asked beforehand."""
        if paths.in_bucket(self._directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + FOLDERS_AND_METADATA
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise CheckpointError(
                f"a checkpoint in {self._directory} needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB free; "
                "earlier ones are untouched: make room and start the same command again"
            )

    def _write(self, manager: ocp.CheckpointManager, step: int, args: ocp.args.Composite) -> None:
        try:
            if not manager.save(step, args=args):
                raise RuntimeError(f"step {step} is not after step {manager.latest_step()}")
        except Exception as error:
            raise _write_error(self._directory, error) from error

    def _compare(self, step: int, found: dict[str, tuple[tuple[int, ...], str]], wanted: dict[str, Any]) -> None:
        expected = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in by_name(wanted).items()}
        differences = [f"{name} is only in the checkpoint" for name in found.keys() - expected.keys()]
        differences += [f"{name} is not in the checkpoint" for name in expected.keys() - found.keys()]
        differences += [
            f"{name} is {_described(found[name])} there and {_described(expected[name])} here"
            for name in expected.keys() & found.keys()
            if found[name] != expected[name]
        ]
        if differences:
            raise CheckpointError(
                f"{self._directory}/latest/{step} is of another architecture: {min(differences)}"
                f" ({len(differences)} differences); use another --workdir, or remove the stage's folder"
            )


def _drop_unreadable_accounts(directory: pathlib.Path) -> None:
    """Removes those of orbax's own accounts of steps over which it would not open the folder; they hold times alone."""
    if paths.in_bucket(directory):
        return
    for path in directory.glob("*/*/_CHECKPOINT_METADATA"):
        if not path.parent.name.isdigit():  # it is being written
            continue
        try:
            _ = ocp.path.step.Metadata(step=int(path.parent.name), path=epath.Path(path.parent)).commit_timestamp
        except Exception:  # of many kinds, as the damage is
            path.unlink()


def _manager(directory: pathlib.Path) -> ocp.CheckpointManager:
    # The registry lets a fresh manager read an item's metadata before anything was saved or restored through it.
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ("state", "networks"):
        registry.add(item, ocp.args.PyTreeSave, ocp.PyTreeCheckpointHandler(type_handler_registry=_written()))
        registry.add(item, ocp.args.StandardRestore, ocp.StandardCheckpointHandler())
    registry.add("networks", ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler())  # Standard reads all or nothing
    handler = ocp.JsonCheckpointHandler()
    registry.add("progress", ocp.args.JsonSave, handler)
    registry.add("progress", ocp.args.JsonRestore, handler)
    return ocp.CheckpointManager(
        directory,
        handler_registry=registry,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=LatestN(KEPT),
            create=True,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=lambda: _sign(directory)),
        ),
    )


def _written() -> ocp.type_handlers.TypeHandlerRegistry:
    """How arrays are written: without how they lie on devices, which whoever reads them says; a quarter of the work."""
    return ocp.type_handlers.create_type_handler_registry(
        (jax.Array, ocp.type_handlers.ArrayHandler(enable_write_sharding_file=False)),
        (np.ndarray, ocp.type_handlers.NumpyHandler()),
    )


def _sign(directory: pathlib.Path) -> None:
    """Called when all of a checkpoint is written, and not visible yet."""
    if jax.process_index() == 0:
        for unfinished in ocp.path.step.all_temporary_paths(directory):
            write_manifest(paths.as_path(unfinished.get()))


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {
        "step": state.step,
        "params": state.params,
        "batch_stats": state.batch_stats,
        "opt_state": state.opt_state,
    }


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _described(array: tuple[tuple[int, ...], str]) -> str:
    shape, dtype = array
    return f"{dtype}{list(shape)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _write_error(directory: pathlib.Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"a checkpoint under {directory} could not be written ({_first_line(error)}); "
        "earlier ones are untouched: make room and start the same command again"
    )


def read_networks(stage_folder: pathlib.Path, networks: Collection[str] | None = None) -> dict[str, Any]:
    """`{"params", "batch_stats"}` of a finished stage's networks, on the default device.

    Args:
      networks: as in `Checkpoints.restore_best`.

    Raises:
      CheckpointError: if there are none or they cannot be read.
    """
    checkpoints = Checkpoints(stage_folder / "checkpoints")
    try:
        return checkpoints.restore_best(read_summary(stage_folder).get("best_step"), networks=networks)
    finally:
        checkpoints.close()
