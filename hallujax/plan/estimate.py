"""A whole configuration on a machine that is not here: memory, time, checkpoints, and what would make it fit."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from hallujax.errors import UsageError
from hallujax.experiment import Experiment, Stage
from hallujax.plan.devices import Machine
from hallujax.plan.stage import Clip, DeviceStep, bytes_of, bytes_on_a_device, device_step
from hallujax.training.checkpoint import KEPT
from hallujax.training.sharding import mesh_shape

BANDWIDTH_REACHED = 0.85  # of the memory's, by XLA's sweeps: docs/plan.md
PEAK_REACHED = 0.6  # of the products' rate, by convolutions of a ResNet's sizes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What one stage needs. Bytes are of one device, times of one step on all of them.

    Attributes:
      name, method: of the stage.
      batch_size: clips, over all devices. clips_on_a_device: the largest share.
      parameters, statistics, optimizer, batch: bytes of the training state's parts and of the batch.
      gathered: bytes of the parameters made whole for a step, where `mesh.model` cuts them; else 0.
      temporaries: bytes of activations and gradients at their most.
      usable: bytes that there are.
      flops: of convolutions and matrix products, a device. traffic: bytes read and written, a device.
      sent: bytes that each device sends in a step.
      compute, communicate: seconds, one after the other; None where the rates are not known.
      steps, clips: of the whole stage; None if the number of training clips is not known.
      checkpoints: bytes of the arrays on disk, at the most that are kept.
      remedies: settings that would make it fit, or say that none was found; empty where it fits.
    """

    name: str
    method: str
    batch_size: int
    clips_on_a_device: int
    parameters: int
    statistics: int
    optimizer: int
    batch: int
    gathered: int
    temporaries: int
    usable: int
    flops: float
    traffic: float
    sent: float
    compute: float | None
    communicate: float | None
    steps: int | None
    clips: int | None
    checkpoints: int
    remedies: tuple[str, ...] = ()

    @property
    def memory(self) -> int:
        """Bytes in use at the most."""
        return self.parameters + self.statistics + self.optimizer + self.batch + self.gathered + self.temporaries

    @property
    def fits(self) -> bool:
        return self.memory <= self.usable

    @property
    def seconds(self) -> float | None:
        """Of a step, at least."""
        return None if self.compute is None or self.communicate is None else self.compute + self.communicate

    def hours(self, devices: int) -> float | None:
        """Device-hours of the whole stage's steps."""
        return None if self.seconds is None or self.steps is None else self.seconds * self.steps * devices / 3600


@dataclasses.dataclass(frozen=True)
class Plan:
    """All stages of a configuration on one machine: `data` copies of the state, each on `model` devices."""

    machine: Machine
    data: int
    model: int
    stages: tuple[StagePlan, ...]

    @property
    def fits(self) -> bool:
        return all(stage.fits for stage in self.stages)

    @property
    def hours(self) -> float | None:
        """Device-hours of all stages' steps."""
        each = [stage.hours(self.machine.count) for stage in self.stages]
        return None if None in each else math.fsum(each)

    @property
    def checkpoints(self) -> int:
        return sum(stage.checkpoints for stage in self.stages)


