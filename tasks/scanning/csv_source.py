"""Market-by-order CSV files: Databento's export and the seven-column layout, plain, gzip or zstd.

Belongs here: what a header means, the unit of prices, the names of symbols, the reader. Lines of a stream are in `csv_lines.py`; how they become
numbers in `csv_kernels.py`; which file is of which format in `formats.py`; what becomes of the rows in `decode.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tasks.errors import EmptySource, SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning import csv_field_kernels as field_kernels
from tasks.scanning import csv_kernels as kernels
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.chunks import ByteStream
from tasks.scanning.csv_lines import MAX_BLOCK, MIN_BLOCK, ROW_BYTES, Lines, describe, line_of
from tasks.scanning.csv_symbol_kernels import MAX_SYMBOL, index_symbols
from tasks.schemas import EVENT_DTYPES

BAD_ROWS_AT_ONCE = 4096
# The unit of a Databento file's prices is decided by the lines that lie whole within this many bytes from the header on.
PROBE_BYTES = 1 << 18

_U, _I = kernels.UNSIGNED, kernels.SIGNED
# column -> (kind, target, reason when malformed)
COLUMNS: dict[str, tuple[int, int, int]] = {
    "ts_event": (kernels.TIMESTAMP, kernels.TS_EVENT, field_kernels.TIME),
    "ts_recv": (kernels.TIMESTAMP, kernels.TS_RECV, field_kernels.TIME),
    "publisher_id": (_U, kernels.PUBLISHER, field_kernels.INTEGER),
    "instrument_id": (_U, kernels.INSTRUMENT, field_kernels.INTEGER),
    "action": (kernels.CHAR, kernels.ACTION_AT, field_kernels.ACTION),
    "side": (kernels.CHAR, kernels.SIDE_AT, field_kernels.SIDE),
    "price": (kernels.DECIMAL, kernels.PRICE_AT, field_kernels.PRICE),
    "size": (_U, kernels.SIZE_AT, field_kernels.INTEGER),
    "order_id": (_U, kernels.ORDER_AT, field_kernels.INTEGER),
    "flags": (_U, kernels.FLAGS, field_kernels.INTEGER),
    "channel_id": (_U, kernels.CHANNEL, field_kernels.INTEGER),
    "ts_in_delta": (_I, kernels.DELTA, field_kernels.INTEGER),
    "sequence": (_U, kernels.SEQUENCE, field_kernels.INTEGER),
    "is_last": (kernels.BOOL, kernels.LAST_AT, field_kernels.IS_LAST),
    "symbol": (kernels.TEXT, kernels.SYMBOL_AT, field_kernels.SYMBOL),
}
_NOT_READ = (kernels.SKIP, kernels.NOWHERE, field_kernels.QUOTE)
REQUIRED = {
    "seven-column-csv": ("ts_event", "action", "side", "price", "size", "order_id", "is_last"),
    # Without publisher and instrument several books would be mixed into one.
    "databento-csv": ("ts_event", "publisher_id", "instrument_id", "action", "side", "price", "size", "order_id", "flags"),
}
_LIMITS = np.array([min(np.iinfo(dtype).max, np.iinfo(np.int64).max) for dtype in EVENT_DTYPES.values()], np.int64)
_NUMBER = re.compile(rb"-?(?=\.?\d)\d{0,20}(\.\d*)?")


class SymbolTable:
    """Names by code, in order of first appearance; the kernel fills the arrays, `grow` doubles them when it asks."""

    def __init__(self, slots: int = 64, arena_bytes: int = 1024) -> None:
        self.slots = np.full(slots, -1, np.int32)
        self.starts = np.zeros(slots // 2 + 1, np.int64)
        self.arena = np.zeros(max(arena_bytes, MAX_SYMBOL), np.uint8)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.slots, self.starts, self.arena

    def grow(self, count: int) -> None:
        """Double every array and index the `count` names again."""
        self.slots = np.empty(2 * len(self.slots), np.int32)
        self.starts = np.concatenate([self.starts, np.zeros(len(self.starts) - 1, np.int64)])
        self.arena = np.concatenate([self.arena, np.zeros_like(self.arena)])
        index_symbols(*self.arrays, count)

    def name(self, code: int) -> str:
        return self.arena[self.starts[code] : self.starts[code + 1]].tobytes().decode("utf-8", "backslashreplace")


def plan_columns(path: Path, header: bytes, file_format: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the header's columns, and int64[columns, 3] for `kernels.parse_rows`. Columns that no event has (rtype, an index) are not read.

    Raises SchemaMismatch when a required column is missing or one that is read comes twice.
    """
    names = tuple(name.strip().strip('"').strip() for name in header.decode("utf-8", "backslashreplace").split(","))
    missing = [name for name in REQUIRED[file_format] if name not in names]
    if missing:
        found = ", ".join(names)[:300]
        raise SchemaMismatch(path, f"column(s) missing: {', '.join(missing)}; the header has: {found}", remedy="Add them, or choose another format")
    twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
    if twice:
        raise SchemaMismatch(path, f"column(s) more than once in the header: {', '.join(twice)}", remedy="Rename all but one")
    return names, np.array([COLUMNS.get(name, _NOT_READ) for name in names], np.int64)


