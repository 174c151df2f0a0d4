"""One pass over columns of a Parquet file in compiled code, side by side: runs of row groups, one a thread. What is looked for stands elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

T = TypeVar("T")


def each_run(path: Path, columns: Sequence[str], batch_rows: int, threads: int, look: Callable[[Iterator[pa.RecordBatch]], T]) -> list[T]:
    """What `look` says of the batches of each run of row groups, in file order; at most `threads` runs. Raises OSError or ArrowException."""
    groups = pq.read_metadata(path).num_row_groups
    runs = min(max(threads, 1), groups)

    def one(run: int) -> T:
        # A file of its own: a reader is for one thread.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            mine = range(groups * run // runs, groups * (run + 1) // runs)
            return look(file.iter_batches(batch_rows, row_groups=mine, columns=list(columns), use_threads=False))

    if runs < 2:
        return [one(run) for run in range(runs)]
    with ThreadPoolExecutor(runs, "look") as pool:
        return list(pool.map(one, range(runs)))


def unbroken(checks: Sequence[str], runs: Sequence[np.ndarray | None]) -> set[str] | None:
    """Those of `checks` that no row of any run breaks, from int64[len(checks)] broken rows a run; None when a run cannot tell (None)."""
    broken = np.zeros(len(checks), np.int64)
    for run in runs:
        if run is None:
            return None
        broken += run
    return {name for name, rows in zip(checks, broken.tolist(), strict=True) if rows == 0}
