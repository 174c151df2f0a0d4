"""Python's garbage collector in a program that imports 300,000 objects which live as long as it does."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class QuickEnd:
    """Once `status` is set, the process ends with it and without a last search for garbage in all that it holds: 1.0 s after a run (measured).

    Threads are waited for and functions registered with `atexit` are called as ever, if they are registered after this object was made. Without
    a status, as after an error that nobody caught, the process ends as it would by itself.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        atexit.register(self._end)

    def _end(self) -> None:
        if self.status is None:
            return
        logging.shutdown()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads any more: Python's own end tells so, with a status of its own
            return
        os._exit(self.status)


@contextmanager
def imports() -> Iterator[None]:
    """For a block of imports: what they leave stays, and is not searched for garbage in it nor later on (0.5 s of a run, measured)."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
