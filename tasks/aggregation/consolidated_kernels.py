"""The kernel of the consolidated best bid and offer: merges the touch rows of several publishers in the order of time.

Publishers are numbered 0 to k - 1 in the order of their ids; side 0 is bid, 1 is ask. Each publisher has a batch of rows and a place in it.
The kernel returns when a batch is used up, because the next row of that publisher may be the earliest of all.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.schemas import HALTED, NO_BOOK, STALE, STATUSES, SUSPECT, UNDEF_PRICE, VALID

# A batch of rows of each publisher. clock, ts_event, ts_recv, since int64[k, room]; px, sz, ct int64[2, k, room]; status, reason int8[k, room]
Batches = namedtuple("Batches", "clock ts_event ts_recv since px sz ct status reason")

# Where the merge is in them: at, filled int64[k]; ended bool[k], no batch follows
Places = namedtuple("Places", "at filled ended")

# The last row of each publisher: clock (running maximum), since, status, reason int64[k]; seen bool[k]; px, sz, ct int64[2, k];
# best bool[2, k], stands at the consolidated price
Books = namedtuple("Books", "clock since status reason seen px sz ct best")

# Consolidated rows. ts_event, ts_recv, since int64[room]; px, sz, ct int64[2, room]; status, reason int8[room]; counted uint16[room];
# venues uint16[2, room * k]: publisher ids, row after row; ends int32[2, room + 1]: where those of each row end, the first entry 0
Out = namedtuple("Out", "ts_event ts_recv since px sz ct status reason counted venues ends")

# int64[TALLY_SIZE]; the last written row is kept from LAST on
T_ROWS = 0  # rows in the buffer
T_IN, T_OUT, T_CROSSED, T_LOCKED, T_LATE = 1, 2, 3, 4, 5
T_PX, T_SZ, T_CT = 6, 8, 10  # of bid and ask
T_COUNTED, T_STATUS, T_REASON, T_SINCE = 12, 13, 14, 15
TALLY_SIZE = 16

# Returned instead of the number of a publisher whose batch is used up.
ALL_DONE, OUT_FULL, TOO_LARGE = -1, -2, -3

_UNDEF = np.int64(UNDEF_PRICE)
_MAX_SIZE = np.int64(2**63 - 1)
_MAX_COUNT = np.int64(2**32 - 1)
# How bad each status is, by its code: valid < stale < halted < suspect < no_book.
SEVERITY = tuple((VALID, STALE, HALTED, SUSPECT, NO_BOOK).index(code) for code in range(len(STATUSES)))


@inner
def _counts(books, p):
    """Whether the touch of publisher p may be quoted."""
    return books.seen[p] and books.status[p] != NO_BOOK and books.status[p] != HALTED


@inner
def _consolidate_side(books, side, tally):
    """Best price of one side with its size and orders into `tally`; 1 when anything changed, 0 when not, TOO_LARGE when a sum does not fit."""
    px, sz, ct = _UNDEF, np.int64(0), np.int64(0)
    for p in range(books.clock.shape[0]):
        own = books.px[side, p]
        if _counts(books, p) and own != _UNDEF and (px == _UNDEF or (own > px if side == 0 else own < px)):
            px = own
    changed = False
    for p in range(books.clock.shape[0]):
        best = px != _UNDEF and books.px[side, p] == px and _counts(books, p)
        if best:
            if sz > _MAX_SIZE - books.sz[side, p] or ct > _MAX_COUNT - books.ct[side, p]:
                return TOO_LARGE
            sz += books.sz[side, p]
            ct += books.ct[side, p]
        if best != books.best[side, p]:
            books.best[side, p] = best
            changed = True
    if px != tally[T_PX + side] or sz != tally[T_SZ + side] or ct != tally[T_CT + side]:
        tally[T_PX + side] = px
        tally[T_SZ + side] = sz
        tally[T_CT + side] = ct
        changed = True
    return 1 if changed else 0


@inner
def _consolidate_status(books, tally):
    """The worst status of the publishers seen, with what belongs to it, and how many count; True when anything changed."""
    worst, counted = -1, 0
    for p in range(books.clock.shape[0]):
        if books.seen[p]:
            if worst < 0 or SEVERITY[books.status[p]] > SEVERITY[books.status[worst]]:
                worst = p
            if _counts(books, p):
                counted += 1
    status, reason, since = books.status[worst], books.reason[worst], books.since[worst]
    if counted == tally[T_COUNTED] and status == tally[T_STATUS] and reason == tally[T_REASON] and since == tally[T_SINCE]:
        return False
    tally[T_COUNTED] = counted
    tally[T_STATUS] = status
    tally[T_REASON] = reason
    tally[T_SINCE] = since
    return True


@inner
def _take(batches, i, books, p):
    """Row i of the batch of publisher p becomes its book."""
    books.seen[p] = True
    books.since[p] = batches.since[p, i]
    books.status[p] = batches.status[p, i]
    books.reason[p] = batches.reason[p, i]
    for side in range(2):
        books.px[side, p] = batches.px[side, p, i]
        books.sz[side, p] = batches.sz[side, p, i]
        books.ct[side, p] = batches.ct[side, p, i]


@inner
def _write(out, ids, books, tally, ts_event, ts_recv):
    """The consolidated state as the next row of the buffer."""
    r = tally[T_ROWS]
    out.ts_event[r] = ts_event
    out.ts_recv[r] = ts_recv
    out.since[r] = tally[T_SINCE]
    out.status[r] = tally[T_STATUS]
    out.reason[r] = tally[T_REASON]
    out.counted[r] = tally[T_COUNTED]
    for side in range(2):
        out.px[side, r] = tally[T_PX + side]
        out.sz[side, r] = tally[T_SZ + side]
        out.ct[side, r] = tally[T_CT + side]
        end = out.ends[side, r]
        for p in range(ids.shape[0]):
            if books.best[side, p]:
                out.venues[side, end] = ids[p]
                end += 1
        out.ends[side, r + 1] = end
    tally[T_ROWS] = r + 1
    tally[T_OUT] += 1
    if tally[T_PX] != _UNDEF and tally[T_PX + 1] != _UNDEF:
        tally[T_CROSSED] += tally[T_PX] > tally[T_PX + 1]
        tally[T_LOCKED] += tally[T_PX] == tally[T_PX + 1]


@kernel
def merge(batches, places, books, ids, out, tally, on_event_time):
    """Take rows in the order of (clock, publisher, place in its file); write a row at each change, until a batch is used up or `out` is full.

    batches, places, books, out: see above, `places.at`, books and out changed; ids uint16[k] ascending; tally int64[TALLY_SIZE] changed, T_COUNTED
    below 0 before the first row; on_event_time: the clock is ts_event, else ts_recv. The clock of a row is written to that column.
    Returns the publisher that needs its next batch, ALL_DONE, OUT_FULL, or TOO_LARGE: the sizes (int64) or orders (uint32) at one price do
    not fit; the row is the last one taken. Twin: tests/oracles/naive_consolidated.py
    """
    while tally[T_ROWS] < out.ts_event.shape[0]:
        first, now = -1, np.int64(0)
        for p in range(ids.shape[0]):
            if places.at[p] == places.filled[p]:
                if not places.ended[p]:
                    return p
                continue
            time = max(books.clock[p], batches.clock[p, places.at[p]])
            if first < 0 or time < now:
                first, now = p, time
        if first < 0:
            return ALL_DONE
        i = places.at[first]
        ts_event, ts_recv = batches.ts_event[first, i], batches.ts_recv[first, i]
        tally[T_LATE] += (ts_event if on_event_time else ts_recv) < now
        tally[T_IN] += 1
        places.at[first] = i + 1
        books.clock[first] = now
        _take(batches, i, books, first)
        bid, ask = _consolidate_side(books, 0, tally), _consolidate_side(books, 1, tally)
        if bid == TOO_LARGE or ask == TOO_LARGE:
            return TOO_LARGE
        # Not in one expression: what is not looked at would keep its old value.
        doubt = _consolidate_status(books, tally)
        if bid == 1 or ask == 1 or doubt:
            if on_event_time:
                _write(out, ids, books, tally, now, ts_recv)
            else:
                _write(out, ids, books, tally, ts_event, now)
    return OUT_FULL
