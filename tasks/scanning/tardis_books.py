"""Tardis.dev book_snapshot_N and book_snapshot_N_interval: books as Tardis rebuilt them, each row a whole one.

Belongs here: the reader and what its rows mean. Rows are parsed in `tardis_table_kernels.py`. The books are the truth for one that is rebuilt from
incremental_book_L2 (tardis_l2.py), and a source of their own.

| file | a row | times |
|---|---|---|
| book_snapshot_N | after each change of the first N levels of a side | timestamp: the exchange's; local_timestamp: of the update's message |
| book_snapshot_N_interval | the book at the end of an interval in which it changed, taken BEFORE the update that crossed that end: it holds every |
| | update with a time before the end, and not that one | timestamp: the end of the interval |

ts is local_timestamp and cts timestamp, whatever the file: to compare interval rows with a rebuilt book, ask it for the state before cts
(updates with cts < T, not <= T). Source: docs.tardis.dev, data types; tardis-node, src/computable/booksnapshot.ts.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np

from tasks.depth_batches import DepthBatch
from tasks.scanning import tardis_row_kernels as rows
from tasks.scanning import tardis_table_kernels as kernels
from tasks.scanning.tardis_formats import BOOKS, interval_of
from tasks.scanning.tardis_rows import TardisTable, depth_batch, plan_columns

_MIN_LEVEL, _MIN_ROW = 4, 6  # bytes of a level (its commas) and of the rest of a row


def open_tardis_books(path: str | Path, symbol: str = "") -> TardisBooks:
    """A reader of a book snapshot file, plain, gzip or zstd. symbol: of a file that holds several.

    Raises SchemaMismatch (other columns, or not all four of each level), EmptySource, CorruptSource, SourceError.
    """
    return TardisBooks(path, symbol)


class TardisBooks(TardisTable):
    """DepthReader (tasks/depth_batches.py) of book snapshots: every row is a SNAPSHOT message, bids from the best on, then asks.

    Levels that are empty or have the amount 0 are left out; a level with a price and no amount, or an amount and no price, makes its row a bad one.
    depth: levels a side; interval_ns: by the file name, 0 for a row per change. Memory: about four blocks and one batch.
    """

    def __init__(self, path: str | Path, symbol: str = "") -> None:
        super().__init__(path, symbol, (BOOKS,))
        self.interval_ns = interval_of(self.named)
        places = {"local_timestamp": rows.CAPTURED, "timestamp": kernels.MADE}
        for level in range(self.depth):
            for k, name in enumerate(("bids[{}].price", "bids[{}].amount", "asks[{}].price", "asks[{}].amount")):
                places[name.format(level)] = kernels.LEVELS_AT + kernels.PER_LEVEL * level + k
        self._plan = (plan_columns(self.names, places), self.wanted)
        self._row = self.scratch(kernels.LEVELS_AT + kernels.PER_LEVEL * self.depth)

    def batches(self, batch_bytes: int) -> Generator[DepthBatch, None, None]:
        """The books of about `batch_bytes` of text at a time, in file order; for the errors see TardisRows."""
        for lines in self.table_regions(batch_bytes):
            room = (lines.end - lines.pos) // (_MIN_ROW + _MIN_LEVEL * self.depth) + 1
            kind, (ts, cts, line, offset) = np.empty(room, np.uint8), np.empty((4, room), np.int64)
            first, levels = np.empty(room + 1, np.int64), 2 * self.depth * room
            (price, size), (side, price_digits, size_digits) = np.empty((2, levels), np.int64), np.empty((3, levels), np.uint8)
            messages, updates = (kind, ts, cts, line, offset, first), (side, price, size, price_digits, size_digits)
            code, lines.pos = kernels.parse_books(
                lines.data, lines.pos, lines.end, lines.base, self._plan, self._row, self.depth, self._state, messages, updates, self._bad
            )  # fmt: skip
            n, bad = self.taken(code, lines)
            if n or bad:
                yield depth_batch(messages, updates, n, bad)
