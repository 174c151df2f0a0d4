"""Tardis.dev quotes: columns of best bids and offers.

Belongs here: the reader and its batch. Rows are parsed in `tardis_table_kernels.py`. Files of type book_ticker have the same columns and are read
too. Source: docs.tardis.dev, data types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.scanning import tardis_row_kernels as rows
from tasks.scanning import tardis_table_kernels as kernels
from tasks.scanning.batches import BadRow
from tasks.scanning.tardis_formats import QUOTES
from tasks.scanning.tardis_rows import TardisTable, plan_columns

_PLACES = {
    "local_timestamp": rows.CAPTURED, "timestamp": kernels.MADE, "bid_price": kernels.BID_PRICE_AT, "bid_amount": kernels.BID_AMOUNT_AT,
    "ask_price": kernels.ASK_PRICE_AT, "ask_amount": kernels.ASK_AMOUNT_AT,
}  # fmt: skip
_MIN_ROW = 10  # bytes of a good row without exchange, symbol and both sides
BID_PRICE, BID_AMOUNT, ASK_PRICE, ASK_AMOUNT = range(4)  # rows of QuoteBatch.numbers


@dataclass
class QuoteBatch:
    """Consecutive quotes of one file, n rows.

    ts, cts int64[n] ns since the epoch UTC: when Tardis received it, and the exchange's time; line int64[n] 0-based data row; offset int64[n] byte in
    the decompressed stream; numbers int64[4, n]: bid price, bid amount, ask price, ask amount, in units of 10^-digits of the same place; digits
    uint8[4, n], as written. Where a side is empty its price is UNDEF_PRICE (tasks/schemas.py) and its amount 0, both with 0 digits.
    bad: rows that could not be read, among them those with half a side.
    """

    ts: np.ndarray
    cts: np.ndarray
    line: np.ndarray
    offset: np.ndarray
    numbers: np.ndarray
    digits: np.ndarray
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ts)


def open_tardis_quotes(path: str | Path, symbol: str = "") -> TardisQuotes:
    """A reader of a quotes file, plain, gzip or zstd. symbol: of a file that holds several. Errors: see tardis_rows.TardisRows."""
    return TardisQuotes(path, symbol)


class TardisQuotes(TardisTable):
    """Quotes of one symbol, in file order (that of their local time)."""

    def __init__(self, path: str | Path, symbol: str = "") -> None:
        super().__init__(path, symbol, (QUOTES,))
        self._plan = (plan_columns(self.names, _PLACES), self.wanted)
        self._row = self.scratch(kernels.QUOTE_TARGETS)

    def batches(self, batch_bytes: int) -> Iterator[QuoteBatch]:
        """The quotes of about `batch_bytes` of text at a time; for the errors see TardisRows."""
        for lines in self.table_regions(batch_bytes):
            room = (lines.end - lines.pos) // _MIN_ROW + 1
            ts, cts, line, offset = np.empty((4, room), np.int64)
            numbers, digits = np.empty((4, room), np.int64), np.empty((4, room), np.uint8)
            code, lines.pos = kernels.parse_quotes(
                lines.data, lines.pos, lines.end, lines.base, self._plan, self._row, self._state, (ts, cts, line, offset, numbers, digits), self._bad
            )  # fmt: skip
            n, bad = self.taken(code, lines)
            if n or bad:
                yield QuoteBatch(ts[:n], cts[:n], line[:n], offset[:n], numbers[:, :n], digits[:, :n], bad)
