"""How files reach the lake: written beside, then named (disk.py); nothing with a final name is ever partial. The only module that decides it."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.disk import drop, publish, storage_error
from tasks.errors import StorageError
from tasks.footers import remember
from tasks.owners import Owner
from tasks.partitions import Stamp

# Fixed, so that the bytes of a file do not depend on batch sizes, which follow the machine's memory.
ROW_GROUP_ROWS = 131_072
PARTIAL = ".partial"
# Arrow writes each page by itself otherwise: 306 writes and as many questions after the place for the seven files of a book of 2,000 events.
WRITE_BYTES = 1 << 16
# A partial file of another machine that nobody has written to for so long is dead: twice the longest time that a profile gives a task.
FOREIGN_DEAD_S = 24 * 3600


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is synced and renamed to `path`, on any failure removed.

    Raises StorageError for faults of the disk.
    """
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        publish(temporary, path)
    except OSError as fault:
        drop(temporary)
        raise storage_error(path, fault) from fault
    except BaseException:
        drop(temporary)
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends well."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        yield file


class AtomicFile:
    """A binary file that appears under `path` only with `commit`, for writers that know late whether all went well; a context manager.

    Raises StorageError for faults of the disk.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._temporary, self._committed = path, _beside(path), False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "wb")  # noqa: SIM115 - closed by commit or abort
        except OSError as fault:
            raise storage_error(path, fault) from fault

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        try:
            return self._file.write(data)
        except OSError as fault:
            raise storage_error(self.path, fault) from fault

    def commit(self) -> None:
        """Close, sync and rename."""
        try:
            self._file.close()
            publish(self._temporary, self.path)
            self._committed = True
        except OSError as fault:
            self.abort()
            raise storage_error(self.path, fault) from fault

    def abort(self) -> None:
        """Drop what was written; harmless after a commit."""
        if self._committed:
            return
        with suppress(OSError):
            self._file.close()
        drop(self._temporary)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


@contextmanager
def temporary_copy(path: Path, folder: str) -> Iterator[Path]:
    """A copy of `path` in `folder` that is removed at the end; `path` itself where folder is "". Raises StorageError."""
    if not folder:
        yield path
        return
    copy = _beside(Path(folder) / path.name)
    try:
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        except OSError as fault:
            raise StorageError(f"Cannot copy {path} to {copy}: {fault.strerror}. Choose another --temp-dir, or none.") from fault
        yield copy
    finally:
        drop(copy)


def _beside(path: Path) -> Path:
    """A name no one else uses, which says which process of which machine writes it."""
    return path.with_name(f".{path.name}.{Owner.me().text}-{uuid.uuid4().hex[:8]}{PARTIAL}")


def steady(schema: pa.Schema) -> dict[str, str]:
    """Encodings of the columns that go on by even steps, or stand still, from one row of a time grid to the next: times, ages, sequence numbers.

    As differences they are next to nothing. Stored plainly, the grid of a symbol that trades seldom took 3.4 times the bytes and its features 8
    times, with no less time to write or to read (measured; of a busy symbol 1.02 and 1.3 times).
    """
    return {name: "DELTA_BINARY_PACKED" for name in schema.names if name in _STEADY}


_STEADY = frozenset({"ts_event", "ts_recv", "as_of", "age_ns", "sequence", "status_since"})


class ParquetSink:
    """One Parquet file, written in row groups of fixed size, named only by `commit`.

    Footer entries are given at commit, when the counts are known. `encodings` maps a column to a Parquet encoding
    (BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED, PLAIN) used instead of a dictionary; `statistics` names the
    columns that get them, None all. Use as a context manager: leaving without commit aborts.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        *,
        dictionary: list[str] | None = None,
        encodings: dict[str, str] | None = None,
        row_group_rows: int = ROW_GROUP_ROWS,
        statistics: list[str] | None = None,
    ) -> None:
        self.path, self.schema, self.rows, self._row_group_rows = path, schema, 0, row_group_rows
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._temporary, self._committed = _beside(path), False
        if dictionary is None:
            dictionary = [f.name for f in schema if pa.types.is_dictionary(f.type) or pa.types.is_string(f.type)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = pa.BufferedOutputStream(pa.OSFile(str(self._temporary), "wb"), WRITE_BYTES)
            self._writer = pq.ParquetWriter(
                self._stream, schema, compression="zstd", compression_level=1, use_dictionary=dictionary, column_encoding=encodings,
                write_page_index=False, store_schema=True, write_statistics=True if statistics is None else statistics,
            )  # fmt: skip
        except OSError as fault:
            drop(self._temporary)
            raise storage_error(path, fault) from fault

    def write(self, table: pa.Table | pa.RecordBatch) -> None:
        """Append rows; whole row groups go to the disk, the rest waits."""
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        if table.num_rows == 0:
            return
        self.rows += table.num_rows
        self._pending.append(table)
        self._pending_rows += table.num_rows
        while self._pending_rows >= self._row_group_rows:
            joined = pa.concat_tables(self._pending) if len(self._pending) > 1 else self._pending[0]
            self._flush(joined.slice(0, self._row_group_rows))
            rest = joined.slice(self._row_group_rows)
            self._pending, self._pending_rows = ([rest] if rest.num_rows else []), rest.num_rows

    def end_group(self) -> None:
        """Write what waits as a row group of its own."""
        if self._pending:
            self._flush(pa.concat_tables(self._pending))
            self._pending, self._pending_rows = [], 0

    def _flush(self, group: pa.Table) -> None:
        try:
            # Chunk borders follow the caller's batches and show in the pages; one chunk per group keeps the bytes independent of them.
            self._writer.write_table(group.unify_dictionaries().combine_chunks(), row_group_size=self._row_group_rows)
        except OSError as fault:
            raise storage_error(self.path, fault) from fault

    def commit(self, stamp: Stamp, facts: dict[str, Any] | None = None) -> None:
        """Close, sync and rename. `facts` (JSON-able, deterministic) go into the footer under bookmill.facts."""
        self.end_group()
        footer = {**stamp.footer(), "bookmill.rows": str(self.rows), "bookmill.facts": json.dumps(facts or {}, sort_keys=True)}
        try:
            self._writer.add_key_value_metadata(footer)
            self._writer.close()
            self._stream.close()
            remember(self._temporary, self.path, footer)
            publish(self._temporary, self.path)
            self._committed = True
        except OSError as fault:
            self.abort()
            raise storage_error(self.path, fault) from fault

    def abort(self) -> None:
        """Drop what was written; harmless after a commit."""
        if self._committed:
            return
        for part in (self._writer, self._stream):
            with suppress(OSError, pa.ArrowException):
                part.close()
        drop(self._temporary)

    def __enter__(self) -> ParquetSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


def write_table(path: Path, table: pa.Table, stamp: Stamp, facts: dict[str, Any] | None = None) -> None:
    """A whole small table as one Parquet file with stamp and facts in its footer."""
    with ParquetSink(path, table.schema) as sink:
        sink.write(table)
        sink.commit(stamp, facts)


def remove_partials(root: Path) -> list[Path]:
    """Delete what writers that no longer live left behind; returns what was deleted.

    Files of this machine go when their process is gone; those of another machine, container or boot when they are a day old, since nothing
    here can tell whether their process lives. What does not name its process is nobody's of ours and stays. A file that another cleaner took
    first is passed over.
    """
    removed = []
    # Not by a pattern of paths: that took 2.2 s for the 8,000 folders of a day of 600 symbols, each time a run begins.
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names if name.startswith(".") and name.endswith(PARTIAL)]
    for path in found:
        owner = _owner(path.name)
        if owner is None:
            continue
        alive = owner.alive
        try:
            if alive or (alive is None and time.time() - path.stat().st_mtime < FOREIGN_DEAD_S):
                continue
            path.unlink()
        except FileNotFoundError:
            continue
        removed.append(path)
    return removed


def partial_owner(name: str) -> tuple[int | None, bool]:
    """(process that writes a partial file of this name, whether it lives); (None, False) where this machine cannot say."""
    owner = _owner(name)
    alive = owner.alive if owner else None
    return (None, False) if owner is None or alive is None else (owner.pid, alive)


def _owner(name: str) -> Owner | None:
    return Owner.parse(name.removesuffix(PARTIAL).rsplit(".", 1)[-1].rpartition("-")[0])