def price_mode(lines: bytes, prices: Sequence[int], columns: int) -> int:
    """Whether the prices of these first lines, in the columns `prices` of `columns`, are decimal text or integers in 1e-9.

    Integers when those of at least INTEGER_PRICE_FLOOR outnumber the prices with a point: then the small ones are small (a spread beside its
    outright), and those with a point are bad rows, which must not turn the unit of all others. Else decimal, where there is a price other than
    0: Databento writes all nine decimals, and other writers drop ".0". Without a price, the first one in the file decides.
    """
    pointed = small = large = 0
    for line in lines.split(b"\n"):
        fields = line.rstrip(b"\r").split(b",")
        for column in prices if len(fields) == columns else ():
            text = fields[column].strip(b'"')
            if b"." in text:
                pointed += _NUMBER.fullmatch(text) is not None
            elif _NUMBER.fullmatch(text) and int(text):
                is_large = abs(int(text)) >= field_kernels.INTEGER_PRICE_FLOOR
                large, small = large + is_large, small + (not is_large)
    if large > pointed:
        return field_kernels.INTEGER_PRICES
    return field_kernels.DECIMAL_PRICES if pointed or small else field_kernels.UNDECIDED_PRICES


def stem(path: Path) -> str:
    """File name without the endings of a compressed CSV; the symbol of a file that names none."""
    name = path.name
    for suffix in (".zst", ".zstd", ".gz", ".csv"):
        name = name.removesuffix(suffix)
    return name


class CsvReader:
    """Reader (see `batches.py`) of a "databento-csv" or "seven-column-csv" source.

    Columns are found by the header, in any order. A seven-column file has decimal prices, ts_recv := ts_event, publisher and instrument 0, and
    is_last sets F_LAST. Without a symbol column the symbol is the source's first, else the file's stem; an empty symbol is the stem, of a
    bad row unknown. Letters of action and side are passed on as they are. A row that cannot be read becomes a BadRow; its line costs no other line.
    Memory: about 4 blocks of at most MAX_BLOCK bytes and one batch.
    Raises EmptySource, SchemaMismatch, CorruptSource from `batches`.
    """

    def __init__(self, source: SourceFile, *, block_bytes: int | None = None) -> None:
        if source.format not in REQUIRED:
            raise SchemaMismatch(source.path, f"{source.format!r} is not a CSV format of events; known: {', '.join(REQUIRED)}")
        self.source, self._block_bytes = source, block_bytes
        self._lines: Lines | None = None
        self.symbols: list[str] = []
        self.source_rows = self.expanded_rows = self.bytes_read = 0
        self._table, self._state = SymbolTable(), np.zeros(field_kernels.STATE_SIZE, np.int64)
        self._state[field_kernels.DATE_KEY] = -1

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        """Batches of at most `batch_rows` events, in file order."""
        path = Path(self.source.path)
        block = self._block_bytes or min(max(batch_rows * ROW_BYTES, MIN_BLOCK), MAX_BLOCK)
        self._lines = lines = Lines(path, partial(ByteStream, path), block)
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
        path, header = Path(self.source.path), b""
        while not header and lines.fill(PROBE_BYTES):
            lines.pos += 3 if lines.base + lines.pos == 0 and lines.text.startswith(b"\xef\xbb\xbf") else 0
            header = line_of(lines.text, lines.pos)
            lines.pos = lines.text.index(b"\n", lines.pos) + 1
        if not header:
            raise EmptySource(path, "the file is empty", remedy="Fetch it again or leave it out")
        self._names, self._columns = plan_columns(path, header, self.source.format)
        if "symbol" not in self._names:
            self.symbols.append(self.source.symbols[0] if self.source.symbols else stem(path))
        if self.source.format == "databento-csv":
            head = bytes(lines.text[lines.pos : lines.text.rfind(b"\n", 0, PROBE_BYTES) + 1])
            self._state[field_kernels.PRICE_MODE] = price_mode(head, [self._names.index("price")], len(self._names))

    def _parse(self, lines: Lines, batch_rows: int) -> RawBatch:
        # A row has at least one byte per column, so small regions get small arrays.
        rows = max(1, min(batch_rows, (lines.end - lines.pos) // len(self._names) + 1))
        columns = {name: np.empty(rows, dtype) for name, dtype in EVENT_DTYPES.items()}
        start, source_row, code = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int32)
        bad = np.empty((BAD_ROWS_AT_ONCE, kernels.BAD_SIZE), np.int64)
        why, lines.pos, n, n_bad = kernels.parse_rows(
            lines.data, lines.pos, lines.end, self._columns, _LIMITS, self._state, self._table.arrays, tuple(columns.values()),
            start, source_row, code, bad, np.zeros(16, np.int64),
        )  # fmt: skip
        count = int(self._state[field_kernels.SYMBOL_COUNT])
        if why == kernels.SYMBOLS_FULL:
            self._table.grow(count)
        if "symbol" in self._names:
            self.symbols += [self._table.name(k) or stem(Path(self.source.path)) for k in range(len(self.symbols), count)]
        self.source_rows, self.bytes_read = int(self._state[field_kernels.ROW]), lines.stream.bytes_read
        text, base = lines.text, lines.base

        def raw(row: int) -> tuple[int, bytes]:
            return base + int(start[row]), line_of(text, int(start[row]))

        return RawBatch(
            {name: values[:n] for name, values in columns.items()}, code[:n], source_row[:n], raw,
            [self._bad_row(entry, text, base) for entry in bad[:n_bad].tolist()],
        )  # fmt: skip

    def _bad_row(self, entry: list[int], text: bytearray, base: int) -> BadRow:
        before, row, start, length, status, column, code, *_ = entry
        raw = line_of(text, start, length)
        return BadRow(before, row, base + start, raw, field_kernels.REASONS[status], describe(status, column, self._names, raw), code)

    def close(self) -> None:
        """Stop reading; harmless when done."""
        if self._lines is not None:
            self._lines.close()
