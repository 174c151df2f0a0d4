"""The lives of all orders: what each record did to its order, beside the book, in an array as long as the order pool.

The rules of the book stay in book_kernels.py: a record is applied there, and here it is seen what it did to its order.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.book_kernels import (
    A_ADD,
    A_CANCEL,
    A_CLEAR,
    A_FILL,
    A_MODIFY,
    BEST,
    BID,
    FREE,
    IN_SNAPSHOT,
    LIVE,
    S_ASK,
    S_BID,
    USED,
    apply_record,
)
from tasks.reconstruction.order_table_kernels import find, reference_at, shift_of
from tasks.schemas import F_LAST, F_SNAPSHOT, F_TOB

# Why an order has left the book; the order is the code.
END_REASONS = (
    "resting",  # it has not
    "filled",
    "cancelled",
    "cleared",  # the book was cleared
    "snapshot",  # a snapshot began, which tells all orders anew
    "replaced",  # its id was added again, or a top-of-book record replaced its side
)
RESTING, FILLED, CANCELLED, CLEARED, SNAPSHOT, REPLACED = range(6)

# Place r of a LIFE array is the life of the order at place r of the pool. side: ASCII at entry; from_snapshot: OF_SNAPSHOT, CARRIED
# (in the closing book of the day before; its times are not known), else 0; entry: running number; pending: size of F records of event `event`,
# message `sequence` and time `fill_ts` that no C or M has taken yet; the last five are set when it ends.
LIFE = np.dtype(
    [
        ("order_id", "u8"), ("entry", "i8"), ("ts_event", "i8"), ("ts_recv", "i8"), ("side", "u1"), ("from_snapshot", "u1"), ("price", "i8"),
        ("size", "i8"), ("last_price", "i8"), ("ahead_size", "i8"), ("filled", "i8"), ("cancelled", "i8"), ("grown", "i8"), ("modified", "i8"),
        ("pending", "i8"), ("event", "i8"), ("sequence", "i8"), ("fill_ts", "i8"),
        ("left", "i8"), ("end_ts_event", "i8"), ("end_ts_recv", "i8"), ("end_reason", "i8"),
    ]
)  # fmt: skip

OF_SNAPSHOT, CARRIED = 1, 2

# tally int64[TALLY_SIZE]
N_ENTRIES = 0  # orders that have entered
N_EVENTS = 1  # complete events
N_ENDED = 2  # lives in `ended`
TALLY_SIZE = 3

# EMPTYING + 0 the whole book, + 1 the bids, + 2 the asks.
DONE, ENDED_FULL, BOOK_FULL, EMPTYING = range(4)


@inner
def empties(state, action, side_code, flags):
    """What a record empties before it is applied: 0 nothing, 1 the whole book, 2 the bids, 3 the asks."""
    if action == A_CLEAR or (flags & F_SNAPSHOT and state[IN_SNAPSHOT] != 1):
        return 1
    if action == A_ADD and flags & F_TOB and side_code in (S_BID, S_ASK):
        return 2 if side_code == S_BID else 3
    return 0


@inner
def of_one_fill(same_event, sequence, other, ts_event, other_ts):
    """Whether a C or M follows from an F record: in the same event, or as the same message of the venue where each record ends an event.

    Databento writes an execution of Nasdaq as T, F and C of one sequence number and time, each with LAST.
    """
    return same_event or (sequence != 0 and sequence == other and ts_event == other_ts)


@inner
def taken_by_fill(action, old, new, pending):
    """How much of an order went to fills when a C or M left `new` of `old`, after F records of `pending` (see of_one_fill).

    An M that does not lower the size of a filled order refreshes it (an iceberg shows its next part): the fill took its part before.
    """
    return min(pending, old if action == A_MODIFY and new >= old else old - new)


@inner
def _enter(book, width, life, tally, reference, order_id, side_code, price, ts_event, ts_recv, origin):
    """An order has come to the tail of its level."""
    order = book.orders[reference]
    row = life[reference]
    row["order_id"] = order_id
    row["entry"] = tally[N_ENTRIES]
    row["ts_event"] = ts_event
    row["ts_recv"] = ts_recv
    row["side"] = side_code
    row["from_snapshot"] = origin
    row["price"] = price
    row["size"] = order["size"]
    row["last_price"] = price
    row["ahead_size"] = book.levels[order["side"] * width + order["level"]]["size"] - order["size"]
    row["filled"] = 0
    row["cancelled"] = 0
    row["grown"] = 0
    row["modified"] = 0
    row["pending"] = 0
    row["event"] = -1
    row["sequence"] = 0
    tally[N_ENTRIES] += 1


@inner
def _leave(life, ended, tally, reference, left, ts_event, ts_recv, reason):
    """An order has left the book; its life is handed out."""
    row = life[reference]
    row["left"] = left
    row["end_ts_event"] = ts_event
    row["end_ts_recv"] = ts_recv
    row["end_reason"] = reason
    ended[tally[N_ENDED]] = row
    tally[N_ENDED] += 1


@inner
def _pending(row, tally, sequence, ts_event):
    """What F records have left for a C or M of that message."""
    return row["pending"] if of_one_fill(row["event"] == tally[N_EVENTS], sequence, row["sequence"], ts_event, row["fill_ts"]) else 0


@inner
def _change(row, tally, action, old, new, sequence, ts_event):
    """Book what a C or M did to the size of an order: to fills first, the rest to cancels or growth. Returns the part cancelled."""
    pending = _pending(row, tally, sequence, ts_event)
    filled = taken_by_fill(action, old, new, pending)
    row["pending"] = pending - filled
    row["filled"] += filled
    cancelled = max(old - filled - new, 0)
    row["cancelled"] += cancelled
    row["grown"] += max(new - (old - filled), 0)
    if action == A_MODIFY and filled == 0:
        row["modified"] += 1
    return cancelled


@kernel
def live_through(batch, price, ts_event, ts_recv, start, n, book, life, ended, tally, settled):
    """Apply records start..n-1 and keep account of every order.

    batch: Batch of replay_kernels.py; price, ts_event, ts_recv int64[n]; life LIFE[pool]; ended LIFE[room]; tally int64[TALLY_SIZE]. Returns
    (code, next record): DONE; ENDED_FULL (take the ended and go on at next); BOOK_FULL (give pool and life room and go on); EMPTYING or above
    (record `next` is about to empty the book or a side: take the ended, then the lives of the orders there, and go on with settled = next).
    Changes book, life, ended and tally. Twin: tests/oracles/naive_tracking.py
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            return BOOK_FULL, i
        if tally[N_ENDED] >= ended.shape[0]:
            return ENDED_FULL, i
        action = batch.action[i]
        flags = batch.flags[i]
        order_id = batch.order_id[i]
        size = np.int64(batch.size[i])
        sequence = np.int64(batch.sequence[i])
        emptied = empties(state, action, batch.side[i], flags)
        if emptied > 0 and i != settled and state[LIVE] > 0:
            return EMPTYING + emptied - 1, i
        own = action in (A_CANCEL, A_MODIFY) or (action == A_ADD and not flags & F_TOB)
        reference = np.int64(-1)
        old = np.int64(0)
        if own or action == A_FILL:
            slot = find(book.table, book.orders, order_id, shift)
            if slot >= 0 and emptied == 0:
                reference = reference_at(book.table, slot)
                old = book.orders[reference]["size"]
        apply_record(book, width, shift, action, batch.side[i], batch.rank[i], size, order_id, flags)
        if action == A_FILL and reference >= 0:
            row = life[reference]
            row["pending"] = size + _pending(row, tally, sequence, ts_event[i])
            row["event"] = tally[N_EVENTS]
            row["sequence"] = sequence
            row["fill_ts"] = ts_event[i]
        elif own:
            slot = find(book.table, book.orders, order_id, shift)
            if reference >= 0 and action == A_ADD:
                _leave(life, ended, tally, reference, old, ts_event[i], ts_recv[i], REPLACED)
                reference = np.int64(-1)
            if slot >= 0 and reference < 0:
                reference = reference_at(book.table, slot)
                origin = OF_SNAPSHOT if flags & F_SNAPSHOT else 0
                _enter(book, width, life, tally, reference, order_id, batch.side[i], price[i], ts_event[i], ts_recv[i], origin)
            elif slot >= 0:
                _change(life[reference], tally, action, old, book.orders[reference]["size"], sequence, ts_event[i])
                if action == A_MODIFY:
                    life[reference]["last_price"] = price[i]
            elif reference >= 0:
                cancelled = _change(life[reference], tally, action, old, np.int64(0), sequence, ts_event[i])
                _leave(life, ended, tally, reference, 0, ts_event[i], ts_recv[i], CANCELLED if cancelled > 0 else FILLED)
        if flags & F_LAST:
            tally[N_EVENTS] += 1
    return DONE, n


