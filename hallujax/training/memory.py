"""How much memory a process has taken at most."""

import resource
import sys

import jax


def peak_memory() -> dict[str, int | None]:
    """MiB since the process started: `process`, its resident set, and `device`, of its fullest device.

    None for a device that does not say, such as the CPU, whose arrays are the process's. Stages that one process trains
    one after the other share a peak: the largest so far.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    told = [value for value in found if value is not None]
    return {
        "process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20,
        "device": max(told) >> 20 if told else None,
    }
