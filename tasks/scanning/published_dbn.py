"""Published books as DBN of schema mbp-1, mbp-10, tbbo, bbo-1s or bbo-1m, versions 1 to 3: the header, and the records as batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.errors import CorruptSource, SchemaMismatch
from tasks.partitions import SourceFile
from tasks.scanning.batches import BadRow
from tasks.scanning.chunks import ByteStream, read_ahead
from tasks.scanning.dbn import DbnHeader, broken_record, mapping_of, read_metadata, stretches
from tasks.scanning.published_batches import INSTRUMENT, TS_EVENT, TS_RECV, PublishedBatch, columns_of
from tasks.scanning.published_formats import DBN_SCHEMAS, Published
from tasks.scanning.published_kernels import FIRST_LEVEL, LEVEL_BYTES, split_published, walk_published
from tasks.scanning.symbols import DatedSymbols, SymbolCodes, metadata_intervals

_MAX_HEADER = 1 << 28
_SHORTEST = 16  # bytes of a record that is a header only
_GET_AGAIN = "Fetch the file again, or convert the part that is whole"


def read_header(stream: ByteStream) -> DbnHeader:
    """The header of a DBN file of any schema, leaving `stream` at the first record. Raises as dbn.read_metadata."""
    version, length, metadata = read_metadata(stream)
    schema = str(metadata.schema) if metadata.schema is not None else ""
    levels = DBN_SCHEMAS.get(schema, (0, 0))[1]
    return DbnHeader(version, metadata.dataset, schema, length, FIRST_LEVEL + LEVEL_BYTES * levels + 8 * bool(metadata.ts_out), metadata)


def header_of(path: Path) -> DbnHeader:
    """The header of a file; raises as `read_header`."""
    stream = ByteStream(path)
    try:
        return read_header(stream)
    finally:
        stream.close()


class PublishedDbn:
    """Reader (published_batches.py) of one DBN file. Records of other types become bad rows; symbol mappings among them are also applied."""

    def __init__(self, source: SourceFile, found: Published) -> None:
        self._stream, self._found = ByteStream(source.path), found
        try:
            self.header = read_header(self._stream)
            if self.header.schema != found.schema:
                raise SchemaMismatch(source.path, f"holds DBN schema {self.header.schema}, not {found.schema}", remedy="Start again")
        except BaseException:
            self._stream.close()
            raise
        self._rtype = DBN_SCHEMAS[found.schema][0]
        self._codes = SymbolCodes(DatedSymbols(metadata_intervals(self.header.metadata)))
        self.symbols = self._codes.symbols
        self.source_rows = 0

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def batches(self, batch_rows: int) -> Iterator[PublishedBatch]:
        """The records in file order, at most `batch_rows` in a batch. Raises CorruptSource, after everything before the break was yielded."""
        size, path = self.header.record_bytes, self._stream.path
        rest, base = np.empty(0, np.uint8), self._stream.position
        for piece in read_ahead(self._stream, batch_rows * size):
            data, at = np.concatenate([rest, piece]) if len(rest) else piece, 0
            limit = min(batch_rows, len(data) // _SHORTEST + 1)
            while True:
                starts, wanted = np.empty(limit, np.int64), np.empty(limit, np.bool_)
                broken, count, end = walk_published(data, at, size, self._rtype, starts, wanted)
                if not count:
                    break
                for low, high in stretches(data, starts[:count], wanted[:count]):
                    yield self._batch(data, starts[low:high], wanted[low:high], base)
                at = end  # what stands before a break comes first; the next call finds the break at once
            if broken:
                raise broken_record(self._stream, data, at, base + at, self.source_rows)
            rest, base = data[at:], base + at
        if self._stream.fault or len(rest):
            problem = self._stream.fault or f"the file ends {len(rest)} bytes into a record"
            raise CorruptSource(path, f"{problem}; {self.source_rows:,} whole records before it", offset=self._stream.position, remedy=_GET_AGAIN)

    def _batch(self, data: np.ndarray, starts: np.ndarray, wanted: np.ndarray, base: int) -> PublishedBatch:
        size, first = self.header.record_bytes, self.source_rows
        self.source_rows += len(starts)
        others = np.flatnonzero(~wanted)
        at, rows = starts[wanted], first + np.flatnonzero(wanted)
        bad = [self._other(data, int(starts[i]), i - k, first + i, base) for k, i in enumerate(others.tolist())]
        # Views of whole words need their alignment, which records between may have shifted by four bytes.
        if len(others) or starts[0] % 8:
            records = data[at[:, None] + np.arange(size)]
        else:
            records = data[starts[0] : starts[0] + len(at) * size].reshape(-1, size)
        values = np.empty((len(columns_of(self._found.depth)), len(at)), np.int64)
        split_published(records, records.view(np.uint32), records.view(np.int64), self._found.depth, self._found.by_row, values)
        # A row without a receive time still has the symbol of its day.
        times = np.where(values[TS_RECV] < 0, np.maximum(values[TS_EVENT], 0), values[TS_RECV])
        codes = self._codes.codes(values[INSTRUMENT].astype(np.uint32), times)
        return PublishedBatch(values, codes, rows, lambda row: (base + int(at[row]), _bytes(data, int(at[row]))), bad)

    def _other(self, data: np.ndarray, start: int, before: int, row: int, base: int) -> BadRow:
        record = _bytes(data, start)
        if found := mapping_of(record, bool(self.header.metadata.ts_out)):
            self._codes.learn(*found)
        return BadRow(before, row, base + start, record, "not_published", f"record type {record[1]}, {len(record)} bytes")


def _bytes(data: np.ndarray, start: int) -> bytes:
    return data[start : start + 4 * int(data[start])].tobytes()
