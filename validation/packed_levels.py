"""One pass over the packed levels of a book layer: which rules on levels no row can break. The rules themselves are in suites/books.py.

SQL reads a number of a packed row in 0.1 us, which is 35 s for 5.9M rows of ten levels; this pass takes 0.7 s besides reading the column (0.4 s),
shared out by row groups. It proves, it does not count: a rule that it cannot prove is counted in SQL like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.book_rows import LEVELS, PACKED_WORDS
from tasks.kernels import big_endian, kernel
from tasks.schemas import UNDEF_PRICE
from validation.row_groups import each_run, unbroken

# What is looked for, as Rule.check names it.
CHECKS = ("ordered", "no_gap", "sizes", "counts", "counts_or_none", "no_counts", "not_crossed")
BATCH_ROWS = 4_096  # 1.6 MB of ten levels: in the processor's cache from decompression to look, a tenth faster than four times as many


@kernel
def look(words, depth, broken):
    """Add to broken int64[len(CHECKS)] the rows of words int64[n, PACKED_WORDS * depth] that break each of CHECKS, whatever their status is."""
    for r in range(words.shape[0]):
        order = 0
        gap = 0
        size = 0
        count = 0
        most = np.int64(0)
        for side in range(2):
            before = np.int64(0)
            for k in range(depth):
                place = 2 * k + side
                px = big_endian(words[r, place])
                sz = big_endian(words[r, 2 * depth + place])
                both = big_endian(words[r, 4 * depth + k])
                ct = (both >> 32) & 0xFFFFFFFF if side == 0 else both & 0xFFFFFFFF
                empty = px == UNDEF_PRICE
                if k > 0:
                    was_empty = before == UNDEF_PRICE
                    # As in suites/books.py: an empty level is the largest integer.
                    if side == 0:
                        order |= not (before > px or empty)
                    else:
                        order |= not (before < px or was_empty)
                    gap |= was_empty and not empty
                size |= sz < 0 or (sz == 0) != empty
                count |= (ct == 0) != empty
                most |= ct
                before = px
        bid = big_endian(words[r, 0])
        broken[0] += order
        broken[1] += gap
        broken[2] += size
        broken[3] += count
        broken[4] += count and most != 0
        broken[5] += most != 0
        broken[6] += bid != UNDEF_PRICE and bid >= big_endian(words[r, 1])


def proven(path: Path, depth: int, threads: int) -> set[str] | None:
    """Those of CHECKS that every row of a packed file passes; None where a row has no levels at all, which is for SQL to count. Raises OSError
    or ArrowException when the file cannot be read."""

    def look_at(batches: Iterator[pa.RecordBatch]) -> np.ndarray | None:
        broken = np.zeros(len(CHECKS), np.int64)
        for batch in batches:
            column = batch.column(0)
            if column.null_count:  # what stands in their place may be any row
                return None
            words = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, PACKED_WORDS * depth)
            look(words[column.offset : column.offset + len(column)], depth, broken)
        return broken

    return unbroken(CHECKS, each_run(path, [LEVELS], BATCH_ROWS, threads, look_at))
