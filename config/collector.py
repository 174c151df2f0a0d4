"""Python's garbage collector in a program that imports 300,000 objects which live as long as it does."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


def quick_end() -> None:
    """Have the process end without a last search for garbage among all that it holds: 1.0 s after a run (measured).

    What ends by a function registered with `atexit` still does: this one comes last when it is registered first.
    """
    atexit.register(gc.freeze)


@contextmanager
def imports() -> Iterator[None]:
    """For a block of imports: what they leave stays, and is not searched for garbage in it nor later on (0.5 s of a run, measured)."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
