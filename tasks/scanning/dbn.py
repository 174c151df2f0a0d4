"""DBN files of schema mbo, versions 1 to 3, plain or compressed: the header, and the records as batches of event columns.

Layout: https://databento.com/docs/standards-and-conventions/databento-binary-encoding. Metadata is decoded by databento-dbn, records by NumPy and
kernels. Finding files belongs to inventory.py, symbols by day to symbols.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import databento_dbn
import numpy as np

from tasks.errors import CorruptSource, EmptySource, SchemaMismatch, UnknownFormat
from tasks.partitions import SourceFile
from tasks.scanning.batches import BadRow, RawBatch
from tasks.scanning.chunks import ByteStream, read_ahead
from tasks.scanning.dbn_kernels import DAY_NS, LAST_VERSION, NO_TIME, begins_stream, count_mbo, split_records, walk_records
from tasks.scanning.symbols import EPOCH, FOREVER, DatedSymbols, SymbolCodes, metadata_intervals
from tasks.schemas import EVENT_DTYPES, MBO_RECORD

VERSIONS = tuple(range(1, LAST_VERSION + 1))
SYMBOL_MAPPING = 22
# Length of a symbol mapping record -> where its symbol in, its symbol out and its start and end times stand (version 1; versions 2 and 3).
_MAPPING_LAYOUTS = {80: (slice(16, 38), slice(38, 60), 64), 176: (slice(17, 88), slice(89, 160), 160)}
_MAX_HEADER = 1 << 28  # a longer one is a damaged length: 1M mapped symbols need 150 MB
_MAX_DAYS = 40_000  # of a promised span; more is an open or damaged one
_GET_AGAIN = "Fetch the file again, or convert the part that is whole"


@dataclass(frozen=True)
class DbnHeader:
    """What stands before the first record. length: bytes before it; record_bytes: of one mbo record; schema "" when the stream is mixed."""

    version: int
    dataset: str
    schema: str
    length: int
    record_bytes: int
    metadata: Any

    def days(self) -> tuple[int, int]:
        """First day and end day (exclusive, since the epoch) of the span that the file promises; (0, 0) when it is open."""
        start, end = self.metadata.start, self.metadata.end
        if not start or not end or end <= start or end >= 2**63:
            return 0, 0
        first, last = start // DAY_NS, (end - 1) // DAY_NS
        return (first, last + 1) if last - first < _MAX_DAYS else (0, 0)

    def promise(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Dates (YYYY-MM-DD) and symbols, both sorted, that mappings and span promise; empty where the header does not say."""
        first, end = self.days()
        days: set[int] = set()
        symbols: set[str] = set()
        for _, start, stop, symbol in metadata_intervals(self.metadata):
            inside = range(max(start, first), min(stop, end))
            days.update(inside)
            if inside or not end:
                symbols.add(symbol)
        days = days or set(range(first, end))
        return tuple(str(_date(day)) for day in sorted(days)), tuple(sorted(symbols))


def _date(day: int) -> Any:
    return (datetime.fromordinal(EPOCH) + timedelta(days=day)).replace(tzinfo=UTC).date()


def read_metadata(stream: ByteStream) -> tuple[int, int, databento_dbn.Metadata]:
    """(version, bytes of the header, metadata) of a DBN file of any schema, leaving `stream` at the first record.

    Raises EmptySource, UnknownFormat (not DBN, or a version not known), CorruptSource (cut short or not decodable).
    """
    prefix = _take(stream, 8)
    if not prefix and not stream.fault:
        raise EmptySource(stream.path, "the file is empty", remedy="Fetch it again or leave it out")
    if prefix[:3] != b"DBN"[: len(prefix)]:
        raise UnknownFormat(stream.path, f"begins with {prefix!r}, not with DBN")
    if len(prefix) < 8:
        raise CorruptSource(stream.path, stream.fault or "the DBN header is cut short", offset=stream.position, remedy=_GET_AGAIN)
    version, length = prefix[3], struct.unpack("<I", prefix[4:])[0]
    if version not in VERSIONS:
        raise UnknownFormat(stream.path, f"is DBN version {version}; supported are {VERSIONS[0]} to {VERSIONS[-1]}", remedy="Convert it with `dbn`")
    if length > _MAX_HEADER:
        raise CorruptSource(stream.path, f"the DBN header claims {length:,} bytes, more than any real one", offset=4, remedy=_GET_AGAIN)
    body = _take(stream, length)
    if len(body) < length:
        problem = stream.fault or "the file ends inside the DBN header"
        raise CorruptSource(stream.path, f"{problem}; the header needs {8 + length:,} bytes", offset=stream.position, remedy=_GET_AGAIN)
    try:
        metadata = databento_dbn.Metadata.decode(prefix + body)
    except Exception as fault:
        raise CorruptSource(stream.path, f"the DBN header cannot be decoded ({fault})", offset=8, remedy=_GET_AGAIN) from fault
    return version, 8 + length, metadata


