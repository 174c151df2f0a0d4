"""Memory that nobody uses any more, given back to the machine: allocators keep what was freed, and the next stage has other allocators."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

import pyarrow as pa


def give_back() -> None:
    """Return freed memory of Arrow and of the C library to the machine; some ms. Measured on 30M events: 62 MB after a rebuild, 100 after drawing."""
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # other C libraries have no such function
            ctypes.CDLL(None).malloc_trim(0)
