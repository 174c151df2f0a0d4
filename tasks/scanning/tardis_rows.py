"""Readers of Tardis files: what those of all layouts share.

Belongs here: the plan of the columns, the symbol that is read, regions of lines, bad rows. What rows become is in tardis_l2.py, tardis_books.py,
tardis_trades.py and tardis_quotes.py, one a layout; layouts and file names are in tardis_formats.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.depth_batches import NO_ID, DepthBatch
from tasks.errors import CorruptSource, EmptySource, SchemaMismatch
from tasks.scanning import csv_field_kernels as csv_fields
from tasks.scanning import tardis_formats as formats
from tasks.scanning import tardis_row_kernels as kernels
from tasks.scanning import tardis_table_kernels as table_kernels
from tasks.scanning.batches import BadRow
from tasks.scanning.chunks import ByteStream
from tasks.scanning.csv_lines import Lines, describe, line_of
from tasks.scanning.csv_source import SymbolTable
from tasks.scanning.tardis_field_kernels import DIGITS, IS_SNAPSHOT, REASONS
from tasks.scanning.tardis_symbol_kernels import collect_symbols

BAD_ROWS_AT_ONCE = 4096
SYMBOLS_BLOCK = 1 << 20
# column -> (kind, reason when malformed); what the layouts call by the same name is read the same way.
_KINDS = {
    "exchange": (kernels.SKIP, csv_fields.QUOTE),
    "symbol": (kernels.SYMBOL, csv_fields.SYMBOL),
    "timestamp": (kernels.MICROS, csv_fields.TIME),
    "local_timestamp": (kernels.MICROS, csv_fields.TIME),
    "is_snapshot": (kernels.FLAG, IS_SNAPSHOT),
    "id": (kernels.TEXT, csv_fields.QUOTE),
    "price": (kernels.PRICE, csv_fields.PRICE),
    "amount": (kernels.AMOUNT, csv_fields.INTEGER),
}
_HINTS = {
    "update_type": "These are the columns of Binance's own depth files (..._depthUpdate, ..._depthSnap), not of Tardis.dev",
    "ts_event": "These look like the columns of a file of events, not of Tardis.dev",
}


def plan_columns(names: tuple[str, ...], places: dict[str, int], side: int = kernels.SKIP) -> np.ndarray:
    """int64[columns, 3] for the kernels: kind, target, reason. places: target by name; columns without one are not read, but the symbol is.

    side: how the column "side" is read. Prices and amounts of books and quotes (asks[0].price, bid_amount) may be empty.
    """
    plan = []
    for name in names:
        kind, reason = _KINDS.get(name, (kernels.SKIP, csv_fields.QUOTE))
        if name == "side":
            kind, reason = side, csv_fields.SIDE
        elif name not in _KINDS and name in places:
            is_price = name.endswith("price")
            kind, reason = (kernels.MAYBE_PRICE, csv_fields.PRICE) if is_price else (kernels.MAYBE_AMOUNT, csv_fields.INTEGER)
        read = name in places or name in ("symbol", "id")
        plan.append((kind if read else kernels.SKIP, places.get(name, kernels.NOWHERE), reason))
    return np.array(plan, np.int64)


class TardisRows:
    """One symbol's rows of one Tardis file, a region of lines at a time; the base of the readers.

    symbol: as given, else the first row's ("" in a file without rows); exchange: of the first row; lines: data rows met so far, those of other
    symbols and bad ones included; other_rows: of other symbols; bytes_read: of the file as stored.
    Raises SchemaMismatch when the columns are not those of `kinds` or times are not microseconds, EmptySource, CorruptSource where the beginning is
    damaged, and from the reading: CorruptSource where the file breaks, SchemaMismatch at a row of another symbol when none was asked for.
    """

    def __init__(self, path: str | Path, symbol: str, kinds: tuple[str, ...]) -> None:
        self.path, self.bytes_read = Path(path), 0
        head = formats.read_head(self.path)
        self.names = head.names
        kind, self.depth = formats.kind_of(head.names)
        self.named = formats.name_parts(self.path)
        if not head.names and head.fault:
            raise CorruptSource(self.path, head.fault, offset=0, remedy="Fetch the file again")
        if not head.names:
            raise EmptySource(self.path, "the file is empty", remedy="Fetch it again or leave it out")
        self._check_kind(kind, kinds)
        self._check_head(head)
        self.exchange = next(iter(head.column("exchange")), "")
        self.symbol = symbol or next(iter(head.column("symbol")), "")
        self.wanted = np.frombuffer(self.symbol.encode(), np.uint8).copy()
        self._one_symbol = not symbol
        self._lines: Lines | None = None
        self._state = np.zeros(kernels.STATE_SIZE, np.int64)

    def _check_kind(self, kind: str, kinds: tuple[str, ...]) -> None:
        if kind == formats.TRADES and self.named.get("type") == formats.LIQUIDATIONS:
            kind = formats.LIQUIDATIONS
        if kind in kinds:
            return
        wanted, found = formats.REQUIRED.get(kinds[0], formats.HEAD), ", ".join(self.names)[:300]
        missing = [name for name in wanted if name not in self.names]
        hint = next((text for name, text in _HINTS.items() if name in self.names), f"Give a file of Tardis.dev of type {kinds[0]}")
        problem = f"is a Tardis.dev file of {kind}" if kind else f"lacks column(s) {', '.join(missing) or 'of whole levels'}; the header has: {found}"
        raise SchemaMismatch(self.path, problem, remedy=hint)

    def _check_head(self, head: formats.TardisHead) -> None:
        twice = sorted({name for name in head.names if head.names.count(name) > 1})
        if twice:
            raise SchemaMismatch(self.path, f"column(s) more than once in the header: {', '.join(twice)}", remedy="Rename all but one")
        times = [int(text) for text in head.column("local_timestamp") if text.isascii() and text.isdecimal() and len(text) < 20]
        if times and not any(formats.EARLIEST_US <= time < formats.LATEST_US for time in times):
            problem = f"local_timestamp {times[0]} is not in microseconds since 1970"
            raise SchemaMismatch(self.path, problem, row=0, remedy="Tardis.dev's times are; multiply or divide them before")

    def new_state(self, size: int) -> np.ndarray:
        """The kernels' state at the file's start, which the counters are read from."""
        self._state = np.zeros(size, np.int64)
        self._state[kernels.ONE_SYMBOL] = self._one_symbol
        return self._state

    @property
    def lines(self) -> int:
        return int(self._state[kernels.ROWS])

    @property
    def other_rows(self) -> int:
        return int(self._state[kernels.OTHERS])

    @property
    def left_out(self) -> dict[str, int]:
        """Rows so far that are in no batch and not bad, by reason."""
        return {"symbol": self.other_rows, "header": int(self._state[kernels.HEADERS])}

    @property
    def lines_are_updates(self) -> bool:
        """Whether a row is a level update; else it is a message."""
        return False

    def regions(self, block_bytes: int) -> Iterator[Lines]:
        """The lines after the header, as soon as about `block_bytes` of them are there; the caller takes each region before the next."""
        self._lines = lines = Lines(self.path, partial(ByteStream, self.path), max(block_bytes, 1))
        try:
            self._skip_header(lines)
            while lines.fill():
                self.bytes_read = lines.stream.bytes_read
                yield lines
            self.bytes_read = lines.stream.bytes_read
        finally:
            self.close()

    def _skip_header(self, lines: Lines) -> None:
        header = b""
        while not header.strip() and lines.fill():
            header = line_of(lines.text, lines.pos)
            lines.pos = lines.text.index(b"\n", lines.pos) + 1

    def check_mixed(self, code: int, lines: Lines) -> None:
        """Raise when a kernel came back because of a row of another symbol."""
        if code != kernels.MIXED:
            return
        cells = line_of(lines.text, lines.pos).decode("utf-8", "backslashreplace").split(",")
        other = cells[self.names.index("symbol")].strip('"')
        problem = f"holds several symbols: a row of {other!r} after rows of {self.symbol!r}"
        remedy = f"Name the one to read, symbol={self.symbol!r}; tardis_rows.symbols(path) lists them"
        raise SchemaMismatch(self.path, problem, offset=lines.base + lines.pos, row=self.lines, remedy=remedy)

    def bad_rows(self, entries: np.ndarray, lines: Lines) -> list[BadRow]:
        """Bad rows, with `before` as the kernel left it."""
        return [self._bad_row(entry, lines) for entry in entries.tolist()]

    def scratch(self, targets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, digits and spans of one row, for the kernels."""
        return np.zeros(targets, np.int64), np.zeros(targets, np.int64), np.zeros(2, np.int64)

    def _bad_row(self, entry: list[int], lines: Lines) -> BadRow:
        before, row, start, length, status, column, _ = entry
        raw = line_of(lines.text, start, length)
        detail = describe(status, column, self.names, raw)
        if status == DIGITS:
            detail += ", with more than 18 decimals"
        return BadRow(before, row, lines.base + start, raw, REASONS[status], detail, 0)

    def close(self) -> None:
        """Stop reading; harmless when done."""
        if self._lines is not None:
            self._lines.close()


