"""Market-by-order CSV files: Databento's export and the seven-column layout, plain, gzip or zstd.

Belongs here: whole lines of a stream (LOBSTER's too), what a header means, the reader. Decompression is in `chunks.py`; how bytes become numbers in
`csv_kernels.py`; which file is of which format in `formats.py`; what becomes of the rows in `decode.py`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError
from tasks.partitions import SourceFile
from tasks.scanning import csv_kernels as kernels
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.chunks import ByteStream, read_ahead
from tasks.schemas import EVENT_DTYPES

# Rows of both layouts are 60 to 140 bytes: one block gives about one batch.
ROW_BYTES, MIN_BLOCK, MAX_BLOCK = 128, 1 << 16, 1 << 23
BAD_ROWS_AT_ONCE = 4096
# The unit of a Databento file's prices is decided by the lines that lie whole within this many bytes from the header on.
PROBE_BYTES = 1 << 18
_NEWLINE = 10

_U, _I = kernels.UNSIGNED, kernels.SIGNED
# column -> (kind, target, reason when malformed)
COLUMNS: dict[str, tuple[int, int, int]] = {
    "ts_event": (kernels.TIMESTAMP, kernels.TS_EVENT, kernels.TIME),
    "ts_recv": (kernels.TIMESTAMP, kernels.TS_RECV, kernels.TIME),
    "publisher_id": (_U, kernels.PUBLISHER, kernels.INTEGER),
    "instrument_id": (_U, kernels.INSTRUMENT, kernels.INTEGER),
    "action": (kernels.CHAR, kernels.ACTION_AT, kernels.ACTION),
    "side": (kernels.CHAR, kernels.SIDE_AT, kernels.SIDE),
    "price": (kernels.DECIMAL, kernels.PRICE_AT, kernels.PRICE),
    "size": (_U, kernels.SIZE_AT, kernels.INTEGER),
    "order_id": (_U, kernels.ORDER_AT, kernels.INTEGER),
    "flags": (_U, kernels.FLAGS, kernels.INTEGER),
    "channel_id": (_U, kernels.CHANNEL, kernels.INTEGER),
    "ts_in_delta": (_I, kernels.DELTA, kernels.INTEGER),
    "sequence": (_U, kernels.SEQUENCE, kernels.INTEGER),
    "is_last": (kernels.BOOL, kernels.LAST_AT, kernels.IS_LAST),
    "symbol": (kernels.TEXT, kernels.SYMBOL_AT, kernels.SYMBOL),
}
_NOT_READ = (kernels.SKIP, kernels.NOWHERE, kernels.QUOTE)
REQUIRED = {
    "seven-column-csv": ("ts_event", "action", "side", "price", "size", "order_id", "is_last"),
    # Without publisher and instrument several books would be mixed into one.
    "databento-csv": ("ts_event", "publisher_id", "instrument_id", "action", "side", "price", "size", "order_id", "flags"),
}
_LIMITS = np.array([min(np.iinfo(dtype).max, np.iinfo(np.int64).max) for dtype in EVENT_DTYPES.values()], np.int64)
_NUMBER = re.compile(rb"-?(?=\.?\d)\d{0,20}(\.\d*)?")


class Stream(Protocol):
    """What `Lines` reads: a `chunks.ByteStream`, or a member of a zip."""

    path: Path
    fault: str

    @property
    def bytes_read(self) -> int: ...

    def fill(self, view: memoryview) -> int: ...

    def close(self) -> None: ...


class Lines:
    """Whole lines of a file, decompressed ahead in a thread, a region at a time.

    data uint8[n], of which data[pos:end] is to be taken, data[end - 1] a newline (one is added to a last line without); text: the same bytes;
    base: offset of data[0] in the decompressed stream. The caller moves `pos`. A line longer than kernels.MAX_LINE comes in a region of its own, cut
    but still too long, and the next region starts behind its end: memory is a few blocks and one such line, whatever the file.
    Raises SourceError when the file cannot be opened.
    """

    def __init__(self, path: Path, open_stream: Callable[[], Stream], block_bytes: int) -> None:
        try:
            self.stream = open_stream()
        except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as fault:
            raise SourceError(path, f"cannot be opened: {fault}", remedy="Check the path and the permissions") from fault
        self.path, self.block_bytes = path, block_bytes
        self.text, self.data, self.pos, self.end, self.base = bytearray(), np.empty(0, np.uint8), 0, 0, 0
        self._blocks: Any = read_ahead(self.stream, block_bytes)  # type: ignore[arg-type]
        self._carry, self._carry_at, self._in_long_line = bytearray(), 0, False
        self._ended = False
        self._fault: OSError | None = None

    def fill(self, at_least: int = 1) -> bool:
        """Make sure that a line is there to take, False at the end of the file. A new region has `at_least` bytes less one line, where the file has.

        Raises CorruptSource where the stream breaks, after all whole lines before the break; SourceError (transient) where the disk fails.
        """
        while self.pos == self.end:
            if len(self._carry) >= at_least or self._ended:
                if cut := self._carry.rfind(b"\n") + 1:
                    self._show(self._carry[:cut], cut)
                elif len(self._carry) > kernels.MAX_LINE + 1:  # + 1: a carriage return may be its last byte
                    self._show(self._carry[: kernels.MAX_LINE] + b"..\n", len(self._carry))
                    self._in_long_line = True
                elif self._ended:
                    self._raise_fault()
                    if self._carry:
                        self._show(self._carry + b"\n", len(self._carry))
                if self._ended or self.pos < self.end:
                    break
            self._take_block()
        return self.pos < self.end

    def _take_block(self) -> None:
        """Append the next block to the carry, without what belongs to a long line; take note of the end."""
        try:
            block = next(self._blocks, None)
        except OSError as fault:
            block, self._fault = None, fault
        if block is None:
            self._ended = True
        elif self._in_long_line:
            found = np.flatnonzero(block == _NEWLINE)
            cut = int(found[0]) + 1 if len(found) else len(block)
            self._carry_at, self._in_long_line = self._carry_at + cut, not len(found)
            self._carry += block[cut:].data
        else:
            self._carry += block.data

    def _show(self, text: bytearray, taken: int) -> None:
        self.text, self.data, self.pos, self.end = text, np.frombuffer(text, np.uint8), 0, len(text)
        self.base = self._carry_at
        self._carry_at += taken
        del self._carry[:taken]

    def _raise_fault(self) -> None:
        at = self._carry_at + len(self._carry)
        if self._fault is not None:
            error = SourceError(self.path, f"cannot be read: {self._fault}", offset=at)
            error.transient = True
            raise error from self._fault
        if self.stream.fault:
            raise CorruptSource(self.path, self.stream.fault, offset=at, remedy="Fetch the file again; every whole row before was read")

    def close(self) -> None:
        """Stop the thread and close the file."""
        self._blocks.close()
        self.stream.close()


def line_of(text: bytearray, start: int, length: int = -1) -> bytes:
    """The bytes of the line at text[start], without its end; at most kernels.MAX_LINE of them. length: where known."""
    stop = start + length if length >= 0 else text.find(b"\n", start)
    line = bytes(text[start : min(stop, start + kernels.MAX_LINE + 1)])
    return line.removesuffix(b"\r")[: kernels.MAX_LINE]


def describe(status: int, column: int, names: tuple[str, ...], raw: bytes) -> str:
    """What is wrong with a bad line, for a person: the column and its text, or the number of fields."""
    if status == kernels.LINE_TOO_LONG:
        return f"no line end within {kernels.MAX_LINE:,} bytes; the first {len(raw):,} are kept"
    if status == kernels.COLUMNS:
        return f"{column} fields, expected {len(names)}"
    if status == kernels.QUOTE or not 0 <= column < len(names):
        return "a quote that does not enclose one whole field"
    text = raw.split(b",")[column][:80].decode("utf-8", "backslashreplace")
    return f"{names[column]} is {text!r}"


class SymbolTable:
    """Names by code, in order of first appearance; the kernel fills the arrays, `grow` doubles them when it asks."""

    def __init__(self, slots: int = 64, arena_bytes: int = 1024) -> None:
        self.slots = np.full(slots, -1, np.int32)
        self.starts = np.zeros(slots // 2 + 1, np.int64)
        self.arena = np.zeros(max(arena_bytes, kernels.MAX_SYMBOL), np.uint8)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.slots, self.starts, self.arena

    def grow(self, count: int) -> None:
        """Double every array and index the `count` names again."""
        self.slots = np.empty(2 * len(self.slots), np.int32)
        self.starts = np.concatenate([self.starts, np.zeros(len(self.starts) - 1, np.int64)])
        self.arena = np.concatenate([self.arena, np.zeros_like(self.arena)])
        kernels.index_symbols(*self.arrays, count)

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


def price_mode(lines: bytes, column: int, columns: int) -> int:
    """Whether the prices of these first lines are decimal text or integers in 1e-9.

    One price with a point, or one other than 0 below kernels.INTEGER_PRICE_FLOOR, makes them decimal: Databento writes all nine decimals, and other
    writers drop ".0". If all are integers above, they are in 1e-9. Without a price, the first one in the file decides by the same rule.
    """
    found = kernels.UNDECIDED_PRICES
    for line in lines.split(b"\n"):
        fields = line.rstrip(b"\r").split(b",")
        text = fields[column].strip(b'"') if len(fields) == columns else b""
        if not _NUMBER.fullmatch(text) or (b"." not in text and int(text) == 0):
            continue
        if b"." in text or abs(int(text)) < kernels.INTEGER_PRICE_FLOOR:
            return kernels.DECIMAL_PRICES
        found = kernels.INTEGER_PRICES
    return found


def stem(path: Path) -> str:
    """File name without the endings of a compressed CSV; the symbol of a file that names none."""
    name = path.name
    for suffix in (".zst", ".zstd", ".gz", ".csv"):
        name = name.removesuffix(suffix)
    return name


class CsvReader:
    """Reader (see `batches.py`) of a "databento-csv" or "seven-column-csv" source.

    Columns are found by the header, in any order. A seven-column file has decimal prices, ts_recv := ts_event, publisher and instrument 0, and
    is_last sets F_LAST. Without a symbol column the symbol is the source's first, else the file's stem; an empty symbol is the stem. Letters of
    action and side are passed on as they are. A row that cannot be read becomes a BadRow; its line costs no other line.
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
        self._table, self._state = SymbolTable(), np.zeros(kernels.STATE_SIZE, np.int64)
        self._state[kernels.DATE_KEY] = -1

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
            self._state[kernels.PRICE_MODE] = price_mode(head, self._names.index("price"), len(self._names))

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
        count = int(self._state[kernels.SYMBOL_COUNT])
        if why == kernels.SYMBOLS_FULL:
            self._table.grow(count)
        if "symbol" in self._names:
            self.symbols += [self._table.name(k) or stem(Path(self.source.path)) for k in range(len(self.symbols), count)]
        self.source_rows, self.bytes_read = int(self._state[kernels.ROW]), lines.stream.bytes_read
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
        return BadRow(before, row, base + start, raw, kernels.REASONS[status], describe(status, column, self._names, raw), code)

    def close(self) -> None:
        """Stop reading; harmless when done."""
        if self._lines is not None:
            self._lines.close()
