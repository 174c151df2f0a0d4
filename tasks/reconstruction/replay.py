"""`Replay`: feeds batches of event columns to the kernels and hands out the samples; knows nothing of files. Plain Python, no Prefect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import BookError
from tasks.reconstruction.book import OrderBook
from tasks.reconstruction.book_kernels import ANOMALY, C_QUARANTINED, COUNTERS, LEVELS, LIVE, R_QUARANTINED, REASON, STATUS
from tasks.reconstruction.replay_kernels import BOOK_ERROR, BOOK_FULL, GRID_FULL, Batch, replay
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
    T_STATUS,
    T_TRADES,
    Grid,
    Rows,
    Top,
    Trades,
    Windows,
    first_grid_time,
    grid_until,
)
from tasks.schemas import F_SNAPSHOT, NO_BOOK, REASONS, STATUSES, SUSPECT, UNDEF_PRICE, VALID

GRID_ROOM = 8_192
_NO_MARKS = np.zeros(0, np.int64)


@dataclass
class Samples:
    """What one batch gave. events: the batch's columns plus `clock`; the buffers are valid until the next step only.

    Counts n_rows, n_bbo, n_grid, n_trades say how much of each buffer is filled.
    """

    events: dict[str, np.ndarray]
    rows: Rows
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
    )


class Sampling:
    """Buffers, windows and clock that every replay shares.

    windows: half-open (start_ns, end_ns) spans in which rows are wanted, or None for all from the first event on. Batches may not be longer
    than batch_rows.
    """

    def __init__(self, depth: int, interval_ns: int, windows: Sequence[tuple[int, int]] | None, batch_rows: int, starts_valid: bool) -> None:
        self.depth, self.interval_ns, self.batch_rows = depth, interval_ns, batch_rows
        self.top = Top(
            px=np.full((2, depth), UNDEF_PRICE, np.int64),
            sz=np.zeros((2, depth), np.int64),
            ct=np.zeros((2, depth), np.int64),
            last=np.full(LAST_SIZE, -1, np.int64),
        )
        self.rows, self.bbo = _rows(depth, batch_rows), _rows(1, batch_rows)
        room = GRID_ROOM
        self.grid = Grid(rows=_rows(depth, room), time=np.zeros(room, np.int64), as_of=np.zeros(room, np.int64), sequence=np.zeros(room, np.uint32))
        self.trades = Trades(
            at=np.zeros(batch_rows, np.int64),
            touch=np.zeros((4, batch_rows), np.int64),
            status=np.zeros(batch_rows, np.int8),
            reason=np.zeros(batch_rows, np.int8),
        )
        self.clock = np.zeros(CLOCK_SIZE, np.int64)
        self.clock[T_AS_OF] = -1
        self.clock[T_INTERVAL] = interval_ns
        self.clock[T_STATUS], self.clock[T_REASON] = (VALID, 0) if starts_valid else (NO_BOOK, 1)
        self._open = windows is None
        self.windows: Windows | None = None
        if windows is not None:
            self._set_windows(windows)

    def _set_windows(self, windows: Sequence[tuple[int, int]]) -> None:
        spans = np.array(list(windows) or np.zeros((0, 2)), np.int64).reshape(-1, 2)
        self.windows = Windows(start=spans[:, 0].copy(), end=spans[:, 1].copy())
        self.clock[T_NEXT] = first_grid_time(spans[0, 0], self.interval_ns) if len(spans) else NEVER

    def start(self, columns: dict[str, np.ndarray], clock_name: str) -> np.ndarray:
        """The running clock int64[n] of a batch; without given windows the first batch opens the only one."""
        clock = columns[clock_name]
        if clock_name == "ts_event":
            # ts_event in a snapshot is the age of the order, not a time at which the book was so.
            clock = np.where(columns["flags"] & F_SNAPSHOT, columns["ts_recv"], clock)
        running = np.maximum.accumulate(clock)
        np.maximum(running, self.clock[T_NOW], out=running)
        if self.windows is None:
            self._set_windows([(int(running[0]), NEVER)])
        return running

    def take(self, events: dict[str, np.ndarray]) -> Samples:
        """The filled part of all buffers; they count as empty afterwards."""
        n_rows, n_bbo, n_grid, n_trades = (int(self.clock[k]) for k in (T_ROWS, T_BBO, T_GRID, T_TRADES))
        self.clock[[T_ROWS, T_BBO, T_GRID, T_TRADES]] = 0
        return Samples(events, self.rows, self.bbo, self.grid, self.trades, n_rows, n_bbo, n_grid, n_trades)

    def touch_facts(self) -> dict[str, Any]:
        """The touch after the last complete event."""
        px, sz = self.top.px[:, 0].tolist(), self.top.sz[:, 0].tolist()
        return {name: [p, s] if p != UNDEF_PRICE else None for name, p, s in zip(("best_bid", "best_ask"), px, sz, strict=True)}

    def finish(self) -> Iterator[Samples]:
        """The grid rows that are still due: to the end of the windows, or to the first grid time at or after the last event."""
        if self.windows is None:
            return
        end = -(-int(self.clock[T_NOW]) // self.interval_ns) * self.interval_ns + 1 if self._open else NEVER
        done = False
        while not done:
            done = grid_until(self.clock, self.top, self.grid, self.windows, self.depth, end)
            yield self.take({})


class Replay(Sampling):
    """Order-by-order replay of one book, batch by batch.

    depth: levels of each row; interval_ns: grid; clock: "ts_recv" or "ts_event"; strict: raise BookError at the first anomaly of a valid
    book; every_record: treat each record as an event end. `book` is the OrderBook and stays readable between batches.
    """

    def __init__(
        self,
        *,
        depth: int = 10,
        interval_ns: int = 1_000_000_000,
        clock: str = "ts_recv",
        windows: Sequence[tuple[int, int]] | None = None,
        starts_empty: bool = False,
        strict: bool = False,
        every_record: bool = False,
        batch_rows: int = 65_536,
    ) -> None:
        super().__init__(depth, interval_ns, windows, batch_rows, starts_empty)
        self.book = OrderBook(starts_empty=starts_empty)
        self._clock_name, self._strict, self._every_record = clock, strict, every_record
        self._rank = np.zeros(batch_rows, np.int32)
        self.events_seen = 0

    def feed(self, columns: dict[str, np.ndarray], marks: np.ndarray = _NO_MARKS) -> Iterator[Samples]:
        """Apply one batch of event columns (n <= batch_rows). marks int64[m]: rows of the batch before which a row was quarantined.

        Raises BookError (strict only), naming order, sequence and what to do.
        """
        n = len(columns["price"])
        if n == 0:
            return
        running = self.start(columns, self._clock_name)
        assert self.windows is not None
        rank = self._rank[:n]
        self.book.ranks(columns["price"], rank)
        batch = Batch(
            action=columns["action"], side=columns["side"], flags=columns["flags"], rank=rank, size=columns["size"],
            order_id=columns["order_id"], clock=running, sequence=columns["sequence"], marks=marks,
        )  # fmt: skip
        events = {**columns, "clock": running}
        at, code = 0, -1
        while at < n:
            code, at = replay(
                batch, at, n, self.book.arrays, self.clock, self.top, self.rows, self.bbo, self.grid, self.trades,
                self.windows, self.depth, self._strict, self._every_record,
            )  # fmt: skip
            if code == BOOK_FULL:
                self.book.grow_pool()
            elif code == GRID_FULL:
                yield self.take(events)
            elif code == BOOK_ERROR:
                raise BookError(self._explain(columns, at))
        self.events_seen += n
        yield self.take(events)

    def _explain(self, columns: dict[str, np.ndarray], i: int) -> str:
        anomaly = COUNTERS[int(self.book.arrays.state[ANOMALY])].replace("_", " ")
        return (
            f"Event {self.events_seen + i:,} (order {int(columns['order_id'][i])}, sequence {int(columns['sequence'][i])}, "
            f"ts_event {int(columns['ts_event'][i])}): {anomaly}, action {chr(columns['action'][i])} of {int(columns['size'][i])}. "
            "The feed lost a message before it; rerun with --on-book-error suspect to mark the interval instead."
        )

    def doubt(self) -> None:
        """A row was quarantined after the last one: what follows is suspect, the book as it stands at the end too."""
        state = self.book.arrays.state
        self.book.arrays.counters[C_QUARANTINED] += 1
        if state[STATUS] == VALID:
            state[STATUS], state[REASON] = SUSPECT, R_QUARANTINED
            self.clock[T_STATUS], self.clock[T_REASON] = SUSPECT, R_QUARANTINED

    def counters(self) -> dict[str, int]:
        """Counts by name, see book_kernels.COUNTERS."""
        return self.book.counters()

    def status(self) -> tuple[str, str]:
        """(status, reason) after the last record."""
        state = self.book.arrays.state
        return STATUSES[state[STATUS]], REASONS[state[REASON]]

    def closing(self) -> dict[str, np.ndarray]:
        """The resting orders, see OrderBook.resting_orders."""
        return self.book.resting_orders()

    def end_facts(self) -> dict[str, Any]:
        """Levels and orders at the end and the touch after the last complete event (price 1e-9 and size; None when the side is empty)."""
        state = self.book.arrays.state
        return {
            "bid_levels": int(state[LEVELS]),
            "ask_levels": int(state[LEVELS + 1]),
            "orders": int(state[LIVE]),
            **self.touch_facts(),
        }
