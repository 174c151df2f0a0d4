"""One pass over the levels of a book layer that has them as columns: which rules on levels no row can break. The rules are in suites/books.py.

SQL puts together conditions over sixty columns of each row: 26 ms of a core for the 23,000 grid rows of a symbol and day, of which this pass
takes 9, reading included. It proves, it does not count: a rule that it cannot prove is counted in SQL like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.kernels import kernel
from tasks.schemas import UNDEF_PRICE
from validation.packed_levels import CHECKS
from validation.row_groups import each_run, unbroken

BATCH_NUMBERS = 1 << 20  # 17,000 rows of ten levels, 500 of 500

COUNTS = frozenset({"counts", "counts_or_none", "no_counts"})

# Bits of what a row breaks, and of what its levels have.
ORDER, GAP, SIZE, COUNT, COUNTED = 1, 2, 4, 8, 16


@kernel
def look_at_level(px, sz, ct, above, deeper, ask, seen):
    """Note in seen uint8[n] what each row breaks with this level of one side.

    px, sz int64[n], ct uint32[n]: prices, sizes and counts of the level; above int64[n]: prices of the level above it, looked at when deeper.
    """
    for r in range(px.shape[0]):
        price = px[r]
        size = sz[r]
        count = ct[r]
        empty = price == UNDEF_PRICE
        broken = SIZE * (size < 0 or (size == 0) != empty) | COUNT * ((count == 0) != empty) | COUNTED * (count != 0)
        if deeper:
            upper = above[r]
            was_empty = upper == UNDEF_PRICE
            # As in suites/books.py: an empty level is the largest integer.
            in_order = (upper < price or was_empty) if ask else (upper > price or empty)
            broken |= ORDER * (not in_order) | GAP * (was_empty and not empty)
        seen[r] |= np.uint8(broken)


@kernel
def add_up(seen, bid, ask, broken):
    """Add to broken int64[len(CHECKS)] the rows that break each of CHECKS, whatever their status is; bid and ask int64[n]: the best prices."""
    for r in range(seen.shape[0]):
        found = seen[r]
        broken[0] += (found & ORDER) != 0
        broken[1] += (found & GAP) != 0
        broken[2] += (found & SIZE) != 0
        broken[3] += (found & COUNT) != 0
        broken[4] += (found & (COUNT | COUNTED)) == COUNT | COUNTED
        broken[5] += (found & COUNTED) != 0
        broken[6] += bid[r] != UNDEF_PRICE and bid[r] >= ask[r]


def proven(path: Path, names: Sequence[str], threads: int) -> set[str] | None:
    """Those of CHECKS that every row of a file with columns passes; None where a level is null, which is for SQL to count.

    names: the columns of all levels, bid_px_00, ask_px_00, ...; of books that do not count orders without those of counts, of which nothing is
    proven then. Raises OSError or ArrowException when the file cannot be read.
    """
    depth = sum(name.startswith("bid_px_") for name in names)
    counted = len(names) == 6 * depth

    def look_at(batches: Iterator[pa.RecordBatch]) -> np.ndarray | None:
        broken = np.zeros(len(CHECKS), np.int64)
        for batch in batches:
            if any(column.null_count for column in batch.columns):
                return None
            level = {name: batch.column(name).to_numpy() for name in names}
            seen, none = np.zeros(len(batch), np.uint8), np.zeros(0 if counted else len(batch), np.uint32)
            for side in ("bid", "ask"):
                for k in range(depth):
                    px, sz, ct = (level.get(f"{side}_{kind}_{k:02d}", none) for kind in ("px", "sz", "ct"))
                    look_at_level(px, sz, ct, level[f"{side}_px_{max(k - 1, 0):02d}"], k > 0, side == "ask", seen)
            add_up(seen, level["bid_px_00"], level["ask_px_00"], broken)
        return broken

    found = unbroken(CHECKS, each_run(path, names, max(1, BATCH_NUMBERS // len(names)), threads, look_at))
    return found if found is None or counted else found - COUNTS
