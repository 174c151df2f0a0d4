"""Bybit's order-book archives: newline-delimited JSON of one symbol and day, zipped, gzipped or plain, as batches of depth messages.

Belongs here: opening a file, whole lines of its bytes, which parser reads a line, what becomes of one that cannot be read. Lines are parsed in
`bybit_line_kernels.py`, odd ones in `bybit_general.py`, into the arrays of `bybit_columns.py`; zips are in `bybit_zip.py`. What the messages mean
for a book is decided in reconstruction.

Source: the venue's documentation of its order-book stream (v5, websocket, public). `ts` and `cts` are ms; a level with a third field (retail price
improvement) is read without it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.depth_batches import DepthBatch
from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, SourceError, UnknownFormat
from tasks.scanning.batches import BadRow
from tasks.scanning.bybit_columns import Columns
from tasks.scanning.bybit_field_kernels import LF, newline_after, newline_before
from tasks.scanning.bybit_general import Unreadable, parse
from tasks.scanning.bybit_line_kernels import LINES, MAX_LINE, MESSAGES, THIRDS, VALUES, parse_lines
from tasks.scanning.bybit_zip import MemberStream, find_members, is_zip
from tasks.scanning.chunks import ByteStream, read_ahead

# Text of a batch. 256 KB to 4 MB are equally fast (tests/bench/bybit_parse.py); 1 MB takes 5 MB more memory than this.
BATCH_BYTES = 1 << 19
WHITE = b" \t\r"
HEAD_BYTES = 1 << 23  # a file without a readable line in so many bytes is not of this format
_REMEDY = "Fetch the file again; every whole line before was read"


@dataclass(frozen=True)
class Head:
    """What the first readable line of a source says; depth 0: not told."""

    symbol: str
    depth: int
    first_ts_ns: int


def members(path: Path) -> list[str]:
    """Names of the data members of a zip; [""] for any other file. Raises EmptySource for a zip without one, SourceError when it cannot be opened."""
    try:
        with path.open("rb") as file:
            zipped = is_zip(file.read(4))
        return [member.name for member in find_members(path)] if zipped else [""]
    except OSError as fault:
        raise _cannot_open(path, fault) from fault


def open_bybit(path: Path, member: str = "") -> BybitReader:
    """Open an archive; `member` names one of several in a zip. Raises SourceError and its kinds."""
    return BybitReader(path, member)


def head(path: Path, member: str = "") -> Head:
    """What the first readable line says. Raises UnknownFormat where there is none in the first HEAD_BYTES, and as `batches` does before it."""
    reader = open_bybit(path, member)
    with closing(reader), closing(reader.batches(1 << 16)) as batches:
        for batch in batches:
            if len(batch):
                return Head(reader.symbol, reader.depth, int(batch.ts[0]))
            if batch.bad and batch.bad[-1].byte_offset > HEAD_BYTES:  # type: ignore[attr-defined]
                break
    raise UnknownFormat(path, f"none of the first {reader.lines:,} lines is one of an order book", remedy="Leave the file out, or fetch it again")


class BybitReader:
    """Reader (see `tasks.depth_batches.DepthReader`) of one archive. symbol, depth: known after the first batch with a message.

    third_fields: levels so far that had a third field. Blank lines are no lines. A line of another topic than the first readable one is a bad line;
    so is one of more than MAX_LINE bytes, of which the first MAX_LINE are kept. Memory: about four pieces of text and the arrays of one batch.
    """

    lines_are_updates = False

    def __init__(self, path: Path, member: str = "") -> None:
        self.path, self.member = Path(path), member
        self.symbol, self.depth, self.lines, self.third_fields = "", 0, 0, 0
        self._topic, self._symbol_at = np.empty(0, np.uint8), 0
        self._values = np.zeros(VALUES, np.int64)
        try:
            self._stream = _open_stream(self.path, member)
        except OSError as fault:
            raise _cannot_open(self.path, fault) from fault

    @property
    def left_out(self) -> dict[str, int]:
        """Nothing is: every line is a message or a bad one."""
        return {}

    @property
    def bytes_read(self) -> int:
        """Bytes of the stored file, or of the member as stored, consumed so far."""
        return self._stream.bytes_read

    def close(self) -> None:
        """Close the file. A generator of batches that was not exhausted is to be closed before."""
        self._stream.close()

    def batches(self, batch_bytes: int = BATCH_BYTES) -> Generator[DepthBatch, None, None]:
        """Yield the messages in file order, those of about `batch_bytes` of text at a time, inflated ahead in a thread.

        Raises CorruptSource where the file breaks or ends inside a line, after all whole lines before; EmptySource; SourceError (transient) when the
        disk fails.
        """
        begun, at = _Begun(), 0
        pieces = read_ahead(self._stream, batch_bytes)  # type: ignore[arg-type]
        try:
            for piece in pieces:
                cut = newline_before(piece, len(piece)) + 1
                if cut:
                    columns = Columns(len(begun.text) + cut, self.lines)
                    first = newline_after(piece, 0) + 1 if begun.length else 0
                    if first:
                        begun.take(piece[:first])
                        self._end_line(columns, begun, at - (begun.length - first))
                        begun = _Begun()
                    self._parse(columns, piece[first:cut], at + first)
                    yield from self._batch(columns)
                begun.take(piece[cut:])
                at += len(piece)
        except OSError as fault:
            error = SourceError(self.path, f"cannot be read: {fault}", offset=at)
            error.transient = True
            raise error from fault
        finally:
            pieces.close()  # type: ignore[attr-defined]
        yield from self._end(begun, at)

    def _end(self, begun: _Begun, at: int) -> Iterator[DepthBatch]:
        """What stands after the last newline: nothing, a line without one, or a line that is cut short."""
        if self._stream.fault:
            raise CorruptSource(self.path, f"{self._stream.fault}, after {self.lines:,} whole lines", offset=at, remedy=_REMEDY)
        start = at - begun.length
        if begun.length > MAX_LINE or begun.text.strip(WHITE):
            if begun.length <= MAX_LINE and _is_cut(begun.text):
                raise CorruptSource(self.path, f"it ends inside line {self.lines:,}", offset=start, remedy=_REMEDY)
            columns = Columns(len(begun.text) + 1, self.lines)
            begun.take(np.full(1, LF, np.uint8))
            self._end_line(columns, begun, start)
            yield from self._batch(columns)
        if not self.lines:
            raise EmptySource(self.path, f"there is no line in {self.member or 'the file'}", remedy="Fetch it again or leave it out")

    def _end_line(self, columns: Columns, begun: _Begun, offset: int) -> None:
        """Parse one line, newline included, that came in several pieces."""
        if begun.length - 1 > MAX_LINE:
            self._set_aside(columns, offset, bytes(begun.text))
        else:
            self._parse(columns, np.frombuffer(begun.text, np.uint8), offset)

    def _parse(self, columns: Columns, text: np.ndarray, at: int) -> None:
        """Parse whole lines that stand at offset `at`."""
        p = 0
        while p < len(text):
            p = parse_lines(text, p, self._topic, self._symbol_at, at, columns.messages, columns.updates, columns.counts, self._values)
            if p < len(text):
                stop = newline_after(text, p)
                self._set_aside(columns, at + p, text[p:stop].tobytes())
                p = stop + 1

    def _set_aside(self, columns: Columns, offset: int, raw: bytes) -> None:
        """Give a line that is not in the usual layout to the general parser; keep it as bad when that cannot read it."""
        try:
            message = parse(raw)
            if self.symbol and message.topic.encode() != self._topic.tobytes():
                raise Unreadable("topic", f"topic is {message.topic[:80]!r}, that of the lines before {self._topic.tobytes().decode()!r}")
        except Unreadable as fault:
            n, line = int(columns.counts[MESSAGES]), int(columns.counts[LINES])
            columns.bad.append(BadRow(n, line, offset, raw[:MAX_LINE], fault.reason, fault.detail))
            columns.counts[LINES] += 1
            return
        if not self.symbol:
            self.symbol, self.depth = message.symbol, message.depth
            self._topic = np.frombuffer(bytearray(message.topic.encode()), np.uint8)
            self._symbol_at = len(self._topic) - len(message.symbol.encode())
        columns.add(message, offset)

    def _batch(self, columns: Columns) -> Iterator[DepthBatch]:
        self.lines = int(columns.counts[LINES])
        self.third_fields += int(columns.counts[THIRDS])
        if columns.counts[MESSAGES] or columns.bad:
            yield columns.batch()


class _Begun:
    """A line whose end is still to come: its length so far and its bytes, of a line that is too long only the first."""

    def __init__(self) -> None:
        self.text, self.length = bytearray(), 0

    def take(self, more: np.ndarray) -> None:
        self.text += more[: max(0, MAX_LINE + 1 - self.length)].data
        self.length += len(more)


def _is_cut(line: bytearray) -> bool:
    """Whether a last line without newline is no whole JSON text."""
    try:
        parse(bytes(line))
    except Unreadable as fault:
        return fault.reason == "json"
    return False


def _open_stream(path: Path, member: str) -> ByteStream | MemberStream:
    with path.open("rb") as file:
        zipped = is_zip(file.read(4))
    if not zipped:
        if member:
            raise SchemaMismatch(path, f"it is no zip and has no member {member}", remedy="Leave the member out")
        return ByteStream(path)
    found = find_members(path)
    chosen = [entry for entry in found if entry.name == member] if member else found
    if len(chosen) != 1:
        problem = f"it has no data member {member}" if member else f"it has {len(chosen)} data members"
        raise SchemaMismatch(path, problem, remedy=f"Name one of: {', '.join(entry.name for entry in found)[:300]}")
    return MemberStream(path, chosen[0])


def _cannot_open(path: Path, fault: OSError) -> SourceError:
    return SourceError(path, f"cannot be opened: {fault.strerror or fault}", remedy="Check the path and the permissions")
