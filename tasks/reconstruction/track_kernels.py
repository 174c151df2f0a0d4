"""One order followed through the events: its place in the queue of its level after every complete event.

The rules of the book stay in book_kernels.py: a record is applied there, and here it is seen what it did to the order.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.advance_kernels import note_marks, shown_status, step
from tasks.reconstruction.book_kernels import A_ADD, A_CANCEL, A_FILL, A_MODIFY, BID, FREE, USED
from tasks.reconstruction.lifetime_kernels import CANCELLED, CLEARED, FILLED, REPLACED, RESTING, SNAPSHOT, empties, of_one_fill, taken_by_fill
from tasks.reconstruction.order_table_kernels import find, reference_at, shift_of
from tasks.schemas import F_LAST, F_SNAPSHOT, F_TOB

# What a row of the queue tells, the first that applies.
CAUSES = ("end", "add", "fill", "modify", "cancel", "ahead", "behind")
END, ADD, FILL, MODIFY, CANCEL, AHEAD, BEHIND, NO_CAUSE = range(8)

PLACE = np.dtype(
    [
        ("ts_event", "i8"), ("ts_recv", "i8"), ("sequence", "i8"), ("episode", "i8"), ("price", "i8"), ("size", "i8"), ("ahead_size", "i8"),
        ("ahead_orders", "i8"), ("behind_size", "i8"), ("behind_orders", "i8"), ("cause", "i8"), ("end_reason", "i8"), ("status", "i8"),
    ]
)  # fmt: skip

# watch int64[WATCH_SIZE]
W_REFERENCE = 0  # of the order in the pool, -1 when it does not rest
W_EPISODE = 1  # how often it was added
W_PENDING = 2  # size of F records that no C or M has taken yet
W_CAUSE = 3  # first cause of this event, NO_CAUSE when nothing was done to the order
W_CHANGED = 4  # 1 when its level has changed in this event
W_ROWS = 5  # rows written
W_COMPLETE = 6  # rows of complete events
W_LEVEL = 7  # 7..10: size, count, head, tail of its level after the last record
W_LAST = 11  # 11..16: price, size, ahead size and orders, behind size and orders as last written
W_PRICE = 17  # of the order
W_FILL_OPEN = 18  # 1 in the event of those F records
W_FILL_SEQUENCE = 19  # their message
W_FILL_TS = 20  # and its time
WATCH_SIZE = 21

DONE, ROWS_FULL, BOOK_FULL = range(3)


@inner
def _end(rows, watch, reason):
    """Note the end of the order; the row is completed at the end of the event."""
    row = rows[watch[W_ROWS]]
    row["episode"] = watch[W_EPISODE]
    row["price"] = watch[W_PRICE]
    row["size"] = 0
    row["ahead_size"] = 0
    row["ahead_orders"] = 0
    row["behind_size"] = 0
    row["behind_orders"] = 0
    row["cause"] = END
    row["end_reason"] = reason
    watch[W_ROWS] += 1
    watch[W_REFERENCE] = -1
    watch[W_CAUSE] = NO_CAUSE
    watch[W_PENDING] = 0


@inner
def _begin(watch, reference, price):
    watch[W_REFERENCE] = reference
    watch[W_EPISODE] += 1
    watch[W_PRICE] = price
    watch[W_CAUSE] = ADD
    watch[W_CHANGED] = 1
    watch[W_PENDING] = 0
    for k in range(6):
        watch[W_LAST + k] = -1


@inner
def _walk(book, width, rows, watch, reference):
    """Write the place of the order as the next row, when it is not the last one's."""
    order = book.orders[reference]
    other = book.levels[order["side"] * width + order["level"]]["head"]
    row = rows[watch[W_ROWS]]
    size = np.int64(0)
    count = 0
    row["ahead_size"] = 0
    row["ahead_orders"] = 0
    while other >= 0:
        if other == reference:
            row["ahead_size"] = size
            row["ahead_orders"] = count
            size = np.int64(0)
            count = 0
        else:
            size += book.orders[other]["size"]
            count += 1
        other = book.orders[other]["next"]
    row["price"] = watch[W_PRICE]
    row["size"] = order["size"]
    row["behind_size"] = size
    row["behind_orders"] = count
    last = watch[W_LAST : W_LAST + 6]
    ahead = last[2] != row["ahead_size"] or last[3] != row["ahead_orders"]
    if not (ahead or last[0] != row["price"] or last[1] != row["size"] or last[4] != size or last[5] != count):
        return
    row["cause"] = min(watch[W_CAUSE], AHEAD if ahead else BEHIND)
    row["end_reason"] = RESTING
    row["episode"] = watch[W_EPISODE]
    last[0] = row["price"]
    last[1] = row["size"]
    last[2] = row["ahead_size"]
    last[3] = row["ahead_orders"]
    last[4] = size
    last[5] = count
    watch[W_ROWS] += 1


