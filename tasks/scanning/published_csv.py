"""Published books as CSV, plain, gzip or zstd: what a header means, the unit of prices, the reader. Lines become numbers in published_kernels.py."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tasks.errors import EmptySource, SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning import csv_field_kernels as field_kernels
from tasks.scanning import published_kernels as kernels
from tasks.scanning.batches import BadRow
from tasks.scanning.chunks import ByteStream
from tasks.scanning.csv_kernels import BAD_SIZE, SYMBOLS_FULL
from tasks.scanning.csv_lines import MAX_BLOCK, MIN_BLOCK, Lines, describe, line_of
from tasks.scanning.csv_source import BAD_ROWS_AT_ONCE, PROBE_BYTES, SymbolTable, price_mode
from tasks.scanning.published_batches import ACTION, PublishedBatch, columns_of
from tasks.scanning.published_formats import Published

_LARGEST = {"publisher_id": 2**16 - 1, "flags": 255, "instrument_id": 2**32 - 1, "sequence": 2**32 - 1, "ct": 2**32 - 1}
_I64_MAX = 2**63 - 1
_LEVEL_BYTES, _HEAD_BYTES = 40, 128  # of a row, about


def plan_columns(path: Path, header: bytes, found: Published) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names of the header's columns, int64[c, 3] and limits int64[c] for `kernels.parse_published`; columns without a place are not read.

    Raises SchemaMismatch when one that is read comes twice.
    """
    names = tuple(name.strip().strip('"').strip() for name in header.decode("utf-8", "backslashreplace").split(","))
    places = {name: place for place, name in enumerate(columns_of(found.depth))}
    twice = sorted({name for name in names if (name in places or name == "symbol") and names.count(name) > 1})
    if twice:
        raise SchemaMismatch(path, f"column(s) more than once in the header: {', '.join(twice)}", remedy="Rename all but one")
    plan = [(*_kind(name, found), places.get(name, 0)) if name in places or name == "symbol" else (kernels.SKIP, 0, 0) for name in names]
    limits = [_LARGEST.get(name, _LARGEST.get(name[4:6], _I64_MAX)) for name in names]
    return names, np.array([(kind, place, reason) for kind, reason, place in plan], np.int64), np.array(limits, np.int64)


def _kind(name: str, found: Published) -> tuple[int, int]:
    """How a column is read, and the reason of a row where it cannot be."""
    if name == "symbol":
        return kernels.TEXT, field_kernels.SYMBOL
    if name == "action":
        return kernels.CHAR, field_kernels.ACTION
    if name == "ts_event" and not found.by_row:
        return kernels.MAYBE_TIME, field_kernels.TIME
    if name.startswith("ts_"):
        return kernels.TIMESTAMP, field_kernels.TIME
    return (kernels.DECIMAL, field_kernels.PRICE) if "_px_" in name else (kernels.UNSIGNED, field_kernels.INTEGER)


class PublishedCsv:
    """Reader (published_batches.py) of a CSV file. Columns are found by the header, in any order; a row that cannot be read costs no other row.

    Without a symbol column the symbol is the source's; an empty symbol is the file name up to the first dot, of a bad row unknown.
    Memory: about four blocks of at most MAX_BLOCK bytes and one batch.
    """

    def __init__(self, source: SourceFile, found: Published, *, block_bytes: int | None = None) -> None:
        self._path, self._found, self._block_bytes = Path(source.path), found, block_bytes
        self._lines: Lines | None = None
        self._named = source.symbols[0] if source.symbols else self._path.name.split(".")[0]
        self.symbols: list[str] = []
        self.source_rows = 0
        self._table, self._state = SymbolTable(), np.zeros(field_kernels.STATE_SIZE, np.int64)
        self._state[field_kernels.DATE_KEY] = -1

    def batches(self, batch_rows: int) -> Iterator[PublishedBatch]:
        """Batches of at most `batch_rows` rows, in file order. Raises EmptySource, SchemaMismatch, CorruptSource."""
        row_bytes = _HEAD_BYTES + _LEVEL_BYTES * self._found.depth
        block = self._block_bytes or min(max(batch_rows * row_bytes, MIN_BLOCK), MAX_BLOCK)
        self._lines = lines = Lines(self._path, partial(ByteStream, self._path), block)
        try:
            self._start(lines)
            while lines.fill():
                batch = self._parse(lines, batch_rows)
                if len(batch) or batch.bad:
                    yield batch
        finally:
            self.close()

    def _start(self, lines: Lines) -> None:
        """Read the header and decide the unit of the prices."""
        header = b""
        while not header and lines.fill(PROBE_BYTES):
            lines.pos += 3 if lines.base + lines.pos == 0 and lines.text.startswith(b"\xef\xbb\xbf") else 0
            header = line_of(lines.text, lines.pos)
            lines.pos = lines.text.index(b"\n", lines.pos) + 1
        if not header:
            raise EmptySource(self._path, "the file is empty", remedy="Fetch it again or leave it out")
        self._names, self._columns, self._limits = plan_columns(self._path, header, self._found)
        if "symbol" not in self._names:
            self.symbols.append(self._named)
        head = bytes(lines.text[lines.pos : lines.text.rfind(b"\n", 0, PROBE_BYTES) + 1])
        prices = [column for column, name in enumerate(self._names) if "_px_" in name]
        self._state[field_kernels.PRICE_MODE] = price_mode(head, prices, len(self._names))

    def _parse(self, lines: Lines, batch_rows: int) -> PublishedBatch:
        # A row has at least one byte per column, so small regions get small arrays.
        rows = max(1, min(batch_rows, (lines.end - lines.pos) // len(self._names) + 1))
        values = np.empty((len(columns_of(self._found.depth)), rows), np.int64)
        values[ACTION] = 0
        start, source_row, code = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int32)
        bad = np.empty((BAD_ROWS_AT_ONCE, BAD_SIZE), np.int64)
        why, lines.pos, n, n_bad = kernels.parse_published(
            lines.data, lines.pos, lines.end, self._columns, self._limits, self._state, self._table.arrays, values, start, source_row, code, bad
        )  # fmt: skip
        count = int(self._state[field_kernels.SYMBOL_COUNT])
        if why == SYMBOLS_FULL:
            self._table.grow(count)
        if "symbol" in self._names:
            self.symbols += [self._table.name(k) or self._path.name.split(".")[0] for k in range(len(self.symbols), count)]
        self.source_rows = int(self._state[field_kernels.ROW])
        text, base = lines.text, lines.base

        def raw(row: int) -> tuple[int, bytes]:
            return base + int(start[row]), line_of(text, int(start[row]))

        return PublishedBatch(values[:, :n], code[:n], source_row[:n], raw, [self._bad_row(entry, text, base) for entry in bad[:n_bad].tolist()])

    def _bad_row(self, entry: list[int], text: bytearray, base: int) -> BadRow:
        before, row, start, length, status, column, code, *_ = entry
        raw = line_of(text, start, length)
        return BadRow(before, row, base + start, raw, field_kernels.REASONS[status], describe(status, column, self._names, raw), code)

    def close(self) -> None:
        """Stop reading; harmless when done."""
        if self._lines is not None:
            self._lines.close()
