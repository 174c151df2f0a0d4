"""Which partition each row belongs to, and what is counted per partition on the way: one pass over a batch, arrays and integers only."""

from __future__ import annotations

import numpy as np

from tasks.filtering.kernels import BY_PUBLISHER, BY_SYMBOL, BY_TIME
from tasks.kernels import njit
from tasks.scanning.check_kernels import GOOD
from tasks.schemas import UNDEF_PRICE

DAY_NS = 86_400 * 1_000_000_000

# Columns of the per-partition table `stats`.
(ROWS_IN, ROWS_OUT, FILTERED, QUARANTINED, OUT_OF_ORDER, FIRST_RECV, LAST_RECV, FIRST_EVENT, LAST_EVENT, MIN_PRICE, MAX_PRICE, MARKS,
 DIRTY, SEEN_ALL, SEEN_SYMBOL) = range(15)  # fmt: skip
N_STATS = 15

# Places of `cursor`, which carries a pass over from one call to the next.
ROW, LOST, PARTITIONS, MARKED = range(4)

# Suspect rows recorded per partition; more say nothing new about a partition that is this broken, and a footer has to stay small.
MARK_CAP = 10_000


@njit(nogil=True, cache=True)
def _find(code: np.int64, publisher: np.int64, instrument: np.int64, day: np.int64, keys: np.ndarray, table: np.ndarray, cursor: np.ndarray) -> int:
    """Number of the partition with this key, added when new; -1 when `keys` is full."""
    mask = len(table) - 1
    # Products stay below 2^60: no overflow, so the compiled and the interpreted kernel agree.
    slot = (instrument * 73_856_093) ^ (code * 19_349_663) ^ (day * 83_492_791) ^ (publisher * 40_503)
    slot = (slot ^ (slot >> 17)) & mask
    while table[slot] >= 0:
        p = table[slot]
        if keys[p, 2] == instrument and keys[p, 0] == code and keys[p, 3] == day and keys[p, 1] == publisher:
            return p
        slot = (slot + 1) & mask
    p = cursor[PARTITIONS]
    if p == len(keys):
        return -1
    keys[p, 0], keys[p, 1], keys[p, 2], keys[p, 3] = code, publisher, instrument, day
    table[slot] = p
    cursor[PARTITIONS] = p + 1
    return p


@njit(nogil=True, cache=True)
def rehash(keys: np.ndarray, n_keys: int, table: np.ndarray, cursor: np.ndarray) -> None:
    """Fill the larger int32 `table` (all -1) from the first n_keys of `keys`, keeping their numbers."""
    cursor[PARTITIONS] = 0
    for p in range(n_keys):
        _find(keys[p, 0], keys[p, 1], keys[p, 2], keys[p, 3], keys, table, cursor)


