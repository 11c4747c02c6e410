"""Huge pages for the C library's allocator, which only the environment of a starting process can ask for."""

import os
import sys

# glibc 2.35 and later: 1 asks for transparent huge pages wherever malloc maps memory. The thresholds keep large blocks
# on the heap instead of handing each back to the system: a training step takes and frees the same ones every time.
TUNABLES = (
    "glibc.malloc.hugetlb=1",
    "glibc.malloc.mmap_threshold=8589934592",
    "glibc.malloc.trim_threshold=17179869184",
)


def restart() -> None:
    """Starts this very command again, once, with `TUNABLES` in its environment; elsewhere than on Linux does nothing.

    A step on the CPU writes hundreds of megabytes of temporaries and spends its time on their page faults:
    `benchmarks/huge_pages.py` measures how much. Whoever sets `glibc.malloc.hugetlb` in GLIBC_TUNABLES is left alone.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or "glibc.malloc.hugetlb" in given:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (given, *TUNABLES)))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
