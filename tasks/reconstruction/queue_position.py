"""`queue_position`: the place of one order in the queue of its level, over its life. Reads the lake, writes nothing, knows no Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.disk import storage_error
from tasks.errors import StorageError, UsageError
from tasks.partitions import Partition
from tasks.reconstruction.book import OrderBook
from tasks.reconstruction.checkpoints import read_resting
from tasks.reconstruction.history import History, Piece, Place, open_history, require_orders
from tasks.reconstruction.lifetime_kernels import END_REASONS
from tasks.reconstruction.replay_kernels import Batch
from tasks.reconstruction.track_kernels import (
    BOOK_FULL,
    CAUSES,
    DONE,
    NO_CAUSE,
    PLACE,
    ROWS_FULL,
    W_CAUSE,
    W_COMPLETE,
    W_REFERENCE,
    W_ROWS,
    WATCH_SIZE,
    adopt_order,
    track,
)
from tasks.schemas import STATUSES

ROWS_ROOM = 16_384
_COLUMNS = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence")
_TS = pa.timestamp("ns", tz="UTC")
_TEXT = pa.dictionary(pa.int8(), pa.string())

QUEUE = pa.schema(
    [
        ("ts_event", _TS),  # of the last record of the event
        ("ts_recv", _TS),
        ("sequence", pa.uint32()),
        ("episode", pa.int64()),  # 1 for the first order of that id, 2 for the next, ...
        ("price", pa.int64()),  # 1e-9
        ("size", pa.int64()),  # 0 in the row of the end, and so are the four below
        ("ahead_size", pa.int64()),  # of the orders at its price that trade before it
        ("ahead_orders", pa.int64()),
        ("behind_size", pa.int64()),
        ("behind_orders", pa.int64()),
        ("cause", _TEXT),  # one of CAUSES: what the event did to the order itself, else the side of it on which the queue changed
        ("end_reason", _TEXT),  # one of END_REASONS; resting in all rows but the last of an episode
        ("status", _TEXT),  # of the book after the event
    ]
)


def queue_position(lake: Path, partition: Partition, order_id: int) -> pa.Table:
    """A row of QUEUE for every complete event at which the place of the order changed, from its entry to its end (or to the end of the day).

    An order that comes and goes within one event has the row of its end only. Replays from the checkpoint before the first record of the id
    to the last end of such an order. Raises UsageError when no record and no closing book of the day before names the id, and for a level file.
    """
    history = open_history(lake, partition)
    require_orders(history)
    first, last = _mentions(history, order_id)
    before = [c for c in history.checkpoints if history.place_of(c) <= first]
    checkpoint = before[-1] if before else None
    watch = _Watch(history, order_id, checkpoint)
    for piece in history.records(history.place_of(checkpoint), _COLUMNS):
        watch.apply(piece)
        if watch.idle and piece.place._replace(row=piece.place.row + len(piece.columns["flags"])) > last:
            break
    return watch.table()


class _Watch:
    """The book, the order in it, and the rows so far."""

    def __init__(self, history: History, order_id: int, checkpoint: dict[str, Any] | None) -> None:
        self._order_id, self._rules = np.uint64(order_id), (history.contiguous, history.halts)
        self._book = OrderBook(starts_empty=history.starts_empty)
        history.restore(self._book, checkpoint)
        self._rows = np.zeros(ROWS_ROOM, PLACE)
        self._watch = np.zeros(WATCH_SIZE, np.int64)
        self._watch[W_REFERENCE], self._watch[W_CAUSE] = -1, NO_CAUSE
        if checkpoint is None:
            adopt_order(self._book.arrays, len(self._book.arrays.prices), self._order_id, self._watch)
        self._taken: list[np.ndarray] = []

    @property
    def idle(self) -> bool:
        """No order of that id rests, and no row waits for the end of its event."""
        return bool(self._watch[W_REFERENCE] < 0 and self._watch[W_ROWS] == self._watch[W_COMPLETE])

    def apply(self, piece: Piece) -> None:
        """Apply records."""
        piece.enter(self._book)
        columns = piece.columns
        n = len(columns["price"])
        rank = np.zeros(n, np.int32)
        self._book.ranks(columns["price"], rank)
        batch = Batch(
            action=columns["action"], side=columns["side"], flags=columns["flags"], rank=rank, size=columns["size"],
            order_id=columns["order_id"], clock=columns["ts_recv"], sequence=columns["sequence"], marks=piece.marks,
        )  # fmt: skip
        at, code = 0, -1
        while code != DONE:
            code, at = track(
                batch, columns["price"], columns["ts_event"], columns["ts_recv"], at, n, self._book.arrays, self._order_id, self._rows, self._watch,
                *self._rules,
            )  # fmt: skip
            if code == BOOK_FULL:
                self._book.grow_pool()
            elif code == ROWS_FULL:
                self._take()
        if piece.doubt:
            self._book.doubt()

    def _take(self) -> None:
        """Hand out the rows of complete events; those of an event that is not complete stay, and get more room when they fill all of it."""
        complete, rows = int(self._watch[W_COMPLETE]), int(self._watch[W_ROWS])
        self._taken.append(self._rows[:complete].copy())
        room = 2 * len(self._rows) if complete == 0 else len(self._rows)
        left, self._rows = self._rows[complete:rows], np.zeros(room, PLACE)
        self._rows[: len(left)] = left
        self._watch[W_COMPLETE], self._watch[W_ROWS] = 0, len(left)

    def table(self) -> pa.Table:
        """All rows of complete events."""
        self._take()
        rows = np.concatenate(self._taken)
        words = {"cause": CAUSES, "end_reason": END_REASONS, "status": STATUSES}
        arrays = []
        for field in QUEUE:
            values = np.ascontiguousarray(rows[field.name])
            if field.name in words:
                arrays.append(pa.DictionaryArray.from_arrays(values.astype(np.int8), pa.array(words[field.name])))
            else:
                arrays.append(pa.array(values).cast(field.type))
        return pa.table(arrays, schema=QUEUE)


def _mentions(history: History, order_id: int) -> tuple[Place, Place]:
    """The first and the last record that names an order; the very first record when the order rested before it."""
    if not 0 <= order_id < 1 << 64:
        raise UsageError(f"order id is {order_id}; allowed: 0 to 2^64-1")
    found = []
    if history.carried and np.uint64(order_id) in read_resting(history.lake / history.carried)["order_id"]:
        found = [Place(0, 0)]
    for file, name in enumerate(history.events):
        for row in _rows_of(history.lake / name, order_id):
            found = [*found[:1], Place(file, row)]
    if not found:
        raise UsageError(f"No record of {history.partition} names order {order_id}. `bookmill orders` lists the orders that there are.")
    return found[0], found[-1]


def _rows_of(path: Path, order_id: int) -> Iterator[int]:
    """The first and the last row of each row group that names an order; 1 ms for 131,072 rows."""
    try:
        with pq.ParquetFile(path) as file:
            first = 0
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, ["order_id"])["order_id"].to_numpy()
                rows = np.flatnonzero(ids == np.uint64(order_id))
                yield from (first + rows[[0, -1]]).tolist() if len(rows) else ()
                first += len(ids)
    except pa.ArrowException as fault:
        raise StorageError(f"Cannot read {path}: {fault}. Delete it and start again: it is made anew from its source.") from fault
    except OSError as fault:
        raise storage_error(path, fault) from fault
