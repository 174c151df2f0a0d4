"""Grid rows gathered to whole row groups: a table of 2,000 columns costs 20 ms to make, whether it has one row or a thousand (measured)."""

from __future__ import annotations

import numpy as np

from tasks.reconstruction.depth_sample_kernels import GridRows
from tasks.reconstruction.depth_sampling import DepthSamples


class GridBuffer:
    """Room for `room` grid rows of `depth` levels: 18 KB a row at 500 levels."""

    def __init__(self, depth: int, room: int) -> None:
        levels = (2 * depth, room)
        self.rows = GridRows(
            time=np.zeros(room, np.int64), as_of=np.zeros(room, np.int64), update_id=np.zeros(room, np.int64), sequence=np.zeros(room, np.int64),
            px=np.zeros(levels, np.int64), sz=np.zeros(levels, np.int64), price_digits=np.zeros(levels, np.uint8),
            size_digits=np.zeros(levels, np.uint8), status=np.zeros(room, np.int8), reason=np.zeros(room, np.int8), since=np.zeros(room, np.int64),
        )  # fmt: skip
        self.count, self.room = 0, room

    def take(self, samples: DepthSamples, start: int) -> int:
        """Copy the grid rows from `start` on, as many as there is room for; returns how many."""
        n = min(samples.n_grid - start, self.room - self.count)
        for mine, theirs in zip(self.rows, samples.grid, strict=True):
            mine[..., self.count : self.count + n] = theirs[..., start : start + n]
        self.count += n
        return n

    def samples(self, touch: DepthSamples) -> DepthSamples:
        """What was gathered, as samples without rows of the touch; it counts as taken out."""
        n, self.count = self.count, 0
        return DepthSamples(self.rows, touch.touch, n, 0)
