"""What a replay's buffers hold, in one shape, for tests."""

from __future__ import annotations

import numpy as np

from tasks.book_rows import levels_of
from tasks.reconstruction.sample_kernels import Packed, Rows


def sampled_levels(buffer: Rows | Packed, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """px, sz, ct [2 * depth, n] of the first n rows of a buffer, level * 2 + side, packed or not."""
    if isinstance(buffer, Rows):
        return buffer.px, buffer.sz, buffer.ct
    px, sz, ct = (values.transpose(2, 1, 0).reshape(values.shape[1] * values.shape[2], n) for values in levels_of(buffer.levels[:n]))
    return px, sz, ct
