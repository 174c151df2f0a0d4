"""Parquet layers of one partition as batches of arrays, and constant or coded columns back to Arrow. No rule of bars or features lives here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import SchemaMismatch, StorageError

KNOWN = "as_of"  # the clock of what was known when: the running clock of the replay that made the rows
INT64_MAX = np.iinfo(np.int64).max
INT64_MIN = np.iinfo(np.int64).min

# Wanted columns: name -> None for integers and times, or the values whose positions are the codes.
Wanted = Mapping[str, Sequence[str] | None]
Columns = dict[str, np.ndarray]


def record_batches(path: Path, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `batch_rows` rows in file order; raises SchemaMismatch or StorageError, naming the file."""
    try:
        # pre_buffer, the default, keeps the whole compressed file in memory until it is closed (measured).
        with pq.ParquetFile(path, metadata=_metadata(path), pre_buffer=False) as file:
            there = set(file.schema.names)  # made anew at each look, 2 ms at 2,000 columns
            if missing := [n for n in names if n not in there]:
                raise SchemaMismatch(path, f"columns {', '.join(missing)} are missing", remedy="Delete the file and start again: it is rebuilt.")
            # One thread: a partition's task holds one CPU slot, and partitions run beside each other.
            yield from file.iter_batches(batch_size=batch_rows, columns=list(names), use_threads=False)
    except (OSError, pa.ArrowException) as fault:
        raise StorageError(f"Cannot read {path}: {fault}. Delete the file and start again: it is rebuilt.") from fault


def integers(path: Path, batch: pa.RecordBatch, name: str) -> np.ndarray:
    """int64[n] copy of an integer or time column; a copy, since a read-only array would compile every kernel twice."""
    column = batch.column(name)
    if column.null_count:
        raise SchemaMismatch(path, f"column {name} holds nulls", remedy="Delete the file and start again: it is rebuilt.")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", tz=column.type.tz)).view(pa.int64())
    return np.array(column.to_numpy(), dtype=np.int64)


def codes(path: Path, batch: pa.RecordBatch, name: str, values: Sequence[str]) -> np.ndarray:
    """int8[n] positions in `values` of a text or dictionary column; raises SchemaMismatch for any other value."""
    column = batch.column(name)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = column.dictionary.to_pylist()
    table = np.array([values.index(word) if word in values else -1 for word in words], dtype=np.int8)
    found = table[column.indices.to_numpy()] if column.null_count == 0 and len(table) else np.full(len(column), -1, np.int8)
    if (found < 0).any():
        strange = sorted(str(word) for word in words if word not in values)
        raise SchemaMismatch(path, f"column {name} holds {', '.join(strange) or 'null'}; allowed: {', '.join(v or 'empty' for v in values)}")
    return found


def column_batches(paths: Sequence[Path], wanted: Wanted, batch_rows: int) -> Iterator[Columns]:
    """The wanted columns of several files, one after the other: int64[n] numbers and times, int8[n] codes."""
    for path in paths:
        for batch in record_batches(path, list(wanted), batch_rows):
            if batch.num_rows:
                yield {name: integers(path, batch, name) if v is None else codes(path, batch, name, v) for name, v in wanted.items()}


def row_count(paths: Sequence[Path]) -> int:
    """Rows of several files, from their footers."""
    try:
        return sum(_metadata(path).num_rows for path in paths)
    except (OSError, pa.ArrowException) as fault:
        raise StorageError(f"Cannot read {', '.join(map(str, paths))}: {fault}. Start again: what is missing is rebuilt.") from fault


@dataclass(frozen=True)
class ClockFloors:
    """The least clock value that is still to come, for a reader that knows how many rows it has met.

    ends: int64[g] cumulated rows at the end of each row group; floors: int64[g + 1] least value in group i and all later ones.
    """

    ends: np.ndarray
    floors: np.ndarray

    @staticmethod
    def of(paths: Sequence[Path], clock: str) -> ClockFloors:
        """From the row groups' statistics; a group without them may hold anything, so nothing is final before it is read."""
        rows, least = [], []
        for path in paths:
            try:
                metadata = _metadata(path)
            except (OSError, pa.ArrowException) as fault:
                raise StorageError(f"Cannot read {path}: {fault}. Delete the file and start again: it is rebuilt.") from fault
            names = metadata.schema.names
            for group in range(metadata.num_row_groups):
                rows.append(metadata.row_group(group).num_rows)
                statistics = metadata.row_group(group).column(names.index(clock)).statistics if clock in names else None
                least.append(int(statistics.min_raw) if statistics is not None and statistics.has_min_max else INT64_MIN)
        floors = np.minimum.accumulate(np.array([*least, INT64_MAX], dtype=np.int64)[::-1])[::-1]
        return ClockFloors(np.cumsum(np.array(rows, dtype=np.int64)), floors)

    def after(self, rows_met: int) -> int:
        """Least clock value among the row groups that are not wholly within the first `rows_met` rows; 2^63-1 when there is none."""
        return int(self.floors[np.searchsorted(self.ends, rows_met, side="right")])


def coded_column(found: np.ndarray, values: Sequence[str], index: pa.DataType | None = None) -> pa.DictionaryArray:
    """Codes as a dictionary column whose dictionary is always all of `values`, so that bytes do not depend on batch borders."""
    return pa.DictionaryArray.from_arrays(pa.array(found, index or pa.int8()), _texts(tuple(values)))


@lru_cache(64)
def _texts(values: tuple[str, ...]) -> pa.Array:
    return pa.array(values, pa.string())


def _metadata(path: Path) -> pq.FileMetaData:
    """Parquet's metadata of a file; those of the last few are kept, since an aggregate asks for them five times."""
    now = path.stat()
    return _read_metadata(path, now.st_ino, now.st_mtime_ns, now.st_size)


@lru_cache(64)
def _read_metadata(path: Path, *_: int) -> pq.FileMetaData:
    return pq.read_metadata(path)
