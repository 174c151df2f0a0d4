"""`order_lifetimes`: a row for every order of a partition, from its entry to its end. Reads the lake, writes nothing, knows no Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.partitions import Partition
from tasks.reconstruction.book import OrderBook
from tasks.reconstruction.book_kernels import LIVE
from tasks.reconstruction.history import History, Piece, Place, open_history, require_orders
from tasks.reconstruction.lifetime_kernels import (
    BOOK_FULL,
    CARRIED,
    CLEARED,
    DONE,
    EMPTYING,
    END_REASONS,
    LIFE,
    N_ENDED,
    REPLACED,
    RESTING,
    SNAPSHOT,
    TALLY_SIZE,
    adopt,
    live_through,
    living,
)
from tasks.reconstruction.replay_kernels import Batch
from tasks.schemas import F_SNAPSHOT, SIDES, char_index

ENDED_ROOM = 65_536
_COLUMNS = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags", "sequence")
_TS = pa.timestamp("ns", tz="UTC")
_TEXT = pa.dictionary(pa.int8(), pa.string())
_NO_MARKS = np.zeros(0, np.int64)

# size + grown = filled + cancelled + left, in each row.
LIFETIMES = pa.schema(
    [
        ("order_id", pa.uint64()),  # an id used again is another row
        ("side", _TEXT),  # at entry
        ("ts_event", _TS),  # entry; of an order told by a snapshot what the snapshot says; null when it was in the closing book of the day before
        ("ts_recv", _TS),
        ("price", pa.int64()),  # 1e-9, at entry
        ("size", pa.int64()),  # at entry
        ("last_price", pa.int64()),
        ("ahead_size", pa.int64()),  # resting before it at its price when it entered
        ("filled", pa.int64()),  # taken off by C and M after F records of the order in the same event or message, up to the size of these
        ("cancelled", pa.int64()),  # taken off otherwise
        ("grown", pa.int64()),  # added by M records, the refreshes of an iceberg included
        ("modified", pa.int64()),  # M records that were no fill
        ("left", pa.int64()),  # what rested when it ended, or rests at the end of the partition
        ("end_ts_event", _TS),  # null when it rests at the end
        ("end_ts_recv", _TS),
        ("end_reason", _TEXT),  # one of END_REASONS
        ("duration_ns", pa.int64()),  # end_ts_event - ts_event; null when one of them is
        ("from_snapshot", pa.bool_()),  # it did not enter on that day: told by a snapshot or the closing book of the day before
    ]
)


def order_lifetimes(lake: Path, partition: Partition) -> Iterator[pa.RecordBatch]:
    """Rows of LIFETIMES for every order of a partition, in the order in which they ended; those that rest at the end come last, by entry.

    Orders that end with one record (a clear) come by entry. Memory: the orders alive, and one row group of events. Raises UsageError for a
    level file, which has no orders.
    """
    history = open_history(lake, partition)
    require_orders(history)
    return _Lives(history.starts_empty).run(history)


class _Lives:
    """The book, and beside it the life of every order in it."""

    def __init__(self, starts_empty: bool) -> None:
        self._book = OrderBook(starts_empty=starts_empty)
        self._life = np.zeros(len(self._book.arrays.orders), LIFE)
        self._ended = np.zeros(ENDED_ROOM, LIFE)
        self._tally = np.zeros(TALLY_SIZE, np.int64)

    def run(self, history: History) -> Iterator[pa.RecordBatch]:
        """All rows."""
        history.restore(self._book, None)
        self._grow()
        adopt(self._book.arrays, len(self._book.arrays.prices), self._life, self._tally)
        for piece in history.records(Place(0, 0), _COLUMNS):
            yield from self._apply(piece)
        yield from self._take()
        yield from self._all(-1, RESTING, -1, -1)

    def _apply(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        piece.enter(self._book)
        columns = piece.columns
        n = len(columns["price"])
        rank = np.zeros(n, np.int32)
        self._book.ranks(columns["price"], rank)
        batch = Batch(
            action=columns["action"], side=columns["side"], flags=columns["flags"], rank=rank, size=columns["size"],
            order_id=columns["order_id"], clock=columns["ts_recv"], sequence=columns["sequence"], marks=_NO_MARKS,
        )  # fmt: skip
        times = columns["ts_event"], columns["ts_recv"]
        at, code, settled = 0, -1, -1
        while code != DONE:
            code, at = live_through(
                batch, columns["price"], *times, at, n, self._book.arrays, self._life, self._ended, self._tally, settled,
            )  # fmt: skip
            if code == BOOK_FULL:
                self._book.grow_pool()
                self._grow()
            elif code != DONE:
                yield from self._take()
            if code >= EMPTYING:
                settled = at
                cleared = SNAPSHOT if columns["flags"][at] & F_SNAPSHOT else CLEARED
                yield from self._all(code - EMPTYING - 1, cleared if code == EMPTYING else REPLACED, int(times[0][at]), int(times[1][at]))

    def _grow(self) -> None:
        """As many lives as the pool has places."""
        life = np.zeros(len(self._book.arrays.orders), LIFE)
        life[: len(self._life)] = self._life
        self._life = life

    def _take(self) -> Iterator[pa.RecordBatch]:
        """The lives that have ended one by one."""
        n = int(self._tally[N_ENDED])
        self._tally[N_ENDED] = 0
        if n:
            yield _batch(self._ended[:n])

    def _all(self, side: int, reason: int, ts_event: int, ts_recv: int) -> Iterator[pa.RecordBatch]:
        """All orders of a side (-1: of both) end, or rest at the end."""
        arrays = self._book.arrays
        places = np.zeros(int(arrays.state[LIVE]), np.int64)
        places = places[: living(arrays, len(arrays.prices), side, places)]
        lives = self._life[places]
        lives["left"] = arrays.orders["size"][places]
        lives["end_reason"], lives["end_ts_event"], lives["end_ts_recv"] = reason, ts_event, ts_recv
        lives = lives[np.argsort(lives["entry"])]
        for at in range(0, len(lives), ENDED_ROOM):
            yield _batch(lives[at : at + ENDED_ROOM])


def _batch(lives: np.ndarray) -> pa.RecordBatch:
    """LIFE records as rows of LIFETIMES."""
    rests, undated = lives["end_reason"] == RESTING, lives["from_snapshot"] == CARRIED
    missing = {"ts_event": undated, "ts_recv": undated, "end_ts_event": rests, "end_ts_recv": rests, "duration_ns": rests | undated}
    columns = {name: np.ascontiguousarray(lives[name]) for name in LIFETIMES.names if name != "duration_ns"}
    columns["duration_ns"] = columns["end_ts_event"] - columns["ts_event"]
    arrays: dict[str, pa.Array] = {
        name: pa.array(values, mask=missing.get(name)).cast(LIFETIMES.field(name).type)
        for name, values in columns.items()
        if name not in ("side", "end_reason")
    }
    arrays["side"] = pa.DictionaryArray.from_arrays(char_index(SIDES)[columns["side"]], pa.array(SIDES))
    arrays["end_reason"] = pa.DictionaryArray.from_arrays(columns["end_reason"].astype(np.int8), pa.array(END_REASONS))
    return pa.record_batch([arrays[name] for name in LIFETIMES.names], schema=LIFETIMES)
