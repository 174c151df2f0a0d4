"""From batches of published books to one file per partition, in bounded memory and with a bounded number of open files.

The first partitions of a source get a sink each; rows of all later ones go through one temporary file and are written one partition after the
other at the end. The bytes of a file depend on its rows only. What is set aside, and when files get their names, is decided in published.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.disk import storage_error
from tasks.errors import BookmillError
from tasks.partitions import Partition, SourceFile, Stamp
from tasks.scanning import route_kernels as rk
from tasks.scanning.partition_table import Lost, PartitionTable
from tasks.scanning.published_batches import INSTRUMENT, LEVELS, NO_TIME, PUBLISHER, TS_EVENT, TS_RECV, PublishedBatch, columns_of
from tasks.schemas import ACTIONS, char_index, published_schema
from tasks.storage import ParquetSink

# A row of ten levels takes 440 bytes: 16 sinks hold 115 MB before they write a row group.
MAX_OPEN = 16
ROW_GROUP_ROWS = 16_384
_COMMITTERS = 4  # a small file costs mostly its two fsyncs


def to_table(values: np.ndarray, depth: int) -> pa.Table:
    """The matrix of a batch (published_batches.py) as a table of `published_schema(depth)`; a time that is not set and an action 0 are null."""
    schema, place = published_schema(depth), {name: row for row, name in enumerate(columns_of(depth))}
    arrays = []
    for column in schema:
        row = values[place[column.name]]
        if column.name == "action":
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(char_index(ACTIONS)[row], mask=row == 0), pa.array(ACTIONS)))
        elif pa.types.is_timestamp(column.type):
            unset = row == NO_TIME
            arrays.append(pa.array(np.ascontiguousarray(row), mask=unset if unset.any() else None).view(column.type))
        else:
            arrays.append(pa.array(np.ascontiguousarray(row, column.type.to_pandas_dtype())))
    return pa.table(arrays, schema=schema)


def published_sink(path: Path, depth: int) -> ParquetSink:
    """A sink for one file of published books."""
    schema = published_schema(depth)
    # Measured on 400,000 rows of ten levels, zstd-1 (write, read, bytes a row): these 1.0 M/s, 1.8 M/s, 27; all in dictionaries 0.9, 2.3, 30;
    # all split 0.8, 1.4, 42; all plain 1.0, 2.6, 36; prices delta-packed 0.9, 3.4, 31.
    coded = ["action", "flags", *(name for name in schema.names if "_px_" in name)]
    encodings = {name: "BYTE_STREAM_SPLIT" for name in schema.names if name not in coded}
    return ParquetSink(path, schema, dictionary=coded, encodings=encodings, row_group_rows=ROW_GROUP_ROWS)


class PublishedFiles:
    """Takes the batches of one source and writes the files of its partitions; nothing has a final name before `commit`."""

    def __init__(self, source: SourceFile, lake: Path, depth: int) -> None:
        self.table = PartitionTable(source)
        self._source, self._lake, self._depth = source, lake, depth
        self._sinks: dict[int, ParquetSink] = {}
        self._spill: _Spill | None = None
        self._committed: list[Path] = []

    def add(self, batch: PublishedBatch, symbols: Sequence[str], code: np.ndarray, fault: np.ndarray, lost: Lost) -> np.ndarray:
        """Count and take the good rows of a batch; code int32[n] into symbols, fault uint8[n] 0 for good rows.

        Returns int64[n]: the row of its partition's file that each row is or, where it is bad, stood before; -1 where it has no partition.
        """
        values = batch.values
        columns = {
            "ts_event": np.ascontiguousarray(values[TS_EVENT]),
            "ts_recv": np.ascontiguousarray(values[TS_RECV]),
            "publisher_id": values[PUBLISHER].astype(np.uint16),
            "instrument_id": values[INSTRUMENT].astype(np.uint32),
            "price": np.ascontiguousarray(values[LEVELS]),
        }
        part, row = self.table.assign(symbols, code, columns, np.zeros(len(code), np.uint8), fault, lost)
        n = len(self.table)
        order = np.empty(len(part), np.int64)
        borders = rk.order_by_partition(part, n, order)
        direct = min(MAX_OPEN, n)
        for p in np.flatnonzero(np.diff(borders[: direct + 1])).tolist():
            rows = order[borders[p] : borders[p + 1]]
            self._sink(p).write(to_table(values if len(rows) == len(part) else values[:, rows], self._depth))
        if borders[-1] > borders[direct]:
            self._spill = self._spill or _Spill(self._lake / ".spill", len(values))
            counts = np.diff(borders[direct:])
            parts = np.flatnonzero(counts)
            self._spill.add(values[:, order[borders[direct] : borders[-1]]], parts + direct, counts[parts])
        return row

    def _sink(self, p: int) -> ParquetSink:
        if p not in self._sinks:
            self._sinks[p] = published_sink(self._lake / self.path(p), self._depth)
        return self._sinks[p]

    def path(self, p: int) -> str:
        """Path of a partition's file relative to the lake."""
        return self.table.partition(p).path("published", self._source.short)

    def parts(self) -> list[tuple[int, Partition, int]]:
        """Number, partition and rows of each file there will be, sorted by partition."""
        found = [(p, self.table.partition(p), self.table.stat(p, rk.ROWS_OUT)) for p in range(len(self.table))]
        return sorted((entry for entry in found if entry[2]), key=lambda entry: entry[1])

    def commit(self, stamp: Stamp, facts: dict[str, Any]) -> None:
        """Give every file its final name, with `stamp`, `facts` and what is counted of its partition. After `table.close`."""
        with ThreadPoolExecutor(_COMMITTERS) as pool:
            jobs = [pool.submit(self._commit, p, rows, stamp, facts) for p, _, rows in self.parts()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _commit(self, p: int, expected: int, stamp: Stamp, facts: dict[str, Any]) -> None:
        sink = self._sink(p)
        for values in self._spill.rows(p) if self._spill and p >= MAX_OPEN else ():
            sink.write(to_table(values, self._depth))
        if sink.rows != expected:
            raise BookmillError(
                f"{self._source.name}: {self.table.partition(p)} counted {expected:,} rows and wrote {sink.rows:,}; nothing of the source was "
                "published. This is a fault of Bookmill: please report it with the file."
            )
        counted = self.table.facts(p)
        own = {name: counted[name] for name in counted if name.startswith(("rows_", "suspect_", "out_of_", "first_ts_recv", "last_ts_recv"))}
        sink.commit(stamp, {**facts, **own, "rows_quarantined": counted["quarantined"]})
        self._committed.append(sink.path)
        self._sinks.pop(p)

    def close(self, *, undo: bool) -> None:
        """Drop whatever has no final name yet; with `undo` also what `commit` named, because a later step failed."""
        for sink in self._sinks.values():
            sink.abort()
        if self._spill:
            self._spill.close()
        for path in self._committed if undo else ():
            path.unlink(missing_ok=True)


class _Spill:
    """Rows of many partitions in one file without a name in the lake's hidden folder; a killed run leaves nothing behind."""

    def __init__(self, folder: Path, width: int) -> None:
        self._folder, self._width, self._rows = folder, width, 0
        self._pieces: list[np.ndarray] = []  # int64[k, 3] a batch: partition, first row in the file, rows
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed by close()
        except OSError as fault:
            raise storage_error(folder, fault) from fault

    def add(self, values: np.ndarray, parts: np.ndarray, counts: np.ndarray) -> None:
        """Append values int64[width, m], which hold counts[i] rows of partition parts[i], one partition after the other."""
        self._pieces.append(np.stack([parts, self._rows + np.cumsum(counts) - counts, counts], axis=1))
        self._rows += values.shape[1]
        try:
            self._file.write(np.ascontiguousarray(values.T).data)
            self._file.flush()
        except OSError as fault:
            raise storage_error(self._folder, fault) from fault

    def rows(self, p: int) -> Iterator[np.ndarray]:
        """The rows of a partition in source order, int64[width, k] a piece."""
        for pieces in self._pieces:
            at = int(np.searchsorted(pieces[:, 0], p))
            if at < len(pieces) and pieces[at, 0] == p:
                _, start, count = pieces[at].tolist()
                # A mapping, not seek and read: several partitions are read at once.
                found = np.memmap(self._file, np.int64, "r", start * self._width * 8, (count, self._width))
                yield np.array(found).T

    def close(self) -> None:
        """Free the disk."""
        self._file.close()
