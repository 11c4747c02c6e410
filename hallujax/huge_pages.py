"""Huge pages for the C library's allocator, which only the environment of a starting process can ask for."""

import os
import sys

TUNABLE = "glibc.malloc.hugetlb=1"  # glibc 2.35 and later: transparent huge pages wherever malloc maps memory


def restart() -> None:
    """Starts this very command again, once, with `TUNABLE` in its environment; elsewhere than on Linux does nothing.

    A step on the CPU writes hundreds of megabytes of temporaries, and their page faults take a tenth of its time:
    `benchmarks/huge_pages.py` measures it. Whoever sets `glibc.malloc.hugetlb` in GLIBC_TUNABLES is left alone.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or "glibc.malloc.hugetlb" in given:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (given, TUNABLE)))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
