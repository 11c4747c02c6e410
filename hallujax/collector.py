"""Python's garbage collector, out of the way of what makes hundreds of thousands of objects that stay."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused(*, for_good: bool = False) -> Iterator[None]:
    """Nothing is searched for garbage meanwhile; `for_good`: nor is, ever, what is there at the end.

    Imports and traces make objects and drop few: searching them again and again took a seventh of the processor time
    from a warm start to the first step.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if for_good:
            gc.freeze()
    finally:
        if enabled:
            gc.enable()
