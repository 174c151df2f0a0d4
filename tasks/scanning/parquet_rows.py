"""Rows of a Parquet file in file order, with the error of a page that cannot be read. What the columns mean belongs to the readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import CorruptSource


def row_batches(file: pq.ParquetFile, path: Path, columns: list[str], batch_rows: int, remedy: str) -> Iterator[pa.RecordBatch]:
    """Yield record batches of at most `batch_rows` rows. Raises CorruptSource, naming the rows before, where a page cannot be read."""
    rows, seen = file.iter_batches(batch_size=batch_rows, columns=columns), 0
    while True:
        try:
            batch = next(rows, None)
        except (pa.ArrowException, OSError) as fault:
            if isinstance(fault, OSError) and fault.errno:
                raise
            problem = f"a page after row {seen:,} of {file.metadata.num_rows:,} cannot be read ({fault})"
            raise CorruptSource(path, problem, row=seen, remedy=remedy) from fault
        if batch is None:
            return
        seen += batch.num_rows
        yield batch