def plan(
    experiment: Experiment,
    machine: Machine,
    clip: Clip,
    clips: Mapping[str, int] | None = None,
    *,
    only: str = "",
    said: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Plans all stages, or one.

    Args:
      clip: what a batch has for every clip.
      clips: `{stage: training clips}`, if known.
      only: the name of a stage.
      said: called with the name of each stage before it is traced, which takes seconds.

    Raises:
      UsageError: for a stage that there is not, a mesh or a batch that does not fit the devices, and as
        `device_step`.
    """
    if only and only not in experiment.stages:
        raise UsageError(f"--stage={only} is not a stage; there are {', '.join(experiment.stages)}")
    data, model = mesh_shape(experiment.mesh, machine.count)
    traced: dict[str, DeviceStep] = {}

    def trace(stage: Stage, share: int) -> DeviceStep:
        # Stages that differ in what they are called, start from and how long they train are the same step.
        same = dataclasses.replace(stage, name="", init_from={}, epochs=1.0, evaluations=1, batch_size=share)
        if repr(same) not in traced:
            said(f"{stage.name}: {stage.method}, {share} clips a device")
            traced[repr(same)] = device_step(experiment, stage, clip, share, machine.accelerator.backend)
        return traced[repr(same)]

    stages = [stage for stage in experiment.order() if only in ("", stage.name)]
    return Plan(
        machine,
        data,
        model,
        tuple(_plan(stage, machine, model, (clips or {}).get(stage.name), trace) for stage in stages),
    )


def _plan(
    stage: Stage, machine: Machine, model: int, clips: int | None, trace: Callable[[Stage, int], DeviceStep]
) -> StagePlan:
    if stage.batch_size % machine.count:
        raise UsageError(
            f"stages.{stage.name}.batch_size={stage.batch_size} does not divide by the {machine.count} devices of "
            f"{machine.asked}; set --config.training.batch_size"
        )
    share = stage.batch_size // machine.count
    step = trace(stage, share)
    planned = _stage_plan(stage, machine, model, clips, share, step)
    if planned.fits:
        return planned
    return dataclasses.replace(planned, remedies=tuple(_remedies(stage, machine, model, share, planned, trace)))


def _stage_plan(
    stage: Stage, machine: Machine, model: int, clips: int | None, share: int, step: DeviceStep
) -> StagePlan:
    state, accelerator = step.state, machine.accelerator
    whole = bytes_of(state.params)
    parameters = bytes_on_a_device(state.params, model)
    trained = bytes_of({network: state.params[network] for network in step.method.players})
    sent = _sent(whole - parameters, trained, machine.count, model)
    compute = communicate = None
    if accelerator.bandwidth:
        compute = step.program.seconds(
            BANDWIDTH_REACHED * accelerator.bandwidth,
            lambda float32: PEAK_REACHED * (accelerator.float32 if float32 else accelerator.bfloat16),
        )
        communicate = sent / machine.link if machine.count > 1 else 0.0
    networks = whole + bytes_of(state.batch_stats)
    return StagePlan(
        name=stage.name,
        method=stage.method,
        batch_size=stage.batch_size,
        clips_on_a_device=share,
        parameters=parameters,
        statistics=bytes_on_a_device(state.batch_stats, model),
        optimizer=bytes_on_a_device(state.opt_state, model),
        batch=bytes_of(step.batch),
        gathered=whole if model > 1 else 0,
        temporaries=step.program.peak,
        usable=round(accelerator.usable * accelerator.memory),
        flops=step.program.flops,
        traffic=step.program.bytes,
        sent=sent,
        compute=compute,
        communicate=communicate,
        steps=None if clips is None else stage.steps(clips),
        clips=clips,
        checkpoints=KEPT * (bytes_of(state) + networks),
    )


def _sent(fetched: int, trained: int, count: int, model: int) -> float:
    """Bytes that each device sends in a step, by rings: gradients summed over all, cut parameters fetched whole.

    A ring's all-reduce sends 2 (n - 1) / n of the array, an all-gather what the others lack (Patarasuk and Yuan, 2009).
    """
    gradients = 2 * (count - 1) / count * trained
    return gradients + (fetched if model > 1 else 0)


def _remedies(
    stage: Stage,
    machine: Machine,
    model: int,
    share: int,
    planned: StagePlan,
    trace: Callable[[Stage, int], DeviceStep],
) -> list[str]:
    """Settings that would make a stage fit, each by itself."""
    found = []
    if share > 1:
        # Activations grow with the clips, gradients do not: two traces say how much of what.
        less = _stage_plan(stage, machine, model, None, share // 2, trace(stage, share // 2))
        each = (planned.memory - less.memory) / (share - share // 2)
        room = share - math.ceil((planned.memory - planned.usable) / each)
        room -= room % stage.accumulate
        if room > 0:
            found.append(f"batch_size={room * machine.count} ({room} clips a device)")
        parts = next((n for n in range(2, share + 1) if share % n == 0 and share // n <= room), None)
        if stage.accumulate == 1 and parts:
            cut = dataclasses.replace(stage, accumulate=parts)
            if _stage_plan(cut, machine, model, None, share, trace(cut, share)).fits:
                found.append(f"accumulate={parts} (micro-batches of {share // parts} clips a device)")
    step = trace(stage, share)
    for length in (2**n for n in range(1, 11)):
        if length <= model or machine.count % length:
            continue
        if _stage_plan(stage, machine, length, None, share, step).fits:
            found.append(f"mesh.model={length}")
            break
    return found or ["no single setting: combine a smaller batch_size, accumulate and mesh.model"]
