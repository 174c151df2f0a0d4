"""The quarantine of a source: rows set aside with their bytes, reason and place. Why a row is set aside is decided in decode.py and by gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.partitions import SourceFile, Stamp
from tasks.scanning.batches import BadRow
from tasks.scanning.sources_file import quarantine_path
from tasks.schemas import QUARANTINE
from tasks.storage import ParquetSink, write_table

_HELD_ROWS = 4096  # as Python objects before they become a table
_NONE = QUARANTINE.empty_table()


class QuarantineLog:
    """The bad rows that a decode meets, in the order of the source; a file appears only when there are any."""

    def __init__(self, source: SourceFile, lake: Path) -> None:
        self._source, self.name = source, quarantine_path(source.dataset, source.short)
        self._path, self.rows = lake / self.name, 0
        self._sink: ParquetSink | None = None
        self._committed = False
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: BadRow, event_row: int, symbol: str) -> None:
        """Note one row; event_row: row of the events before which it stood or -1; symbol: "" when it could not be read."""
        self._waiting.append({
            "stage": "decode", "reason": row.reason, "detail": row.detail, "source": self._source.name, "fingerprint": self._source.fingerprint,
            "byte_offset": row.byte_offset, "source_row": row.source_row, "event_row": event_row, "symbol": symbol, "raw": row.raw,
        })  # fmt: skip
        self.rows += 1
        if len(self._waiting) >= _HELD_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._sink = self._sink or ParquetSink(self._path, QUARANTINE)
            self._sink.write(pa.Table.from_pylist(self._waiting, QUARANTINE))
            self._waiting = []

    def commit(self, stamp: Stamp, kept: pa.Table = _NONE) -> None:
        """Name the file, with the rows `kept` of an earlier decode behind its own, or remove that of the earlier one when there are none."""
        self._flush()
        if kept.num_rows:
            self._sink = self._sink or ParquetSink(self._path, QUARANTINE)
            self._sink.write(kept)
            self.rows += kept.num_rows
        if self._sink is None:
            self._path.unlink(missing_ok=True)
            return
        self._sink.commit(stamp)
        self._committed = True

    def close(self, *, undo: bool) -> None:
        """Drop the file unless it was named; with `undo` also then."""
        if self._sink is not None:
            self._sink.abort()
        if undo and self._committed:
            self._path.unlink(missing_ok=True)


def append_rows(path: Path, rows: list[dict[str, Any]], stamp: Stamp) -> int:
    """Add rows of schema QUARANTINE to the quarantine at `path`, in one step; returns how many it holds then. Callers hold `sources_lock`."""
    table = pa.Table.from_pylist(rows, QUARANTINE)
    if path.exists():
        table = pa.concat_tables([pq.read_table(path, partitioning=None).cast(QUARANTINE), table])
    write_table(path, table, stamp)
    return table.num_rows