class TardisTable(TardisRows):
    """Readers of layouts in which each row stands for itself. Memory: about four blocks and one batch."""

    def table_regions(self, batch_bytes: int) -> Iterator[Lines]:
        """Regions to be parsed into arrays of their own, from the file's start on; `taken` is to be called after each."""
        self._state = self.new_state(table_kernels.TABLE_STATE_SIZE)
        self._bad = np.empty((BAD_ROWS_AT_ONCE, kernels.BAD_SIZE), np.int64)
        for lines in self.regions(batch_bytes):
            self._state[[kernels.BADS, table_kernels.TAKEN, table_kernels.FILLED]] = 0
            yield lines

    def taken(self, code: int, lines: Lines) -> tuple[int, list[BadRow]]:
        """Rows that the kernel made, and the bad ones; code: why it came back. Raises SchemaMismatch at a row of another symbol."""
        self.check_mixed(code, lines)
        return int(self._state[table_kernels.TAKEN]), self.bad_rows(self._bad[: self._state[kernels.BADS]], lines)


def depth_batch(messages: tuple[np.ndarray, ...], updates: tuple[np.ndarray, ...], n: int, bad: list[Any]) -> DepthBatch:
    """The first n messages of the kernels' arrays, without copying them. messages: kind, ts, cts, line, offset, first; updates: side, price, size,
    price_digits, size_digits; bad: batches.BadRow."""
    kind, ts, cts, line, offset, first = messages
    side, price, size, price_digits, size_digits = (column[: first[n]] for column in updates)
    ids = np.full(n, NO_ID, np.int64)
    head = (kind[:n], ts[:n], cts[:n], ids, ids, line[:n], offset[:n], first[: n + 1])
    return DepthBatch(*head, side, price, size, price_digits, size_digits, bad)


def symbols(path: str | Path) -> list[str]:
    """Symbols of a Tardis file of any layout, in order of first appearance; one pass over all of it. A header among the rows is none. Errors as
    TardisRows."""
    reader = TardisRows(path, "", (formats.L2, formats.BOOKS, formats.TRADES, formats.QUOTES, formats.LIQUIDATIONS))
    table, state = SymbolTable(), np.zeros(csv_fields.STATE_SIZE, np.int64)
    column = reader.names.index("symbol")
    for lines in reader.regions(SYMBOLS_BLOCK):
        lines.pos = collect_symbols(lines.data, lines.pos, lines.end, len(reader.names), column, *table.arrays, state)
        if lines.pos < lines.end:
            table.grow(int(state[csv_fields.SYMBOL_COUNT]))
    names = [table.name(code) for code in range(int(state[csv_fields.SYMBOL_COUNT]))]
    return [name for name in names if name != formats.HEADER_CELL]
