"""Buffers, windows and clock of a price-level replay, and what it hands out. No book here; the loops are in depth_sample_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.depth_batches import NO_ID
from tasks.reconstruction.depth_sample_kernels import DEPTH_CLOCK_SIZE, LAST_SIZE, T_UPDATE_ID, GridRows, TouchRows
from tasks.reconstruction.sample_kernels import (
    NEVER,
    T_AS_OF,
    T_BBO,
    T_GRID,
    T_INTERVAL,
    T_NEXT,
    T_REASON,
    T_SEQUENCE,
    T_SINCE,
    T_STALE_AFTER,
    T_STATUS,
    Windows,
    first_grid_time,
)
from tasks.schemas import NO_BOOK, REASONS

# 64 rows of two sides of 500 levels are 1.2 MB.
GRID_ROOM = 64
TOUCH_ROOM = 16_384


@dataclass(frozen=True)
class DepthSamples:
    """Rows of the grid and of the touch, in order; the buffers are valid until the next step only.

    n_grid, n_touch: how many rows are filled. A grid of fewer levels is the first 2 * levels columns of `grid`.
    """

    grid: GridRows
    touch: TouchRows
    n_grid: int
    n_touch: int


class DepthSampling:
    """What the kernels write to: buffers for `depth` levels, windows [start_ns, end_ns) ascending, and the clock."""

    def __init__(self, depth: int, interval_ns: int, windows: Sequence[tuple[int, int]], stale_after_ns: int | None) -> None:
        spans = np.array(list(windows), np.int64).reshape(-1, 2)
        if interval_ns <= 0 or (spans[:, 0] >= spans[:, 1]).any() or (spans[1:, 0] < spans[:-1, 1]).any() or (spans < 0).any():
            raise ValueError(f"an interval of {interval_ns} ns in the windows {spans.tolist()}; it must be positive, they ascending and apart")
        self.windows = Windows(start=spans[:, 0].copy(), end=spans[:, 1].copy())
        self.grid, self.touch = _grid_rows(depth), _touch_rows()
        self.last = np.full(LAST_SIZE, -1, np.int64)
        self.clock = np.zeros(DEPTH_CLOCK_SIZE, np.int64)
        self.clock[[T_AS_OF, T_SINCE]] = -1
        self.clock[[T_SEQUENCE, T_UPDATE_ID]] = NO_ID
        self.clock[T_INTERVAL] = interval_ns
        self.clock[T_STALE_AFTER] = NEVER if stale_after_ns is None else stale_after_ns
        self.clock[T_STATUS], self.clock[T_REASON] = NO_BOOK, REASONS.index("no_snapshot")
        self.clock[T_NEXT] = first_grid_time(spans[0, 0], interval_ns) if len(spans) else NEVER

    def empty(self) -> DepthSamples:
        """The filled part of the buffers; they count as empty afterwards."""
        n_grid, n_touch = int(self.clock[T_GRID]), int(self.clock[T_BBO])
        self.clock[[T_GRID, T_BBO]] = 0
        return DepthSamples(self.grid, self.touch, n_grid, n_touch)


def _whole(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def _grid_rows(depth: int) -> GridRows:
    # Columns a power of two apart would all fall into the same cache sets, and a row of 500 levels is 4,000 stores, one a column.
    room, apart = GRID_ROOM, GRID_ROOM + 8
    return GridRows(
        time=_whole(room), as_of=_whole(room), update_id=_whole(room), sequence=_whole(room),
        px=_whole(2 * depth, apart), sz=_whole(2 * depth, apart),
        price_digits=np.zeros((2 * depth, apart), np.uint8), size_digits=np.zeros((2 * depth, apart), np.uint8),
        status=np.zeros(room, np.int8), reason=np.zeros(room, np.int8), since=_whole(room),
    )  # fmt: skip


def _touch_rows() -> TouchRows:
    room = TOUCH_ROOM
    return TouchRows(
        clock=_whole(room), ts=_whole(room), cts=_whole(room), update_id=_whole(room), sequence=_whole(room), px=_whole(2, room), sz=_whole(2, room),
        status=np.zeros(room, np.int8), reason=np.zeros(room, np.int8), since=_whole(room), fresh=np.zeros(room, np.bool_),
    )  # fmt: skip
