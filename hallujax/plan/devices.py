"""What accelerators can do, as their makers say, and how they are asked for: `v5e-64`, `h100x8`, `cpu`."""

import dataclasses
import os
import re

from hallujax.errors import UsageError

_TPU = "https://cloud.google.com/tpu/docs/"
_DGX_A100 = "NVIDIA DGX A100 datasheet: 200 Gb/s a GPU between nodes"
_DGX_H100 = "NVIDIA DGX H100 datasheet: 400 Gb/s a GPU between nodes"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device as JAX counts them: a TPU chip (its two cores are one device from v4 on), a GPU.

    Attributes:
      backend: `tpu`, `cuda` or `cpu`.
      memory: bytes.
      usable: the share of it that JAX takes for arrays.
      bandwidth: bytes a second from and to memory.
      bfloat16: products of bfloat16, operations a second, dense.
      float32: products of float32 at JAX's default precision: bfloat16 passes on TPUs, TF32 on GPUs.
      links: bytes a second that a device sends to its neighbours: a TPU's ICI, NVLink or PCIe.
      together: devices that these links join.
      network: bytes a second that a device sends beyond, 0 where the maker does not say.
      cores: that the name of a slice counts, a device.
      source: of the numbers.
    """

    backend: str
    memory: float
    usable: float
    bandwidth: float
    bfloat16: float
    float32: float
    links: float
    together: int
    source: str
    network: float = 0.0
    cores: int = 1


def _tpu(page: str, **facts: float) -> Accelerator:
    # Google's GB are read as 1e9, a few per cent less than there is: what the runtime keeps for itself.
    return Accelerator(backend="tpu", usable=1.0, float32=facts["bfloat16"], source=_TPU + page, **facts)


def _gpu(source: str, **facts: float) -> Accelerator:
    # XLA_PYTHON_CLIENT_MEM_FRACTION: JAX takes three quarters unless told otherwise.
    return Accelerator(backend="cuda", usable=0.75, source=source, **facts)


# NVIDIA's sheets give tensor rates with sparsity, twice these, and links both ways together, twice these.
ACCELERATORS = {
    # All-reduce bandwidth of a pod, 1.1 PB/s, over its 4,096 chips.
    "v4": _tpu("v4", memory=32e9, bandwidth=1200e9, bfloat16=275e12, links=268e9, together=4096, cores=2),
    "v5e": _tpu("v5e", memory=16e9, bandwidth=819e9, bfloat16=197e12, links=200e9, together=256),
    "v5p": _tpu("v5p", memory=95e9, bandwidth=2765e9, bfloat16=459e12, links=600e9, together=6144, cores=2),
    "v6e": _tpu("v6e", memory=32e9, bandwidth=1600e9, bfloat16=918e12, links=400e9, together=256),
    "a100-40": _gpu(
        f"NVIDIA A100 datasheet (nvidia-a100-datasheet-us-nvidia-1758950-r4), SXM; {_DGX_A100}",
        memory=40e9,
        bandwidth=1555e9,
        bfloat16=312e12,
        float32=156e12,
        links=300e9,
        together=8,
        network=25e9,
    ),
    "a100-80": _gpu(
        f"NVIDIA A100 datasheet (nvidia-a100-datasheet-us-nvidia-1758950-r4), SXM; {_DGX_A100}",
        memory=80e9,
        bandwidth=2039e9,
        bfloat16=312e12,
        float32=156e12,
        links=300e9,
        together=8,
        network=25e9,
    ),
    "h100": _gpu(
        f"https://www.nvidia.com/en-us/data-center/h100/, SXM; {_DGX_H100}",
        memory=80e9,
        bandwidth=3350e9,
        bfloat16=989e12,
        float32=494e12,
        links=450e9,
        together=8,
        network=50e9,
    ),
    "h200": _gpu(
        f"https://www.nvidia.com/en-us/data-center/h200/, SXM; {_DGX_H100}",
        memory=141e9,
        bandwidth=4800e9,
        bfloat16=989e12,
        float32=494e12,
        links=450e9,
        together=8,
        network=50e9,
    ),
    "l4": _gpu(
        "https://www.nvidia.com/en-us/data-center/l4/; links: PCIe 4.0 x16",
        memory=24e9,
        bandwidth=300e9,
        bfloat16=121e12,
        float32=60e12,
        links=32e9,
        together=8,
    ),
    "rtx4090": _gpu(
        "NVIDIA Ada GPU architecture whitepaper, appendix A (products summed in float32); links: PCIe 4.0 x16",
        memory=24e9,
        bandwidth=1008e9,
        bfloat16=165e12,
        float32=82.6e12,
        links=32e9,
        together=8,
    ),
}
ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "a100": "a100-40", "4090": "rtx4090"}


@dataclasses.dataclass(frozen=True)
class Machine:
    """So many devices of one kind.

    Attributes:
      asked: as the user wrote it.
      name: a key of `ACCELERATORS`, or "cpu".
      count: devices as JAX counts them.
    """

    asked: str
    name: str
    accelerator: Accelerator
    count: int

    @property
    def link(self) -> float:
        """Bytes a second that each device sends in an all-reduce over all of them."""
        return self.accelerator.links if self.count <= self.accelerator.together else self.accelerator.network


def read_machine(asked: str) -> Machine:
    """What `--devices` asks for.

    `v5e-64` and `v6e-8` are slices of so many chips, `v4-32` and `v5p-32` of so many TensorCores, two a chip, as Google
    counts them; `h100x8` are eight GPUs, `h200` one; `cpu` is this machine's processor.

    Raises:
      UsageError: for another name, or a number that there is not.
    """
    if asked == "cpu":
        return Machine(asked, "cpu", _this_processor(), 1)
    name, number = asked.lower(), 1
    if found := re.fullmatch(r"(.+?)(?:x(\d+)|-(\d+))", name):
        parts = found.groups()
        if ALIASES.get(name, name) not in ACCELERATORS:
            name, number = parts[0], int(parts[1] or parts[2])
    name = ALIASES.get(name, name)
    if name not in ACCELERATORS:
        raise UsageError(
            f"--devices={asked} is not known: a TPU slice as v5e-64, GPUs as h100x8, or cpu, of "
            f"{', '.join(ACCELERATORS)}"
        )
    accelerator = ACCELERATORS[name]
    if number < 1 or number % accelerator.cores:
        raise UsageError(
            f"--devices={asked}: slices of {name} are named by their TensorCores, {accelerator.cores} a chip"
            if accelerator.cores > 1
            else f"--devices={asked} asks for no device"
        )
    count = number // accelerator.cores
    if count > accelerator.together and not accelerator.network:
        raise UsageError(f"--devices={asked}: no more than {accelerator.together} {name} are joined by known links")
    return Machine(asked, name, accelerator, count)


def _this_processor() -> Accelerator:
    """This machine: its memory is known; how fast it is has to be measured, by training."""
    return Accelerator(
        backend="cpu",
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        usable=1.0,
        bandwidth=0.0,
        bfloat16=0.0,
        float32=0.0,
        links=0.0,
        together=1,
        source="this machine",
    )