@njit(nogil=True, cache=True)
def route_rows(
    ts_event: np.ndarray,
    ts_recv: np.ndarray,
    publisher_id: np.ndarray,
    instrument_id: np.ndarray,
    price: np.ndarray,
    code: np.ndarray,
    dropped: np.ndarray,
    bad: np.ndarray,
    lost_before: np.ndarray,
    lost_code: np.ndarray,
    cursor: np.ndarray,
    keys: np.ndarray,
    table: np.ndarray,
    stats: np.ndarray,
    generation: np.ndarray,
    part: np.ndarray,
    event_row: np.ndarray,
    mark_part: np.ndarray,
    mark_row: np.ndarray,
) -> bool:
    """Number the partition of each row, count it there, and note before which rows of which partition something is missing.

    Columns int64 / uint16 / uint32 [n]; code int32[n] symbol; dropped uint8[n] filter reason and bad uint8[n] check reason, 0 for none, the
    filter counting first; lost_before int64[m] ascending row positions before which an unreadable row stood, lost_code int32[m] its symbol
    or -1; generation int64[1 + symbols]: number of lost rows of any partition, then of each symbol; keys int64[k, 4] (symbol, publisher,
    instrument, day), table int32[2^j] all -1 or a number, stats int64[k, N_STATS]; cursor int64[4].
    Written: part int32[n], -1 for rows that are not kept; event_row int64[n]: its row in the events of its partition, for a bad row the row
    it stood before, -1 when its partition is not known or it is filtered; mark_part, mark_row [<= n].
    A gap is noted at the next kept row of the partition, so rows lost in a row make one mark. Marks that no row follows are left to the
    caller. Returns False when `keys` is full: grow keys, stats and table, and call again. Twin: tests/oracles/naive_filter.py
    """
    n, lost = len(code), cursor[LOST]
    last, day, day_start = np.int64(-1), np.int64(0), np.int64(0)
    for i in range(cursor[ROW], n):
        while lost < len(lost_before) and lost_before[lost] <= i:
            generation[lost_code[lost] + 1] += 1
            lost += 1
        part[i], event_row[i] = -1, -1
        symbol, ts = np.int64(code[i]), ts_recv[i]
        if dropped[i] == BY_SYMBOL:
            continue
        if ts < 0:
            # No day, so no partition: any of its symbol may miss it. Also when its publisher is not wanted: the marks of a partition must not
            # depend on what else is decoded.
            generation[symbol + 1] += 1
            continue
        if dropped[i] == BY_PUBLISHER:
            continue
        if ts < day_start or ts - day_start >= DAY_NS or last < 0:
            day = ts // DAY_NS
            day_start = day * DAY_NS
        publisher, instrument = np.int64(publisher_id[i]), np.int64(instrument_id[i])
        p = last
        if p < 0 or keys[p, 2] != instrument or keys[p, 0] != symbol or keys[p, 3] != day or keys[p, 1] != publisher:
            known = cursor[PARTITIONS]
            p = np.int64(_find(symbol, publisher, instrument, day, keys, table, cursor))
            if p < 0:
                cursor[ROW], cursor[LOST] = i, lost
                return False
            if p == known:
                for k in range(N_STATS):
                    stats[p, k] = 0
                stats[p, MIN_PRICE], stats[p, MAX_PRICE] = UNDEF_PRICE, -UNDEF_PRICE
            last = p
        row = stats[p]
        row[ROWS_IN] += 1
        if dropped[i] == BY_TIME:
            row[FILTERED] += 1
        elif bad[i] != GOOD:
            row[QUARANTINED] += 1
            row[DIRTY] = 1
            event_row[i] = row[ROWS_OUT]
        else:
            at = row[ROWS_OUT]
            if row[DIRTY] != 0 or row[SEEN_ALL] != generation[0] or row[SEEN_SYMBOL] != generation[symbol + 1]:
                row[DIRTY], row[SEEN_ALL], row[SEEN_SYMBOL] = 0, generation[0], generation[symbol + 1]
                row[MARKS] += 1
                if row[MARKS] <= MARK_CAP:
                    mark_part[cursor[MARKED]], mark_row[cursor[MARKED]] = p, at
                    cursor[MARKED] += 1
            if at == 0:
                row[FIRST_RECV], row[FIRST_EVENT] = ts, ts_event[i]
            elif ts < row[LAST_RECV]:
                row[OUT_OF_ORDER] += 1
            row[LAST_RECV], row[LAST_EVENT] = ts, ts_event[i]
            if price[i] != UNDEF_PRICE:
                row[MIN_PRICE], row[MAX_PRICE] = min(row[MIN_PRICE], price[i]), max(row[MAX_PRICE], price[i])
            part[i], event_row[i] = p, at
            row[ROWS_OUT] = at + 1
    while lost < len(lost_before):
        generation[lost_code[lost] + 1] += 1
        lost += 1
    cursor[ROW], cursor[LOST] = n, lost
    return True


@njit(nogil=True, cache=True)
def order_by_partition(part: np.ndarray, n_parts: int, order: np.ndarray) -> np.ndarray:
    """Stable counting sort of kept rows: writes their positions, partition by partition, to int64 `order`; rows with part -1 are left out.

    part int32[n]; returns int64[n_parts + 1] borders of the partitions in `order`.
    """
    borders = np.zeros(n_parts + 1, np.int64)
    for i in range(len(part)):
        if part[i] >= 0:
            borders[part[i] + 1] += 1
    for p in range(n_parts):
        borders[p + 1] += borders[p]
    place = borders[:-1].copy()
    for i in range(len(part)):
        if part[i] >= 0:
            order[place[part[i]]] = i
            place[part[i]] += 1
    return borders
