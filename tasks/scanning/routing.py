"""From checked rows to one events file per partition, in bounded memory and with a bounded number of open files.

The first partitions of a source get a sink each. Rows of all later ones go through sorted runs on disk and are written one partition after
the other at the end, so 11,000 symbols need as many open files as one. The bytes of a file depend on its rows only, not on the way they took.
What is filtered or bad is decided in decode.py before.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.disk import together
from tasks.errors import BookmillError
from tasks.events_file import events_sink, to_table, truth_sink, truth_table
from tasks.partitions import SourceFile, Stamp
from tasks.scanning import route_kernels as rk
from tasks.scanning.partition_table import PartitionTable
from tasks.scanning.spill import Spill
from tasks.schemas import EVENT_DTYPES, F_LAST
from tasks.storage import ROW_GROUP_ROWS, ParquetSink

MAX_OPEN = 64
MIN_RUN_ROWS = 1024
NAMED_TOGETHER = 64  # small files cost mostly their syncs, which go on side by side
_ROW_BYTES = sum(dtype.itemsize for dtype in EVENT_DTYPES.values()) + 12  # with partition number and symbol index
_SINK_BYTES = ROW_GROUP_ROWS * _ROW_BYTES  # what a sink holds before it writes a row group


class _Writer:
    """Writes tables to sinks behind the caller's back, in order: encoding one batch overlaps with reading the next."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="events")
        self._waiting: deque[Future[None]] = deque()

    def write(self, sink: ParquetSink, table: pa.Table) -> None:
        """Queue a table; waits while two are queued, and raises what an earlier write raised."""
        while len(self._waiting) >= 2:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(sink.write, table))

    def drain(self) -> None:
        """Wait until everything is written; raises what a write raised."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread; what is still queued is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Router:
    """Takes batches of one source and writes the events (and truth) files of its partitions; nothing has a final name before `commit`."""

    def __init__(self, source: SourceFile, lake: Path, *, memory_bytes: int) -> None:
        self.table = PartitionTable(source)
        self._source, self._lake = source, lake
        # Three quarters of the memory for open sinks, an eighth for the run; the rest is for batches and the row group being encoded.
        self._direct = max(1, min(MAX_OPEN, memory_bytes * 3 // 4 // _SINK_BYTES))
        self._committers = max(1, min(4, memory_bytes // (8 * _SINK_BYTES)))
        self._capacity = max(MIN_RUN_ROWS, memory_bytes // 8 // _ROW_BYTES)
        self._sinks: dict[int, ParquetSink] = {}
        self._truths: dict[int, ParquetSink] = {}
        self._run: dict[str, np.ndarray] = {}
        self._fill = 0
        self._writer = _Writer()
        self._spill: Spill | None = None
        self._committed: list[Path] = []

    def add(self, columns: dict[str, np.ndarray], part: np.ndarray) -> None:
        """Take the rows whose `part` is not -1. The arrays are kept, not copied: they must not change afterwards."""
        kept = part >= 0
        count = int(np.count_nonzero(kept))
        if count == 0:
            return
        p = int(part.max())
        if self._fill == 0 and p < self._direct and np.array_equal(part == p, kept):
            chosen = columns if count == len(part) else {name: column[kept] for name, column in columns.items()}
            self._writer.write(self._sink(p), to_table(chosen, self.table.symbol(p)))
            return
        if not self._run:
            self._run = {name: np.empty(self._capacity, dtype) for name, dtype in (*EVENT_DTYPES.items(), ("part", np.dtype("i4")))}
        rows, at = np.flatnonzero(kept), 0
        while at < count:
            chosen_rows = rows[at : at + self._capacity - self._fill]
            low, high = self._fill, self._fill + len(chosen_rows)
            for name, column in (*columns.items(), ("part", part)):
                np.take(column, chosen_rows, out=self._run[name][low:high])
            at, self._fill = at + len(chosen_rows), high
            if self._fill == self._capacity:
                self._flush()

    def add_truth(self, part: np.ndarray, flags: np.ndarray, message: np.ndarray, truth: np.ndarray) -> None:
        """Take the published books int64[m, depth, 4] after the m rows of the batch with F_LAST, for those rows that are kept.

        A source with truth holds one symbol, so these sinks are few.
        """
        ends = np.flatnonzero(flags & F_LAST)
        for p in np.unique(part[ends]).tolist():
            if p >= 0:
                mine = part[ends] == p
                if p not in self._truths:
                    self._truths[p] = truth_sink(self._path(p, "truth"), truth.shape[1])
                self._truths[p].write(truth_table(message[ends[mine]], truth[mine]))

    def truths(self) -> list[str]:
        """Paths of the events files, relative to the lake, that have a truth file beside them."""
        return sorted(self.table.partition(p).path("events", self._source.short) for p in self._truths)

    def _path(self, p: int, layer: str) -> Path:
        return self._lake / self.table.partition(p).path(layer, self._source.short)

    def _sink(self, p: int) -> ParquetSink:
        if p not in self._sinks:
            self._sinks[p] = events_sink(self._path(p, "events"))
        return self._sinks[p]

    def _flush(self) -> None:
        part = self._run["part"][: self._fill]
        order = np.empty(self._fill, np.int64)
        borders = rk.order_by_partition(part, len(self.table), order)
        direct = min(self._direct, len(self.table))
        for p in range(direct):
            rows = order[borders[p] : borders[p + 1]]
            if len(rows):
                chosen = {name: self._run[name][rows] for name in EVENT_DTYPES}
                self._writer.write(self._sink(p), to_table(chosen, self.table.symbol(p)))
        if borders[-1] > borders[direct]:
            self._spill = self._spill or Spill(self._lake / ".spill")
            counts = np.diff(borders[direct:])
            parts = np.flatnonzero(counts)
            self._spill.add_run(self._run, order[borders[direct] :], parts + direct, counts[parts])
        self._fill = 0

    def finish(self) -> None:
        """End of the source: nothing is added afterwards, and the counts are final."""
        if self._fill:
            self._flush()
        self._run = {}
        self._writer.drain()
        self.table.close()
        if self._spill:
            self._spill.seal()

    def commit(self, stamp: Stamp) -> None:
        """Give every events and truth file its final name, with `stamp` and its facts.

        Raises BookmillError when a file holds other than the counted rows. Spilled partitions are written here, so a disk can still fill.
        """
        parts = [p for p in range(len(self.table)) if self.table.stat(p, rk.ROWS_OUT)]
        with ThreadPoolExecutor(self._committers) as pool:
            jobs = [pool.submit(self._commit_some, parts[at : at + NAMED_TOGETHER], stamp) for at in range(0, len(parts), NAMED_TOGETHER)]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _commit_some(self, parts: list[int], stamp: Stamp) -> None:
        with together():
            paths = [path for p in parts for path in self._commit(p, stamp)]
        self._committed += paths

    def _commit(self, p: int, stamp: Stamp) -> list[Path]:
        sink, symbol, expected = self._sink(p), self.table.symbol(p), self.table.stat(p, rk.ROWS_OUT)
        for chunk in self._spill.rows(p) if self._spill and p >= self._direct else ():
            sink.write(to_table({name: np.ascontiguousarray(chunk[name]) for name in EVENT_DTYPES}, symbol))
        if sink.rows != expected:
            raise BookmillError(
                f"{self._source.name}: {self.table.partition(p)} counted {expected:,} rows and wrote {sink.rows:,}; nothing of the source was "
                "published. This is a fault of Bookmill: please report it with the file."
            )
        facts, truth = self.table.facts(p), self._truths.get(p)
        if truth is not None:
            truth.commit(stamp)
        sink.commit(stamp, facts)
        self._sinks.pop(p)
        return [*([truth.path] if truth is not None else []), sink.path]

    def close(self, *, undo: bool) -> None:
        """Drop whatever has no final name yet; with `undo` also what `commit` named, because a later step failed."""
        self._writer.close()
        for sink in (*self._sinks.values(), *self._truths.values()):
            sink.abort()
        self._sinks, self._truths = {}, {}
        if self._spill:
            self._spill.close()
        for path in self._committed if undo else ():
            path.unlink(missing_ok=True)
