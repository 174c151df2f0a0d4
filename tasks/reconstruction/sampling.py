"""Buffers, windows and clock that every replay shares, and what a batch gives. No book here; the loops are in sample_kernels.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.book_rows import PACKED_WORDS, empty_levels
from tasks.reconstruction.sample_kernels import (
    CLOCK_SIZE,
    LAST_SIZE,
    NEVER,
    T_AS_OF,
    T_BBO,
    T_GRID,
    T_INTERVAL,
    T_NEXT,
    T_NOW,
    T_REASON,
    T_ROWS,
    T_SEQUENCE,
    T_SINCE,
    T_STALE_AFTER,
    T_STATUS,
    T_TRADES,
    Grid,
    Packed,
    Rows,
    Spans,
    Top,
    Trades,
    Windows,
    first_grid_time,
    grid_until,
    run_on,
)
from tasks.schemas import F_LAST, F_SNAPSHOT, NO_BOOK, UNDEF_PRICE, VALID

GRID_ROOM = 8_192


@dataclass
class Samples:
    """What one batch gave. events: the batch's columns plus `clock` and `fresh`, see Sampling.fresh; the buffers are valid until the next
    step only.

    Counts n_rows, n_bbo, n_grid, n_trades say how much of each buffer is filled.
    """

    events: dict[str, np.ndarray]
    rows: Packed
    bbo: Rows
    grid: Grid
    trades: Trades
    n_rows: int
    n_bbo: int
    n_grid: int
    n_trades: int


def _rows(depth: int, room: int) -> Rows:
    # Columns a power of two apart would all fall into the same cache sets: a row of ten levels is 60 stores, one a column.
    apart = room + 72
    return Rows(
        px=np.full((2 * depth, apart), UNDEF_PRICE, np.int64),  # what a shallower source never writes stays empty
        sz=np.zeros((2 * depth, apart), np.int64),
        ct=np.zeros((2 * depth, apart), np.uint32),
        at=np.zeros(room, np.int64),
        status=np.zeros(room, np.int8),
        reason=np.zeros(room, np.int8),
        since=np.zeros(room, np.int64),
    )


def _packed(depth: int, room: int) -> Packed:
    return Packed(
        levels=np.empty((room, PACKED_WORDS * depth), np.int64),
        at=np.zeros(room, np.int64),
        status=np.zeros(room, np.int8),
        reason=np.zeros(room, np.int8),
        since=np.zeros(room, np.int64),
    )


def _windows(spans: Sequence[tuple[int, int]]) -> Windows:
    edges = np.array(list(spans) or np.zeros((0, 2)), np.int64).reshape(-1, 2)
    return Windows(start=edges[:, 0].copy(), end=edges[:, 1].copy())


class Sampling:
    """Buffers, windows and clock that every replay shares.

    windows: half-open (start_ns, end_ns) spans in which rows are wanted, or None for all from the first event on; grid_windows: those of the grid
    where they are others. Batches may not be longer than batch_rows. stale_after_ns: age from which on a grid row is stale, None for never.

    Where a window opens after the first complete event, a touch row shows what stands then, so that readers of its changes need not know what came
    before (see `window_opens`); a window of which the grid has only a later part opened before the day.
    """

    def __init__(
        self, depth: int, interval_ns: int, windows: Sequence[tuple[int, int]] | None, batch_rows: int, starts_valid: bool,
        stale_after_ns: int | None = None, grid_windows: Sequence[tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self.depth, self.interval_ns, self.batch_rows = depth, interval_ns, batch_rows
        self.top = Top(
            px=np.full((2, depth), UNDEF_PRICE, np.int64),
            sz=np.zeros((2, depth), np.int64),
            ct=np.zeros((2, depth), np.int64),
            packed=empty_levels(depth),
            rank=np.full((2, depth), -1, np.int64),
            last=np.full(LAST_SIZE, -1, np.int64),
        )
        self.rows, self.bbo = _packed(depth, batch_rows), _rows(1, batch_rows)
        room = GRID_ROOM
        self.grid = Grid(rows=_rows(depth, room), time=np.zeros(room, np.int64), as_of=np.zeros(room, np.int64), sequence=np.zeros(room, np.uint32))
        self.trades = Trades(
            at=np.zeros(batch_rows, np.int64),
            touch=np.zeros((4, batch_rows), np.int64),
            status=np.zeros(batch_rows, np.int8),
            reason=np.zeros(batch_rows, np.int8),
            since=np.zeros(batch_rows, np.int64),
        )
        self.clock = np.zeros(CLOCK_SIZE, np.int64)
        self.clock[T_AS_OF] = -1
        self.clock[T_INTERVAL] = interval_ns
        self.clock[T_SINCE] = -1
        self.clock[T_STALE_AFTER] = NEVER if stale_after_ns is None else stale_after_ns
        self.clock[T_STATUS], self.clock[T_REASON] = (VALID, 0) if starts_valid else (NO_BOOK, 1)
        self._open = windows is None
        self.windows: Spans | None = None
        self._to_open = np.zeros(0, np.int64)  # starts of windows that are still to come
        self._event_has_snapshot = False
        if windows is not None:
            self._set_windows(windows, windows if grid_windows is None else grid_windows)
            assert self.windows is not None
            self._to_open = np.intersect1d(self.windows.rows.start, self.windows.grid.start)

    def _set_windows(self, rows: Sequence[tuple[int, int]], grid: Sequence[tuple[int, int]]) -> None:
        self.windows = Spans(rows=_windows(rows), grid=_windows(grid))
        starts = self.windows.grid.start
        self.clock[T_NEXT] = first_grid_time(starts[0], self.interval_ns) if len(starts) else NEVER

    def start(self, columns: dict[str, np.ndarray], clock_name: str) -> np.ndarray:
        """The running clock int64[n] of a batch; without given windows the first batch opens the only one."""
        clock = columns[clock_name]
        if clock_name == "ts_event":
            # ts_event in a snapshot is the age of the order, not a time at which the book was so.
            clock = np.where(columns["flags"] & F_SNAPSHOT, columns["ts_recv"], clock)
        running = np.empty(len(clock), np.int64)
        run_on(np.ascontiguousarray(clock), int(self.clock[T_NOW]), running)
        if self.windows is None:
            span = [(int(running[0]), NEVER)]
            self._set_windows(span, span)
        if self.clock[T_SINCE] < 0:
            self.clock[T_SINCE] = running[0]
        return running

    def fresh(self, flags: np.ndarray) -> np.ndarray:
        """bool[n]: records of a batch whose event so far holds a record of a snapshot; what it shows does not follow from the book before it."""
        at, snapshot = np.arange(len(flags)), (flags & F_SNAPSHOT) != 0
        if not (self._event_has_snapshot or snapshot.any()):
            return np.zeros(len(flags), bool)
        latest = np.maximum.accumulate(np.where(snapshot, at, -1 if self._event_has_snapshot else -2))
        ended = np.maximum.accumulate(np.where(flags & F_LAST, at, -2))
        self._event_has_snapshot = bool(latest[-1] > ended[-1])
        return latest > np.concatenate([[-2], ended[:-1]])

    def windows_opening(self, running: np.ndarray) -> list[tuple[int, int]]:
        """(record, start) of each window that opens with a batch: the first record whose running clock has reached its start."""
        due, self._to_open = np.split(self._to_open, [np.searchsorted(self._to_open, running[-1], side="right")])
        return list(zip(np.searchsorted(running, due).tolist(), due.tolist(), strict=True))

    def window_opens(self, start: int, events: dict[str, np.ndarray]) -> Iterator[Samples]:
        """The touch row of a window's start: the book after the last complete event before it, known at `start`; none where there is no such event.

        events: of the rows in the buffers, which are handed out first.
        """
        if self.clock[T_AS_OF] < 0:
            return
        yield self.take(events, grid=False)
        touch, status = np.stack([self.top.px[:, 0], self.top.sz[:, 0], self.top.ct[:, 0]]), self.clock[[T_STATUS, T_REASON]]
        for values, shown in zip((self.bbo.px, self.bbo.sz, self.bbo.ct), touch, strict=True):
            values[:, 0] = shown
        self.bbo.at[0], self.bbo.since[0] = 0, self.clock[T_SINCE]
        self.bbo.status[0], self.bbo.reason[0] = status
        self.top.last[:] = np.concatenate([touch.ravel(), status])
        self.clock[T_BBO] = 1
        time = np.array([start])
        shown = {"ts_event": time, "ts_recv": time, "clock": time, "sequence": self.clock[[T_SEQUENCE]].astype(np.uint32), "fresh": np.ones(1, bool)}
        yield self.take(shown, grid=False)

    def take(self, events: dict[str, np.ndarray], grid: bool = True) -> Samples:
        """The filled part of all buffers; they count as empty afterwards. Without `grid` a few grid rows, which carry their own times, stay."""
        n_rows, n_bbo, n_grid, n_trades = (int(self.clock[k]) for k in (T_ROWS, T_BBO, T_GRID, T_TRADES))
        self.clock[[T_ROWS, T_BBO, T_TRADES]] = 0
        if grid or n_grid > GRID_ROOM // 2:
            self.clock[T_GRID] = 0
        else:
            n_grid = 0
        return Samples(events, self.rows, self.bbo, self.grid, self.trades, n_rows, n_bbo, n_grid, n_trades)

    def touch_facts(self) -> dict[str, Any]:
        """The touch after the last complete event."""
        px, sz = self.top.px[:, 0].tolist(), self.top.sz[:, 0].tolist()
        return {name: [p, s] if p != UNDEF_PRICE else None for name, p, s in zip(("best_bid", "best_ask"), px, sz, strict=True)}

    @property
    def last_ns(self) -> int:
        """Clock time of the last complete event, -1 before the first."""
        return int(self.clock[T_AS_OF])

    def finish(self) -> Iterator[Samples]:
        """The rows that are still due: those of windows that open, and the grid to the end of the windows, or to the first grid time at or after the
        last event."""
        if self.windows is None:
            return
        for start in self._to_open.tolist():
            yield from self.window_opens(start, {})
        self._to_open = self._to_open[:0]
        end = -(-int(self.clock[T_NOW]) // self.interval_ns) * self.interval_ns + 1 if self._open else NEVER
        yield from self.grid_to(end)

    def grid_to(self, end: int) -> Iterator[Samples]:
        """The grid rows before `end` from the book as it stands after the last complete event."""
        if self.windows is None:
            return
        done = False
        while not done:
            done = grid_until(self.clock, self.top, self.grid, self.windows.grid, self.depth, end)
            yield self.take({})
