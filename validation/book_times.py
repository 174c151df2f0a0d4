"""One pass over the times and statuses of book rows at event ends: which rules on them no row can break. The rules are in suites/books.py.

SQL looks at the row before on one core: 0.4 s for 5.9M rows. This pass takes as long on one core and half of it on two, since it is shared out by
row groups. It proves, it does not count: a rule that it cannot prove is counted in SQL like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.kernels import kernel
from tasks.schemas import REASONS, STATUSES
from validation.row_groups import each_run, unbroken

# What is looked for, as Rule.check names it. The last three look at the row before.
CHECKS = (
    "status", "reason", "reason_fits", "since_as_of", "as_of_until_ts_recv", "as_of_until_both", "age_none",
    "as_of_in_order", "ts_event_in_order", "ts_recv_in_order",
)  # fmt: skip
MARK = "as_of_in_order"  # of rules on rows at event ends only
TIMES = ("as_of", "ts_event", "ts_recv", "status_since")
WORDS = {"status": (STATUSES, "valid"), "reason": (REASONS, "")}
COLUMNS = (*TIMES, "age_ns", *WORDS)
ORDERED = 3  # the first so many of TIMES
BATCH_ROWS = 65_536

# What a word is.
UNKNOWN, PLAIN, OTHER = 0, 1, 2
_MOST = 2**63 - 1


@kernel
def look(as_of, ts_event, ts_recv, since, age, status, reason, edges, broken):
    """Add to broken int64[len(CHECKS)] the rows that break each of CHECKS.

    All columns have the rows of a batch; times and age int64 ns; status and reason uint8: UNKNOWN, PLAIN ("valid", no reason) or OTHER.
    edges int64[2, ORDERED + 1]: the times of the first and the last row so far and then 1, or all 0 before the first batch; brought up to date.
    """
    known = edges[1, ORDERED] != 0
    at, event, received = edges[1, 0], edges[1, 1], edges[1, 2]
    for r in range(len(as_of)):
        at0, event0, received0 = at, event, received
        at, event, received, began = as_of[r], ts_event[r], ts_recv[r], since[r]
        # The outermost times are infinity to SQL, which is no number there: what depends on a time is left to it.
        endless = at in (_MOST, -_MOST) or event in (_MOST, -_MOST) or received in (_MOST, -_MOST) or began in (_MOST, -_MOST)
        broken[0] += status[r] == UNKNOWN
        broken[1] += reason[r] == UNKNOWN
        broken[2] += (status[r] == PLAIN) != (reason[r] == PLAIN)
        broken[3] += endless or began > at
        broken[4] += endless or at > received
        broken[5] += endless or (at > received and at > event)
        broken[6] += endless or age[r] != 0
        if known:
            broken[7] += endless or at < at0
            broken[8] += endless or event < event0
            broken[9] += endless or received < received0
        else:
            known = True
            edges[0, 0], edges[0, 1], edges[0, 2], edges[0, ORDERED] = at, event, received, 1
    if known:
        edges[1, 0], edges[1, 1], edges[1, 2], edges[1, ORDERED] = at, event, received, 1


def proven(path: Path, threads: int) -> set[str] | None:
    """Those of CHECKS that every row of a file passes; None where a value is null, which is for SQL to count. Raises OSError or ArrowException
    when the file cannot be read."""
    runs = each_run(path, COLUMNS, BATCH_ROWS, threads, _look_at)
    between = np.zeros(len(CHECKS), np.int64)
    seen = [run[1] for run in runs if run is not None and run[1][0, ORDERED]]
    for (_, last), (first, _) in pairwise(seen):
        between[-ORDERED:] += first[:ORDERED] < last[:ORDERED]
    return unbroken(CHECKS, [between, *(run[0] if run is not None else None for run in runs)])


def _look_at(batches: Iterator[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray] | None:
    """(broken, edges) of a run of row groups."""
    broken, edges = np.zeros(len(CHECKS), np.int64), np.zeros((2, ORDERED + 1), np.int64)
    for batch in batches:
        if any(column.null_count for column in batch.columns):
            return None
        times = (batch.column(name).view(pa.int64()).to_numpy() for name in TIMES)
        look(*times, batch.column("age_ns").to_numpy(), *(_kinds(batch.column(name), *of) for name, of in WORDS.items()), edges, broken)
    return broken, edges


def _kinds(column: pa.Array, words: tuple[str, ...], plain: str) -> np.ndarray:
    """uint8[n]: what each word of a column is."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    kinds = [PLAIN if word == plain else OTHER if word in words else UNKNOWN for word in column.dictionary.to_pylist()]
    return np.array([*kinds, UNKNOWN], np.uint8)[column.indices.to_numpy()]