@kernel
def adopt(book, width, life, tally):
    """Give every order of a restored book a life, in the order of resting_orders; how each came to its level before is not known."""
    for side in range(2):
        index = book.state[BEST + side]
        while index >= 0:
            ahead = np.int64(0)
            reference = book.levels[side * width + index]["head"] if book.levels[side * width + index]["count"] > 0 else -1
            while reference >= 0:
                price = book.prices[index] if side == BID else book.prices[width - 1 - index]
                code = S_BID if side == BID else S_ASK
                _enter(book, width, life, tally, reference, book.orders[reference]["id"], code, price, np.int64(-1), np.int64(-1), CARRIED)
                life[reference]["ahead_size"] = ahead
                ahead += book.orders[reference]["size"]
                reference = book.orders[reference]["next"]
            index -= 1


@kernel
def living(book, width, side, out):
    """Places in the pool of all orders of a side (-1: of both) to out int64[room]; returns how many. room: state[LIVE] at most."""
    n = 0
    for which in range(2):
        if side >= 0 and which != side:
            continue
        for index in range(width):
            level = book.levels[which * width + index]
            reference = level["head"] if level["count"] > 0 else -1
            while reference >= 0:
                out[n] = reference
                n += 1
                reference = book.orders[reference]["next"]
    return n