@inner
def _see(book, width, watch):
    """Whether the level of the order has changed since the last record. One record cannot leave all four as they were and change the queue."""
    order = book.orders[watch[W_REFERENCE]]
    level = book.levels[order["side"] * width + order["level"]]
    last = watch[W_LEVEL : W_LEVEL + 4]
    if last[0] != level["size"] or last[1] != level["count"] or last[2] != level["head"] or last[3] != level["tail"]:
        watch[W_CHANGED] = 1
        last[0] = level["size"]
        last[1] = level["count"]
        last[2] = level["head"]
        last[3] = level["tail"]


@inner
def _follow(book, shift, order_id, action, size_before, price, rows, watch):
    """What an applied A, C or M of the order itself has done to it."""
    slot = find(book.table, book.orders, order_id, shift)
    resting = watch[W_REFERENCE] >= 0
    if slot < 0:
        if resting:
            filled = taken_by_fill(action, size_before, 0, watch[W_PENDING])
            _end(rows, watch, REPLACED if action == A_ADD else (FILLED if filled == size_before else CANCELLED))
        return
    reference = reference_at(book.table, slot)
    if not resting or action == A_ADD:
        if resting:
            _end(rows, watch, REPLACED)
        _begin(watch, reference, price)
        return
    size = book.orders[reference]["size"]
    filled = taken_by_fill(action, size_before, size, watch[W_PENDING])
    watch[W_PENDING] -= filled
    if filled > 0:
        watch[W_CAUSE] = min(watch[W_CAUSE], FILL)
    elif action == A_MODIFY or size < size_before:
        watch[W_CAUSE] = min(watch[W_CAUSE], MODIFY if action == A_MODIFY else CANCEL)
    if action == A_MODIFY:
        watch[W_PRICE] = price
        watch[W_CHANGED] = 1


@kernel
def track(batch, price, ts_event, ts_recv, start, n, book, order_id, rows, watch, contiguous, halts):
    """Apply records start..n-1 and write a row at each event end at which the place of `order_id` has changed.

    batch: Batch of replay_kernels.py; price, ts_event, ts_recv int64[n]; rows PLACE[room]; watch int64[WATCH_SIZE]; contiguous, halts: Rules of
    replay_kernels.py. Returns (code, next record): DONE; ROWS_FULL (take the complete rows, or give room, and go on at next); BOOK_FULL (give the
    pool room and go on). Changes book, rows and watch. Twin: tests/oracles/naive_tracking.py
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    mark = 0
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            return BOOK_FULL, i
        # A record can end the order and, when it ends the event, show where the next one of that id stands.
        if watch[W_ROWS] + 2 > rows.shape[0]:
            return ROWS_FULL, i
        action = batch.action[i]
        flags = batch.flags[i]
        mark = note_marks(batch, mark, i, state)
        emptied = empties(state, action, batch.side[i], flags)
        if emptied > 0 and watch[W_REFERENCE] >= 0 and (emptied == 1 or book.orders[watch[W_REFERENCE]]["side"] == emptied - 2):
            _end(rows, watch, REPLACED if emptied > 1 else (SNAPSHOT if flags & F_SNAPSHOT else CLEARED))
        before = book.orders[watch[W_REFERENCE]]["size"] if watch[W_REFERENCE] >= 0 else np.int64(0)
        step(batch, i, book, width, shift, contiguous, halts)
        if batch.order_id[i] == order_id:
            if not of_one_fill(watch[W_FILL_OPEN] == 1, np.int64(batch.sequence[i]), watch[W_FILL_SEQUENCE], ts_event[i], watch[W_FILL_TS]):
                watch[W_PENDING] = 0
            if action == A_FILL:
                watch[W_PENDING] += np.int64(batch.size[i])
                watch[W_FILL_OPEN] = 1
                watch[W_FILL_SEQUENCE] = np.int64(batch.sequence[i])
                watch[W_FILL_TS] = ts_event[i]
            elif action in (A_CANCEL, A_MODIFY) or (action == A_ADD and not flags & F_TOB):
                _follow(book, shift, order_id, action, before, price[i], rows, watch)
        if watch[W_REFERENCE] >= 0:
            _see(book, width, watch)
        if flags & F_LAST:
            if watch[W_REFERENCE] >= 0 and watch[W_CHANGED] == 1:
                _walk(book, width, rows, watch, watch[W_REFERENCE])
            for r in range(watch[W_COMPLETE], watch[W_ROWS]):
                rows[r]["ts_event"] = ts_event[i]
                rows[r]["ts_recv"] = ts_recv[i]
                rows[r]["sequence"] = batch.sequence[i]
                rows[r]["status"] = shown_status(state)
            watch[W_COMPLETE] = watch[W_ROWS]
            watch[W_CAUSE] = NO_CAUSE
            watch[W_CHANGED] = 0
            watch[W_FILL_OPEN] = 0
    return DONE, n


@kernel
def adopt_order(book, width, order_id, watch):
    """Begin to follow an order that rests already, in a book restored from the day before; nothing when it does not rest."""
    slot = find(book.table, book.orders, order_id, shift_of(book.table))
    if slot >= 0:
        reference = reference_at(book.table, slot)
        level = book.orders[reference]["level"]
        _begin(watch, reference, book.prices[level if book.orders[reference]["side"] == BID else width - 1 - level])
