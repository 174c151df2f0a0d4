"""What is known of the partitions of a source while it is read: their keys, their counts, and the rows before which something is missing.

The counting itself is in route_kernels.py; what becomes of the rows is in routing.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.partitions import Partition, SourceFile
from tasks.scanning import route_kernels as rk
from tasks.scanning.formats import ITCH


@dataclass(frozen=True)
class Lost:
    """Rows of a batch that could not be read: before int64[m] ascending positions in the batch, code int32[m] symbol or -1."""

    before: np.ndarray
    code: np.ndarray


class PartitionTable:
    """The partitions met so far, what is counted for each, and the rows before which something is missing."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self.symbols: Sequence[str] = ()
        self._keys = np.zeros((1024, 4), np.int64)
        self._stats = np.zeros((1024, rk.N_STATS), np.int64)
        self._slots = np.full(4096, -1, np.int32)
        self._cursor = np.zeros(4, np.int64)
        self._generation = np.zeros(1, np.int64)
        self._marks: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return int(self._cursor[rk.PARTITIONS])

    def assign(
        self, symbols: Sequence[str], code: np.ndarray, columns: dict[str, np.ndarray], dropped: np.ndarray, bad: np.ndarray, lost: Lost
    ) -> tuple[np.ndarray, np.ndarray]:
        """(partition number int32[n] or -1, event row int64[n] or -1) of each row; see `route_rows`."""
        n = len(code)
        self.symbols = symbols
        if len(self._generation) <= len(symbols):
            self._generation = np.concatenate([self._generation, np.zeros(len(symbols) + 1 - len(self._generation), np.int64)])
        part, event_row = np.empty(n, np.int32), np.empty(n, np.int64)
        mark_part, mark_row = np.empty(n, np.int32), np.empty(n, np.int64)
        cursor = self._cursor
        cursor[rk.ROW], cursor[rk.LOST], cursor[rk.MARKED] = 0, 0, 0
        while not rk.route_rows(
            columns["ts_event"], columns["ts_recv"], columns["publisher_id"], columns["instrument_id"], columns["price"], code, dropped, bad,
            lost.before, lost.code, cursor, self._keys, self._slots, self._stats, self._generation, part, event_row, mark_part, mark_row,
        ):  # fmt: skip
            self._grow()
        if marked := int(cursor[rk.MARKED]):
            self._marks.append((mark_part[:marked].copy(), mark_row[:marked].copy()))
        return part, event_row

    def _grow(self) -> None:
        n = len(self)
        self._keys = np.concatenate([self._keys, np.zeros_like(self._keys)])
        self._stats = np.concatenate([self._stats, np.zeros_like(self._stats)])
        self._slots = np.full(4 * len(self._keys), -1, np.int32)
        rk.rehash(self._keys, n, self._slots, self._cursor)

    def lose_rest(self) -> None:
        """Note that the source broke off: every partition misses rows at its end."""
        self._generation[0] += 1

    def close(self) -> None:
        """Turn gaps that no row followed into marks at the end of their partitions."""
        stats, n = self._stats[: len(self)], len(self)
        symbol = self._keys[:n, 0] + 1
        waiting = stats[:, rk.DIRTY] != 0
        waiting |= (stats[:, rk.SEEN_ALL] != self._generation[0]) | (stats[:, rk.SEEN_SYMBOL] != self._generation[symbol])
        stats[waiting, rk.MARKS] += 1
        ends = np.flatnonzero(waiting & (stats[:, rk.MARKS] <= rk.MARK_CAP))
        self._marks.append((ends.astype(np.int32), stats[ends, rk.ROWS_OUT]))
        parts, rows = (np.concatenate(column) for column in zip(*self._marks, strict=True))
        order = np.argsort(parts, kind="stable")
        self._mark_rows, self._borders = rows[order], np.searchsorted(parts[order], np.arange(n + 1))

    def partition(self, p: int) -> Partition:
        """The partition with number p."""
        code, publisher, instrument, day = self._keys[p].tolist()
        return Partition(self._source.dataset, str(np.datetime64(day, "D")), self.symbols[code], publisher, instrument)

    def symbol(self, p: int) -> str:
        """The symbol of the partition with number p."""
        return self.symbols[int(self._keys[p, 0])]

    def stat(self, p: int, column: int) -> int:
        """One counter of a partition; the columns are named in route_kernels.py."""
        return int(self._stats[p, column])

    def total(self, column: int) -> int:
        """One counter summed over all partitions."""
        return int(self._stats[: len(self), column].sum())

    def facts(self, p: int) -> dict[str, Any]:
        """What the footer of the events file of partition p says, see `decode`. After `close`."""
        stats = self._stats[p].tolist()
        priced = stats[rk.MIN_PRICE] <= stats[rk.MAX_PRICE]
        facts = {
            "source": self._source.name,
            "fingerprint": self._source.fingerprint,
            "rows_in": stats[rk.ROWS_IN],
            "rows_out": stats[rk.ROWS_OUT],
            "filtered": {"time": stats[rk.FILTERED]} if stats[rk.FILTERED] else {},
            "quarantined": stats[rk.QUARANTINED],
            "suspect_rows": self._mark_rows[self._borders[p] : self._borders[p + 1]].tolist(),
            "out_of_order": stats[rk.OUT_OF_ORDER],
            "min_price": stats[rk.MIN_PRICE] if priced else None,
            "max_price": stats[rk.MAX_PRICE] if priced else None,
        }
        for name, column in (
            ("first_ts_recv", rk.FIRST_RECV), ("last_ts_recv", rk.LAST_RECV), ("first_ts_event", rk.FIRST_EVENT), ("last_ts_event", rk.LAST_EVENT),
        ):  # fmt: skip
            facts[name] = stats[column]
        if self._source.format == ITCH:  # its N records with a price tell the trading state
            facts["trading_states"] = True
        if stats[rk.MARKS] > rk.MARK_CAP:
            facts["suspect_rows_capped"] = True
        return facts
