"""One pass over an events file: which rules on its rows no row can break. The rules themselves are in suites/events.py.

SQL looks at the row before on one core, and twice where rows look repeated: 1.2 s for 7.4M rows. This pass takes 0.4 s on one core and is shared
out by row groups. It proves, it does not count: a rule that it cannot prove is counted in SQL like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.kernels import kernel
from tasks.schemas import ACTIONS, F_BAD_TS_RECV, F_SNAPSHOT, F_TOB, SIDES, UNDEF_PRICE
from validation.row_groups import each_run, unbroken
from validation.suites.events import CLOCK_TOLERANCE_NS, EARLIEST_NS, LATEST_NS, RESERVED_FLAGS, UNDEF_SIZE

# What is looked for, as Rule.check names it.
CHECKS = ("action", "side", "price", "size", "times", "size_not_zero", "received_after", "flags", "in_order", "not_repeated")
COLUMNS = ("ts_event", "ts_recv", "sequence", "order_id", "action", "side", "price", "size", "flags")
LETTERS = {"action": ACTIONS, "side": SIDES}
IN_ORDER, NOT_REPEATED = CHECKS.index("in_order"), CHECKS.index("not_repeated")
BATCH_ROWS = 65_536

_A, _C, _N, _R = (ord(letter) for letter in "ACNR")
_MOST = 2**63 - 1
_NO_RECEIVE_TIME = F_SNAPSHOT | F_BAD_TS_RECV


@kernel
def look(ts_event, ts_recv, sequence, order_id, action, side, price, size, flags, edges, broken):
    """Add to broken int64[len(CHECKS)] the rows that break each of CHECKS.

    All columns have the rows of a batch; times, order_id (as it lies in memory) and price int64, sequence and size uint32, action, side (ASCII,
    0: another letter) and flags uint8. edges int64[2, 10]: first and last row so far, as the columns stand here and then 1, or all 0 before the
    first batch; brought up to date. What depends on an unknown action or on the first or last of all times
    counts as broken.
    """
    known = edges[1, 9] != 0
    te, tr, sq, oid, ac = edges[1, 0], edges[1, 1], edges[1, 2], edges[1, 3], edges[1, 4]
    sd, px, sz, fl = edges[1, 5], edges[1, 6], edges[1, 7], edges[1, 8]
    for r in range(len(ts_event)):
        te0, tr0, sq0, oid0, ac0, sd0, px0, sz0, fl0 = te, tr, sq, oid, ac, sd, px, sz, fl
        te, tr, sq, oid = np.int64(ts_event[r]), np.int64(ts_recv[r]), np.int64(sequence[r]), np.int64(order_id[r])
        ac, sd, px, sz, fl = np.int64(action[r]), np.int64(side[r]), np.int64(price[r]), np.int64(size[r]), np.int64(flags[r])
        top = (fl & F_TOB) != 0
        no_order = ac in (_N, _R)
        broken[0] += ac == 0
        broken[1] += sd == 0
        broken[2] += px == UNDEF_PRICE and not (top or no_order or ac == _C)
        broken[3] += not ((sz >= 1 and sz < UNDEF_SIZE) or no_order or top or (sz == 0 and ac != _A and ac != 0))
        broken[4] += te < EARLIEST_NS or te > LATEST_NS or tr < EARLIEST_NS or tr > LATEST_NS
        broken[5] += sz == 0 and not (no_order or ac == _A or top)
        # The difference to a time before 1970 might not fit, and the outermost times are infinity to SQL, which is no number: both are left to it.
        endless = te in (_MOST, -_MOST) or tr in (_MOST, -_MOST)
        broken[6] += endless or (te > tr and (te < 0 or te - CLOCK_TOLERANCE_NS > tr) and (fl & _NO_RECEIVE_TIME) == 0)
        broken[7] += (fl & RESERVED_FLAGS) != 0
        if known:
            broken[8] += endless or tr < tr0
            same = te == te0 and tr == tr0 and sq == sq0 and oid == oid0 and ac == ac0 and sd == sd0 and px == px0 and sz == sz0 and fl == fl0
            broken[9] += endless or same
        else:
            known = True
            edges[0, 0], edges[0, 1], edges[0, 2], edges[0, 3], edges[0, 4] = te, tr, sq, oid, ac
            edges[0, 5], edges[0, 6], edges[0, 7], edges[0, 8], edges[0, 9] = sd, px, sz, fl, 1
    if known:
        edges[1, 0], edges[1, 1], edges[1, 2], edges[1, 3], edges[1, 4] = te, tr, sq, oid, ac
        edges[1, 5], edges[1, 6], edges[1, 7], edges[1, 8], edges[1, 9] = sd, px, sz, fl, 1


def proven(path: Path, threads: int) -> set[str] | None:
    """Those of CHECKS that every row of an events file passes; None where a value is null, which is for SQL to count. Raises OSError or
    ArrowException when the file cannot be read."""
    runs = each_run(path, COLUMNS, BATCH_ROWS, threads, _look_at)
    between = np.zeros(len(CHECKS), np.int64)
    seen = [run[1].tolist() for run in runs if run is not None and run[1][0, 9]]
    for (_, last), (first, _) in pairwise(seen):
        between[IN_ORDER] += first[1] < last[1]
        between[NOT_REPEATED] += first == last
    return unbroken(CHECKS, [between, *(run[0] if run is not None else None for run in runs)])


def _look_at(batches: Iterator[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray] | None:
    """(broken, edges) of a run of row groups."""
    broken, edges = np.zeros(len(CHECKS), np.int64), np.zeros((2, len(COLUMNS) + 1), np.int64)
    for batch in batches:
        if any(column.null_count for column in batch.columns):
            return None
        look(*(_array(batch.column(name), name) for name in COLUMNS), edges, broken)
    return broken, edges


def _array(column: pa.Array, name: str) -> np.ndarray:
    """A column as `look` takes it."""
    if name in LETTERS:
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        letters = [ord(word) if word in LETTERS[name] else 0 for word in column.dictionary.to_pylist()]
        return np.array([*letters, 0], np.uint8)[column.indices.to_numpy()]
    if pa.types.is_timestamp(column.type) or pa.types.is_uint64(column.type):
        column = column.view(pa.int64())
    return column.to_numpy()