def read_header(stream: ByteStream) -> DbnHeader:
    """Read the header of a file of schema mbo, leaving `stream` at the first record. Raises as `read_metadata`, and SchemaMismatch (not mbo)."""
    version, length, metadata = read_metadata(stream)
    schema = str(metadata.schema) if metadata.schema is not None else ""
    if schema not in ("mbo", ""):
        problem = f"holds DBN schema {schema}; allowed: mbo"
        raise SchemaMismatch(stream.path, problem, remedy="Books are rebuilt from orders: download the schema mbo for the same symbols and days")
    record_bytes = MBO_RECORD.itemsize + 8 * bool(metadata.ts_out)
    return DbnHeader(version, metadata.dataset, schema, length, record_bytes, metadata)


def _take(stream: ByteStream, count: int) -> bytes:
    buffer = bytearray(count)
    return bytes(buffer[: stream.fill(memoryview(buffer))])


def header_of(path: str | Path) -> DbnHeader:
    """The header of a file; raises as `read_header`."""
    stream = ByteStream(path)
    try:
        return read_header(stream)
    finally:
        stream.close()


class DbnReader:
    """Reader (see batches.py) of one DBN file. Records that are not mbo, and mbo records without a time, become bad rows.

    Memory: about five pieces of `batch_rows` records; the file's size does not matter.
    """

    def __init__(self, source: SourceFile) -> None:
        self._stream = ByteStream(source.path)
        try:
            self.header = read_header(self._stream)
        except BaseException:
            self._stream.close()
            raise
        self._codes = SymbolCodes(DatedSymbols(metadata_intervals(self.header.metadata)))
        self.symbols = self._codes.symbols
        self.source_rows = 0
        self.expanded_rows = 0
        self.bytes_read = self._stream.bytes_read

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def batches(self, batch_rows: int) -> Iterator[RawBatch]:
        """Yield the records in file order, at most `batch_rows` of them in a batch.

        Raises CorruptSource, after everything before the break was yielded, where the file is cut, a record's length is impossible or another
        file begins.
        """
        size = self.header.record_bytes
        rest, base = np.empty(0, np.uint8), self._stream.position
        for piece in read_ahead(self._stream, batch_rows * size):
            # Pieces hold whole records, so that nothing is left over, unless records of other types stand between.
            data = np.concatenate([rest, piece]) if len(rest) else piece
            at, broken = 0, 0
            self.bytes_read = self._stream.bytes_read
            while not broken:
                broken, starts, is_mbo, end = self._locate(data, at, batch_rows)
                if not len(starts):
                    break
                for low, high in stretches(data, starts, is_mbo):
                    yield self._batch(data, starts[low:high], None if is_mbo is None else is_mbo[low:high], base)
                at = end
            if broken:
                raise broken_record(self._stream, data, at, base + at, self.source_rows)
            rest, base = data[at:], base + at
        if self._stream.fault or len(rest):
            problem = self._stream.fault or f"the file ends {len(rest)} bytes into a record"
            raise CorruptSource(
                self._stream.path, f"{problem}; {self.source_rows:,} whole records before it", offset=self._stream.position, remedy=_GET_AGAIN
            )

    def _locate(self, data: np.ndarray, at: int, limit: int) -> tuple[int, np.ndarray, np.ndarray | None, int]:
        """(broken, where records start, which are mbo or None when all are, the first byte after them)."""
        size = self.header.record_bytes
        limit = min(limit, (len(data) - at) // 16 + 1)
        count = count_mbo(data, at, limit, size)
        if count == limit or (count and at + (count + 1) * size > len(data)):
            return 0, at + size * np.arange(count), None, at + size * count
        starts, is_mbo = np.empty(limit, np.int64), np.empty(limit, np.bool_)
        broken, count, end = walk_records(data, at, limit, size, starts, is_mbo)
        # Yield what stands before a break first; the next call finds the break at once.
        return (broken if not count else 0), starts[:count], is_mbo[:count], end

    def _batch(self, data: np.ndarray, starts: np.ndarray, is_mbo: np.ndarray | None, base: int) -> RawBatch:
        source_row = np.arange(self.source_rows, self.source_rows + len(starts))
        self.source_rows += len(starts)
        bad: list[tuple[int, str, str, int]] = []  # index into starts, reason, detail, symbol
        at = starts
        if is_mbo is not None and not is_mbo.all():
            bad += [(i, *self._other(data, int(starts[i]))) for i in np.flatnonzero(~is_mbo).tolist()]
            at, source_row = starts[is_mbo], source_row[is_mbo]
        records = self._records(data, at, is_mbo is None)
        columns = {name: np.empty(len(records), dtype) for name, dtype in EVENT_DTYPES.items()}
        fault = np.empty(len(records), np.uint8)
        if split_records(records, *columns.values(), fault):  # type: ignore[call-arg]
            first = self.source_rows - len(starts)
            bad += [(int(source_row[i]) - first, *self._untimed(records[i], fault[i])) for i in np.flatnonzero(fault).tolist()]
            keep = fault == 0
            columns = {name: values[keep] for name, values in columns.items()}
            at, source_row = at[keep], source_row[keep]
        codes = self._codes.codes(columns["instrument_id"], columns["ts_recv"])

        def raw(row: int) -> tuple[int, bytes]:
            return base + int(at[row]), self._bytes(data, int(at[row]))

        return RawBatch(columns, codes, source_row, raw, self._bad_rows(data, starts, at, base, sorted(bad)))

    def _records(self, data: np.ndarray, at: np.ndarray, contiguous: bool) -> np.ndarray:
        """MBO_RECORD[n] of the records at `at`; a view where they stand back to back without a send time."""
        width = MBO_RECORD.itemsize
        if contiguous and self.header.record_bytes == width and len(at):
            return data[at[0] : at[-1] + width].view(MBO_RECORD)
        return data[at[:, None] + np.arange(width)].reshape(-1).view(MBO_RECORD)

    def _bytes(self, data: np.ndarray, start: int) -> bytes:
        return data[start : start + 4 * int(data[start])].tobytes()

    def _other(self, data: np.ndarray, start: int) -> tuple[str, str, int]:
        """Reason, detail and symbol of a record that is not mbo; a symbol mapping is also applied."""
        record = self._bytes(data, start)
        if found := mapping_of(record, bool(self.header.metadata.ts_out)):
            self._codes.learn(*found)
        return "not_mbo", f"record type {record[1]}, {len(record)} bytes", -1

    def _untimed(self, record: np.void, fault: int) -> tuple[str, str, int]:
        ts_event, ts_recv = int(record["ts_event"]), int(record["ts_recv"])
        known = min(ts_event, ts_recv)
        symbol = self._codes.code_of(int(record["instrument_id"]), known) if known < 2**63 else -1
        return ("no_time" if fault == NO_TIME else "time_range"), f"ts_event {ts_event}, ts_recv {ts_recv}", symbol

    def _bad_rows(self, data: np.ndarray, starts: np.ndarray, kept: np.ndarray, base: int, bad: list[tuple[int, str, str, int]]) -> list[BadRow]:
        if not bad:
            return []
        first = self.source_rows - len(starts)
        before = np.searchsorted(kept, starts[[entry[0] for entry in bad]]).tolist()
        return [
            BadRow(place, first + i, base + int(starts[i]), self._bytes(data, int(starts[i])), reason, detail, symbol)
            for place, (i, reason, detail, symbol) in zip(before, bad, strict=True)
        ]


def broken_record(stream: ByteStream, data: np.ndarray, at: int, offset: int, whole: int) -> CorruptSource:
    """The error about the record at `at` of `data`, byte `offset` of the decompressed stream, which cannot be one. whole: records before it."""
    before = f"{whole:,} whole records before it"
    if not begins_stream(data, at):
        problem = f"the record there has length {4 * int(data[at])}, which no record of its type has; {before}"
        return CorruptSource(stream.path, problem, offset=offset, remedy=_GET_AGAIN)
    what = "another DBN file begins there" if data[at] == ord("D") else "a zstd file begins there, which in a stream of records is another DBN file"
    unpacked = " of the decompressed stream" if stream.compression else ""
    problem = f"{what}: it looks like several files joined together; {before}"
    return CorruptSource(stream.path, problem, offset=offset, remedy=f"Give the files one by one; joined, they part at this byte{unpacked}")


def mapping_of(record: bytes, ts_out: bool) -> tuple[int, int, int, str] | None:
    """(instrument_id, first day, end day, symbol) of a record, None where it is no symbol mapping or one without a symbol.

    As in Databento's own InstrumentMap the days are those of start_ts and end_ts, whatever ts_event says, a time that is not set leaves that end
    open, and where the symbol out is a number the symbol in is the name. ts_out: each record ends with its 8 bytes of send time.
    """
    layout = _MAPPING_LAYOUTS.get(len(record) - 8 * ts_out)
    if record[1] != SYMBOL_MAPPING or layout is None:
        return None
    into, out = (record[part].split(b"\0")[0].decode("ascii", "replace") for part in layout[:2])
    start, end = struct.unpack_from("<QQ", record, layout[2])
    first = start // DAY_NS if start < 2**63 else 0
    last = -(-end // DAY_NS) if first * DAY_NS < end < 2**63 else FOREVER
    symbol = into if into and out.isdigit() else out
    return (struct.unpack_from("<I", record, 4)[0], first, last, symbol) if symbol else None


def stretches(data: np.ndarray, starts: np.ndarray, wanted: np.ndarray | None) -> list[tuple[int, int]]:
    """(first, end) of the parts in which the records at `starts` become batches: a symbol mapping behind wanted records begins a new part.

    All mappings of a batch are applied before its records are named, and a mapping is to name what follows it only. wanted None: all are.
    """
    if wanted is None:
        return [(0, len(starts))]
    others = np.flatnonzero(~wanted)
    mappings = others[data[starts[others] + 1] == SYMBOL_MAPPING]
    cuts = mappings[np.diff(np.cumsum(wanted)[mappings], prepend=0) > 0].tolist()
    return list(zip([0, *cuts], [*cuts, len(starts)], strict=True))
