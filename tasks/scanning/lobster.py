"""LOBSTER pairs: a message file and the order book after each message, loose or in one zip, read in step.

One message becomes one event, an execution two; the last one carries F_LAST, and has its row of the order book as truth:

| type | events |
|---|---|
| 1 new order | A on the order's side |
| 2 partial cancel, 3 delete | C with the size removed |
| 4 execution | T with the aggressor's side (the other one), then C on the resting side |
| 5 hidden execution | T with the aggressor's side, order id 0 |
| 6 cross | T with side N (N where its size is 0) |
| 7 halt | N, price -1 (halted), 0 (quoting resumes) or 1 (trading resumes) |

publisher_id and instrument_id are 0, sequence is the message's number, ts_recv = ts_event. Seeding, pruning and checking the book are not done here.
Source: LOBSTER sample files' read-me; Huang and Polak, "LOBSTER: Limit Order Book Reconstruction System" (2011).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError
from tasks.partitions import SourceFile
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.chunks import ByteStream
from tasks.scanning.csv_field_kernels import OK, ORDERBOOK, REASONS
from tasks.scanning.csv_lines import MAX_BLOCK, MIN_BLOCK, ROW_BYTES, Lines, describe, line_of
from tasks.scanning.lobster_kernels import expand_messages, parse_levels, parse_messages
from tasks.schemas import EVENT_DTYPES

MESSAGE_COLUMNS = ("time", "type", "order_id", "size", "price", "direction")
TRUTH_BYTES = 1 << 25  # of published book in a batch
_PIECE = 1 << 20
_ZONE = ZoneInfo("America/New_York")
_NAME = re.compile(r"(?P<ticker>.+?)_(?P<date>\d{4}-\d{2}-\d{2})_.*?(?P<depth>\d+)?\.csv.*")
_FROM_MESSAGE = ("ts_event", "action", "side", "price", "size", "order_id", "flags", "sequence")


class _Member:
    """A member of a zip as a `csv_lines.Stream`, its checksum verified at the end. bytes_read: decompressed."""

    def __init__(self, path: Path, member: str) -> None:
        self.path, self.fault, self.bytes_read = path, "", 0
        with zipfile.ZipFile(path) as archive:  # the member keeps the file open for itself
            self._file = archive.open(member)

    def fill(self, view: memoryview) -> int:
        """Write into `view` until it is full or the member ends; fewer bytes than asked mean the end, and `fault` says how."""
        done = 0
        try:
            while done < len(view) and (piece := self._file.read(min(len(view) - done, _PIECE))):
                view[done : done + len(piece)] = piece
                done += len(piece)
        except (zipfile.BadZipFile, zlib.error, EOFError) as fault:
            self.fault = f"the member {self._file.name} of the zip is damaged ({fault})"
        self.bytes_read += done
        return done

    def close(self) -> None:
        self._file.close()


class LobsterReader:
    """Reader (see `batches.py`) of a "lobster" source; `depth` is the number of levels of its order book.

    The date is the one in the file name; times count from that day's midnight in New York, decimals beyond the ninth round to the nearest ns.
    source.companion is the order book: a member of the zip when source.member is one, else a path. A message that cannot be read is a BadRow and
    its order book row goes with it; a message whose order book row cannot be read is a BadRow "orderbook".
    Raises CorruptSource from `batches` where the two differ in length, after the rows that pair.
    """

    def __init__(self, source: SourceFile, *, block_bytes: int | None = None) -> None:
        name = source.member or Path(source.path).name
        parts = _NAME.fullmatch(Path(name).name)
        if parts is None or not source.companion:
            problem = f"{name} is not named TICKER_YYYY-MM-DD_..." if parts is None else "it has no order book file beside it"
            raise SchemaMismatch(source.path, problem, remedy="Keep LOBSTER's file names, message and orderbook file together")
        try:
            midnight = datetime.strptime(parts["date"], "%Y-%m-%d").replace(tzinfo=_ZONE)
        except ValueError as fault:
            raise SchemaMismatch(source.path, f"{parts['date']} in the name is not a date") from fault
        self.source, self._block_bytes = source, block_bytes
        self._midnight_ns = int(midnight.timestamp()) * 1_000_000_000
        self.symbols = [source.symbols[0] if source.symbols else parts["ticker"]]
        self.source_rows = self.expanded_rows = self.bytes_read = 0
        self._book_path = Path(source.path) if source.member else _beside(Path(source.path), source.companion)
        self._open_lines: list[Lines] = []
        self.depth = self._find_depth(int(parts["depth"] or 0))

    def _lines(self, book: bool, block: int) -> Lines:
        path = self._book_path if book else Path(self.source.path)
        member = (self.source.companion if book else self.source.member) if self.source.member else ""
        lines = Lines(path, partial(_Member, path, member) if member else partial(ByteStream, path), block)
        self._open_lines.append(lines)
        return lines

    def _find_depth(self, named: int) -> int:
        """Levels by the first row of the order book, where it has whole levels; else by the file name."""
        lines = self._lines(True, MIN_BLOCK)
        try:
            fields = line_of(lines.text, 0).count(b",") + 1 if lines.fill() else 0
        except SourceError:
            fields = 0  # `batches` meets the same break and says where
        finally:
            self.close()
        depth = fields // 4 if fields >= 4 and fields % 4 == 0 else named
        if not depth:
            raise SchemaMismatch(self._book_path, f"an order book row has 4 columns a level; the first has {fields}")
        return depth

    def _find_stored_share(self) -> float:
        """Stored bytes per byte read: below 1 for members of a zip."""
        if not self.source.member:
            return 1.0
        with zipfile.ZipFile(self.source.path) as archive:
            pair = [archive.getinfo(name) for name in (self.source.member, self.source.companion)]
        return sum(part.compress_size for part in pair) / max(1, sum(part.file_size for part in pair))

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        """Batches of at most `batch_rows` events (two messages at least), in file order, each with its truth."""
        block = self._block_bytes or min(max(batch_rows * ROW_BYTES, MIN_BLOCK), MAX_BLOCK)
        rows = max(1, min(batch_rows // 2, TRUTH_BYTES // (32 * self.depth)))
        messages, book = self._lines(False, block), self._lines(True, block)
        try:
            self._stored_share = self._find_stored_share()
            while messages.fill():
                yield from self._step(messages, book, rows)
            self._check_nothing_left(book)
            if not self.source_rows:
                raise EmptySource(self.source.path, "both files of the pair are empty", remedy="Fetch them again or leave them out")
        finally:
            self.close()

    def _step(self, messages: Lines, book: Lines, rows: int) -> Iterator[RawBatch]:
        """The next messages with their order book rows: one batch, then the error where the order book ends or breaks."""
        rows = min(rows, (messages.end - messages.pos) // 2 + 1)
        fields, lines = np.empty((rows, 6), np.int64), np.empty((rows, 4), np.int64)
        messages.pos, m = parse_messages(messages.data, messages.pos, messages.end, fields, lines)
        truth, status = np.empty((m, self.depth, 4), np.int64), np.empty(m, np.int64)
        paired = 0
        broken: SourceError | None = None
        while paired < m and broken is None:
            try:
                if not book.fill():
                    broken = self._unequal("order book", self.source_rows + paired, "message")
                    break
            except SourceError as fault:
                broken = fault
                break
            book.pos, paired = parse_levels(book.data, book.pos, book.end, paired, m, truth, status)
        if paired:
            yield self._batch(messages, fields[:paired], lines[:paired], truth[:paired], status[:paired])
        if broken is not None:
            raise broken

    def _batch(self, messages: Lines, fields: np.ndarray, lines: np.ndarray, truth: np.ndarray, book_status: np.ndarray) -> RawBatch:
        m, first = len(fields), self.source_rows
        status = np.where(lines[:, 0] == OK, book_status, lines[:, 0])
        columns = {name: np.zeros(2 * m, dtype) for name, dtype in EVENT_DTYPES.items()}
        message_of = np.empty(2 * m, np.int64)
        out = tuple(columns[name] for name in _FROM_MESSAGE)
        n = expand_messages(fields, status, self._midnight_ns, first, out, message_of)
        columns, message_of = {name: values[:n] for name, values in columns.items()}, message_of[:n]
        columns["ts_recv"] = columns["ts_event"].copy()
        good = status == OK
        text, base, starts, lengths = messages.text, messages.base, lines[:, 2], lines[:, 3]

        def raw(row: int) -> tuple[int, bytes]:
            start = int(starts[message_of[row]])
            return base + start, line_of(text, start)

        bad = []
        for i in np.flatnonzero(~good).tolist():
            line, code = line_of(text, int(starts[i]), int(lengths[i])), int(status[i])
            told = f"row {first + i} of the order book is not {4 * self.depth} integers"
            detail = told if code == ORDERBOOK else describe(code, int(lines[i, 1]), MESSAGE_COLUMNS, line)
            before = int(np.searchsorted(message_of, i))
            bad.append(BadRow(before, first + i, base + int(starts[i]), line, REASONS[code], detail, 0))
        self.source_rows += m
        self.expanded_rows += n - int(good.sum())
        self.bytes_read = int(self._stored_share * sum(lines.stream.bytes_read for lines in self._open_lines))
        return RawBatch(columns, np.zeros(n, np.int32), first + message_of, raw, bad, truth if good.all() else truth[good])

    def _check_nothing_left(self, book: Lines) -> None:
        """Raise when the order book has a row that no message has; blank lines are none."""
        truth, status = np.empty((1, self.depth, 4), np.int64), np.empty(1, np.int64)
        while book.fill():
            book.pos, rows = parse_levels(book.data, book.pos, book.end, 0, 1, truth, status)
            if rows:
                raise self._unequal("message", self.source_rows, "order book")

    def _unequal(self, short: str, rows: int, long: str) -> CorruptSource:
        problem = f"the {short} file ends after {rows:,} rows and the {long} file goes on"
        path = self._book_path if short == "order book" else self.source.path
        return CorruptSource(path, problem, row=rows, remedy="Fetch both files again; every row that pairs was read")

    def close(self) -> None:
        """Stop reading; harmless when done."""
        while self._open_lines:
            self._open_lines.pop().close()


def _beside(path: Path, companion: str) -> Path:
    """The companion's path; a bare name is looked for beside `path`."""
    found = Path(companion)
    return found if found.exists() or found.is_absolute() else path.parent / found.name
