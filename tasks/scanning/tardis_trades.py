"""Tardis.dev trades: columns of prints.

Belongs here: the reader and its batch. Rows are parsed in `tardis_table_kernels.py`. Files of liquidations have the same columns and are told apart
by their names: they are refused. Source: docs.tardis.dev, data types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.scanning import tardis_row_kernels as rows
from tasks.scanning import tardis_table_kernels as kernels
from tasks.scanning.batches import BadRow
from tasks.scanning.tardis_formats import TRADES
from tasks.scanning.tardis_rows import TardisTable, plan_columns

_PLACES = {
    "local_timestamp": rows.CAPTURED, "timestamp": kernels.MADE, "side": kernels.SIDE_AT, "price": kernels.PRICE_AT,
    "amount": kernels.AMOUNT_AT,
}  # fmt: skip
_MIN_ROW = 12  # bytes of a good row without exchange, symbol, id and side


@dataclass
class TradeBatch:
    """Consecutive trades of one file, n rows.

    ts, cts int64[n] ns since the epoch UTC: when Tardis received it, and the exchange's time; side uint8[n] ASCII: the aggressor, B bought, A sold,
    N not known; price, amount int64[n] in units of 10^-price_digits and 10^-amount_digits of the same row, uint8[n], as written; id_text uint8[k],
    id_first int64[n + 1]: the id of row k is id_text[id_first[k]:id_first[k + 1]], empty where the exchange has none; line int64[n] 0-based data row;
    offset int64[n] byte in the decompressed stream; bad: rows that could not be read.
    """

    ts: np.ndarray
    cts: np.ndarray
    side: np.ndarray
    price: np.ndarray
    amount: np.ndarray
    price_digits: np.ndarray
    amount_digits: np.ndarray
    line: np.ndarray
    offset: np.ndarray
    id_text: np.ndarray
    id_first: np.ndarray
    bad: list[BadRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ts)

    def id(self, row: int) -> str:
        """The trade's id as the exchange wrote it."""
        return self.id_text[self.id_first[row] : self.id_first[row + 1]].tobytes().decode("utf-8", "backslashreplace")


def open_tardis_trades(path: str | Path, symbol: str = "") -> TardisTrades:
    """A reader of a trades file, plain, gzip or zstd. symbol: of a file that holds several. Errors: see tardis_rows.TardisRows."""
    return TardisTrades(path, symbol)


class TardisTrades(TardisTable):
    """Trades of one symbol, in file order (that of their local time)."""

    def __init__(self, path: str | Path, symbol: str = "") -> None:
        super().__init__(path, symbol, (TRADES,))
        self._plan = (plan_columns(self.names, _PLACES, rows.TRADE_SIDE), self.wanted)
        self._row = self.scratch(kernels.TRADE_TARGETS)

    def batches(self, batch_bytes: int) -> Iterator[TradeBatch]:
        """The trades of about `batch_bytes` of text at a time; for the errors see TardisRows."""
        for lines in self.table_regions(batch_bytes):
            room = (lines.end - lines.pos) // _MIN_ROW + 1
            wide, narrow = np.int64, np.uint8
            out = [np.empty(room, dtype) for dtype in (wide, wide, narrow, wide, wide, narrow, narrow, wide, wide)]
            text, first = np.empty(lines.end - lines.pos, np.uint8), np.empty(room + 1, np.int64)
            code, lines.pos = kernels.parse_trades(
                lines.data, lines.pos, lines.end, lines.base, self._plan, self._row, self._state, tuple(out), (text, first), self._bad
            )  # fmt: skip
            n, bad = self.taken(code, lines)
            if n or bad:
                ts, cts, side, price, amount, price_digits, amount_digits, line, offset = (column[:n] for column in out)
                ids = text[: first[n]], first[: n + 1]
                yield TradeBatch(ts, cts, side, price, amount, price_digits, amount_digits, line, offset, *ids, bad)
