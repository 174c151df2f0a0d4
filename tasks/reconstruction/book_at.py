"""`book_at`: the book of a partition at any instant, from the checkpoint before it. Reads the lake, writes nothing, knows no Prefect."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.book_rows import as_read, unpack
from tasks.errors import UsageError
from tasks.footers import read_footer
from tasks.partitions import Partition
from tasks.reconstruction.advance_kernels import BOOK_FULL, M_REASON, M_SINCE, M_STATUS, advance
from tasks.reconstruction.book import OrderBook
from tasks.reconstruction.book_kernels import HALTED_STATE, R_HALT, R_NO_SNAPSHOT, R_QUARANTINED, REASON, STATUS
from tasks.reconstruction.history import History, Piece, Place, open_history
from tasks.reconstruction.replay_kernels import Batch
from tasks.reconstruction.sample_kernels import R_SILENCE
from tasks.schemas import F_LAST, F_SNAPSHOT, HALTED, NO_BOOK, REASONS, SIDES, STALE, STATUSES, SUSPECT, UNDEF_PRICE, VALID, char_index

Level = tuple[int, int, int]

ORDERS = pa.schema(
    [
        ("side", pa.dictionary(pa.int8(), pa.string())),
        ("price", pa.int64()),  # 1e-9
        ("place", pa.int64()),  # 0 is the first that will trade at its level
        ("order_id", pa.uint64()),
        ("size", pa.int64()),
    ]
)


@dataclass(frozen=True)
class BookAt:
    """A book after the last complete event with clock time <= time_ns; the clock is the one that the partition was made with.

    bids, asks: (price 1e-9, size, orders) from the touch outwards, orders 0 where a level file does not tell them; as_of: time of that event
    (ns), None before the first; age_ns: time_ns - as_of, -1 before the first; sequence of its last record; status and reason of the book, so
    since status_since (ns, None before the first record).
    """

    partition: Partition
    time_ns: int
    clock: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    as_of: int | None
    age_ns: int
    sequence: int
    status: str
    reason: str
    status_since: int | None
    resting: dict[str, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def orders(self) -> pa.Table:
        """The queues: every resting order, bids first, best level first, in priority order; columns of ORDERS. Raises UsageError for level files."""
        if self.resting is None:
            raise UsageError(f"{self.partition} was made from a level file, which does not tell the orders of a level.")
        side, price = self.resting["side"], self.resting["price"]
        n = len(price)
        starts = np.flatnonzero(np.concatenate([[True], (price[1:] != price[:-1]) | (side[1:] != side[:-1])])) if n else np.zeros(0, np.int64)
        place = np.arange(n) - np.repeat(starts, np.diff(starts, append=n))
        letters = pa.DictionaryArray.from_arrays(char_index(SIDES)[side], pa.array(SIDES))
        return pa.table([letters, price, place, self.resting["order_id"], self.resting["size"]], schema=ORDERS)


def book_at(lake: Path, partition: Partition, time_ns: int, *, depth: int | None = None) -> BookAt:
    """The book of a partition at `time_ns` (ns, UTC), `depth` levels a side or all.

    Replays from the last checkpoint before, so that the work does not grow with the day. Level files are answered from the widest mbp layer.
    Raises UsageError when the partition has no book, or depth is not positive; StorageError when a file is broken.
    """
    if depth is not None and depth < 1:
        raise UsageError(f"depth is {depth}; allowed: 1 or more levels, or none for all of them")
    history = open_history(lake, partition)
    if history.windowed:
        return _of_levels(history, time_ns, depth)
    past = _Past(history, time_ns)
    as_of, sequence, status, reason, since = (int(value) for value in past.moment)
    state, orders = (status, reason, since), past.book.resting_orders()
    if as_of < 0:
        # Before the first complete event nothing is known, the closing book of the day before included.
        return _answer(history, time_ns, ([], []), None, 0, state, {name: values[:0] for name, values in orders.items()})
    sides = past.book.levels(0)[:depth], past.book.levels(1)[:depth]
    return _answer(history, time_ns, sides, as_of, sequence, state, orders)


def _answer(
    history: History, time_ns: int, sides: tuple[list[Level], list[Level]], as_of: int | None, sequence: int, state: tuple[int, int, int],
    resting: dict[str, np.ndarray] | None,
) -> BookAt:  # fmt: skip
    """status, reason and since become stale, when there was no event for too long."""
    status, reason, since = state
    age, limit = -1 if as_of is None else time_ns - as_of, history.stale_after_ns
    if status == VALID and as_of is not None and limit is not None and age > limit:
        status, reason, since = STALE, R_SILENCE, as_of + limit
    return BookAt(
        history.partition, time_ns, history.clock, tuple(sides[0]), tuple(sides[1]), as_of, age, sequence, STATUSES[status], REASONS[reason],
        since if since >= 0 else None, resting,
    )  # fmt: skip


class _Past:
    """The book brought to the last complete event at or before a time. moment: see advance_kernels.py."""

    def __init__(self, history: History, time_ns: int) -> None:
        before = [c for c in history.checkpoints if c["as_of"] <= time_ns]
        checkpoint = before[-1] if before else None
        self._history, self.book = history, OrderBook(starts_empty=history.starts_empty)
        self.moment = np.array([-1, 0, NO_BOOK, R_NO_SNAPSHOT, -1], np.int64)
        history.restore(self.book, checkpoint)
        if checkpoint:
            state = self.book.arrays.state
            halted = state[HALTED_STATE] != 0 and state[STATUS] == VALID
            status, reason = (HALTED, R_HALT) if halted else (state[STATUS], state[REASON])
            self.moment[:] = checkpoint["as_of"], checkpoint["sequence"], status, reason, checkpoint["since"]
        self._run(checkpoint, time_ns)

    def _run(self, checkpoint: dict[str, Any] | None, time_ns: int) -> None:
        waiting: list[Piece | int] = []  # of an event that is not complete yet; a time where a row was set aside at the end of a file
        now, began = checkpoint["now"] if checkpoint else 0, checkpoint is not None
        for piece in self._history.records(self._history.place_of(checkpoint), _columns(self._history.clock)):
            running = np.maximum(np.maximum.accumulate(clock_of(piece.columns, self._history.clock)), now)
            piece.columns["clock"] = running
            reached = int(np.searchsorted(running, time_ns, "right"))
            if reached and not began:
                began, self.moment[M_SINCE] = True, running[0]
                if self._history.starts_empty:
                    self.moment[M_STATUS], self.moment[M_REASON] = VALID, 0
            ends = np.flatnonzero(piece.columns["flags"][:reached] & F_LAST)
            complete = int(ends[-1]) + 1 if len(ends) else 0
            if complete:
                for part in [*waiting, _part(piece, 0, complete)]:
                    self._doubt(part) if isinstance(part, int) else self._advance(part)
                waiting = []
            if reached < len(running):
                break
            now = int(running[-1]) if len(running) else now
            waiting += [_part(piece, complete, len(running)), *([now] if piece.doubt else [])]
        for part in waiting:
            if isinstance(part, int):
                self._doubt(part)

    def _advance(self, piece: Piece) -> None:
        piece.enter(self.book)
        columns, at, code = piece.columns, 0, BOOK_FULL
        rank = np.zeros(len(columns["price"]), np.int32)
        self.book.ranks(columns["price"], rank)
        batch = Batch(rank=rank, marks=piece.marks, **{name: columns[name] for name in Batch._fields if name in columns})
        while code == BOOK_FULL:
            code, at = advance(batch, at, len(rank), self.book.arrays, self.moment, self._history.contiguous, self._history.halts)
            if code == BOOK_FULL:
                self.book.grow_pool()

    def _doubt(self, at: int) -> None:
        """A row was set aside after the last record of a file; when is not known, but not before that record."""
        self.book.doubt()
        if self.moment[M_STATUS] in (VALID, HALTED):
            self.moment[[M_STATUS, M_REASON, M_SINCE]] = SUSPECT, R_QUARANTINED, at


def _part(piece: Piece, start: int, end: int) -> Piece:
    marks = piece.marks[(piece.marks >= start) & (piece.marks < end)] - start
    place = piece.place._replace(row=piece.place.row + start)
    return Piece(place, {name: values[start:end] for name, values in piece.columns.items()}, marks, False)


def clock_of(columns: dict[str, np.ndarray], clock: str) -> np.ndarray:
    """Clock time int64[n] of each record; ts_event in a snapshot is the age of the order, so its records take ts_recv."""
    if clock == "ts_recv":
        return columns["ts_recv"]
    return np.where(columns["flags"] & F_SNAPSHOT, columns["ts_recv"], columns["ts_event"])


def _columns(clock: str) -> list[str]:
    return ["ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence", *(["ts_event"] if clock == "ts_event" else [])]


def _of_levels(history: History, time_ns: int, depth: int | None) -> BookAt:
    """The row of the last complete event at or before time_ns in the widest mbp layer that has it."""
    as_of, sequence, doubt = _last_event(history, time_ns)
    if as_of is None:
        return _answer(history, time_ns, ([], []), None, 0, (NO_BOOK, R_NO_SNAPSHOT, -1), None)
    for path in _widest_first(history):
        row = _row(path, as_of, sequence)
        if row is None:
            continue
        sides = [_levels(row, side)[:depth] for side in ("bid", "ask")]
        since = row["status_since"]
        state = STATUSES.index(row["status"]), REASONS.index(row["reason"]), -1 if since is None else since
        if doubt is not None and state[0] == VALID:
            state = SUSPECT, R_QUARANTINED, doubt
        return _answer(history, time_ns, (sides[0], sides[1]), as_of, sequence, state, None)
    raise UsageError(
        f"{history.partition} was made from a level file, and no mbp layer has the row of its last event, {np.datetime64(as_of, 'ns')}. "
        "Rows are kept only within --start and --hours of the run: choose a time in them, or run again with wider ones."
    )


def _last_event(history: History, time_ns: int) -> tuple[int | None, int, int | None]:
    """(time, sequence) of the last complete event at or before time_ns, None before the first; and when a row was set aside after the last one."""
    as_of, sequence, now, doubt = None, 0, 0, None
    for piece in history.records(Place(0, 0), [*dict.fromkeys(("ts_recv", history.clock)), "flags", "sequence"]):
        running = np.maximum(np.maximum.accumulate(clock_of(piece.columns, history.clock)), now)
        reached = int(np.searchsorted(running, time_ns, "right"))
        ends = np.flatnonzero(piece.columns["flags"][:reached] & F_LAST)
        if len(ends):
            as_of, sequence, doubt = int(running[ends[-1]]), int(piece.columns["sequence"][ends[-1]]), None
        if reached < len(running):
            break
        now = int(running[-1])
        doubt = now if piece.doubt else doubt
    return as_of, sequence, doubt


def _widest_first(history: History) -> list[Path]:
    """The mbp layers of event ends that were made from the same events as the bbo layer."""
    made = {name: (read_footer(history.lake / history.partition.path("bbo")) or {}).get(name) for name in ("bookmill.inputs", "bookmill.code")}
    found = {}
    for folder in history.lake.glob("mbp-*"):
        depth, path = folder.name.removeprefix("mbp-"), history.lake / history.partition.path(folder.name)
        footer = read_footer(path) if depth.isdigit() else None
        if footer is not None and all(footer.get(name) == value for name, value in made.items()):
            found[int(depth)] = path
    return [found[depth] for depth in sorted(found, reverse=True)]


def _row(path: Path, as_of: int, sequence: int) -> dict[str, Any] | None:
    """The last row with that time and sequence, times as ns; reads one row group whole and no other."""
    with pq.ParquetFile(path) as file:
        at = file.schema_arrow.names.index("as_of")
        for group in reversed(range(file.num_row_groups)):
            times = file.metadata.row_group(group).column(at).statistics
            if times is not None and times.has_min_max and times.min_raw > as_of:
                continue
            table = file.read_row_group(group)
            row = int(np.searchsorted(table["as_of"].cast("int64").to_numpy(), as_of, "right")) - 1
            if row < 0:
                continue
            (batch,) = table.slice(row, 1).combine_chunks().to_batches()
            found = unpack(batch, as_read(batch.schema).names)
            found = pa.table([c.cast("int64") if pa.types.is_timestamp(c.type) else c for c in found.columns], names=found.column_names)
            values = found.to_pylist()[0]
            return values if (values["as_of"], values["sequence"]) == (as_of, sequence) else None
    return None


def _levels(row: dict[str, Any], side: str) -> list[Level]:
    depth = sum(name.startswith("bid_px_") for name in row)
    levels = [tuple(row[f"{side}_{kind}_{k:02d}"] for kind in ("px", "sz", "ct")) for k in range(depth)]
    return [(px, sz, ct) for px, sz, ct in levels if px != UNDEF_PRICE]
