"""One order-by-order book: arrays in, arrays changed in place. The rules: README, "Rules of the book".

Layout. Prices are ranks: position of the price among the distinct prices met so far (`book.py` keeps the ladder). The ask side is mirrored
(index = width - 1 - rank), so that on both sides the best level is the one with the largest index and one code serves both. Orders are found by
their id in the table of order_table_kernels.py; those of a level form a doubly linked list in priority order.
Twin: tests/oracles/naive_book.py
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.order_table_kernels import erase, find, insert, reference_at, shift_of
from tasks.reconstruction.sample_kernels import put_level
from tasks.schemas import F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, F_TOB, NO_BOOK, SUSPECT, UNDEF_PRICE, VALID

ORDER = np.dtype([("id", "u8"), ("size", "i8"), ("level", "i4"), ("side", "i4"), ("prev", "i4"), ("next", "i4")])
LEVEL = np.dtype([("size", "i8"), ("count", "i4"), ("head", "i4"), ("tail", "i4"), ("noted", "i4")])

BID, ASK = 0, 1

# state int64[STATE_SIZE]
BEST = 0  # 0, 1: index of the best level of each side, -1 when empty
FREE = 2  # head of the list of unused orders, -1 none
USED = 3  # orders ever taken from the pool
LIVE = 4  # resting orders
STATUS = 5
REASON = 6
IN_SNAPSHOT = 7  # 1 while the previous record carried F_SNAPSHOT; AFTER_HOLE where it did not, and a row was quarantined after it
HIGH = 8  # 8, 9: highest level changed since the cached top was read, of those that reach into it; -1 none, ALL all of them
FLOOR = 10  # 10, 11: lowest index among the cached top levels, -1 when there are fewer than depth
LEVELS = 12  # 12, 13: levels of each side
INCOMPLETE = 15  # 1 while a snapshot has started and no LAST was seen since, HOLED when a row of it was quarantined
ANOMALY = 14  # last anomaly (a counter index) for the error of on_book_error="fail", -1 none
HALTED_STATE = 16  # 0 trading, 1 halted, 2 quoting only
TOUCHED = 17  # levels noted in `touched` since the last audit (LEVEL noted is 1); more than there is room for mean all of them
LAST_SEQUENCE = 18  # of the last record that is no snapshot's, -1 before the first
TOP_LEVEL = 19  # 19, 20: index of the level that a top-of-book record made, -1 none
TOP_SIZE = 21  # 21, 22: its size
BROKEN = 23  # 1 when a level was seen negative, or with a size but no order
UNAUDITED = 24  # event ends since the last audit
LOW = 25  # 25, 26: the lowest of them
RESHAPED = 27  # 27, 28: 1 when a level came or went among them
STATE_SIZE = 29
ALL = 1 << 40
TOUCHED_ROOM = 1_024
AFTER_HOLE = -1
HOLED = 2

# counters int64[len(COUNTERS)]
COUNTERS = (
    "add", "cancel", "fill", "modify", "none", "clear", "trade",
    "event_ends", "crossed", "locked",
    "unknown_cancel", "unknown_modify", "over_cancel", "duplicate_add", "side_change",
    "snapshots", "implicit_clears", "top_of_book", "maybe_bad_book", "quarantined_before", "gap", "halts", "crossed_halted",
    "fills_elsewhere", "fills_beyond", "fills_unresting",
)  # fmt: skip
C_ADD, C_CANCEL, C_FILL, C_MODIFY, C_NONE, C_CLEAR, C_TRADE = range(7)
C_EVENT_ENDS, C_CROSSED, C_LOCKED = 7, 8, 9
C_UNKNOWN_CANCEL, C_UNKNOWN_MODIFY, C_OVER_CANCEL, C_DUPLICATE_ADD, C_SIDE_CHANGE = 10, 11, 12, 13, 14
C_SNAPSHOTS, C_IMPLICIT_CLEARS, C_TOP_OF_BOOK, C_MAYBE_BAD, C_QUARANTINED = 15, 16, 17, 18, 19
C_GAP, C_HALTS, C_CROSSED_HALTED = 20, 21, 22
C_FILLS_ELSEWHERE, C_FILLS_BEYOND, C_FILLS_UNRESTING = 23, 24, 25

# reasons, positions in tasks.schemas.REASONS
R_NO_SNAPSHOT, R_UNKNOWN_ID, R_OVER_CANCEL, R_DUPLICATE_ID, R_SIDE_CHANGE, R_MAYBE_BAD, R_QUARANTINED = 1, 2, 3, 4, 5, 6, 7
R_HALT, R_GAP = 8, 10

A_ADD, A_CANCEL, A_FILL, A_MODIFY, A_NONE, A_CLEAR, A_TRADE = (ord(c) for c in "ACFMNRT")
S_ASK, S_BID = ord("A"), ord("B")

# table uint64[slots]; orders ORDER[pool]; levels LEVEL[2 * width]; prices int64[width] ascending; state, counters int64;
# touched int32[TOUCHED_ROOM] places in `levels` changed since the last audit
Book = namedtuple("Book", "table orders levels prices state counters touched")


@inner
def _touched(book, width, side, level, reshaped):
    """Note a change at `level` for the audit, and for the cached top levels when it reaches into them; reshaped: a level came or went."""
    state = book.state
    if level >= state[FLOOR + side]:
        state[HIGH + side] = max(state[HIGH + side], level)
        state[LOW + side] = min(state[LOW + side], level)
        state[RESHAPED + side] |= reshaped
    place = side * width + level
    row = book.levels[place]
    if row["size"] < row["count"] or (row["count"] == 0 and row["size"] != 0):
        state[BROKEN] = 1
    if row["noted"] == 0:
        row["noted"] = 1
        n = state[TOUCHED]
        if n < TOUCHED_ROOM:
            book.touched[n] = np.int32(place)
        state[TOUCHED] = n + 1


@inner
def _lower_best(levels, width, state, side):
    """Move the best index down to the next level that is not empty."""
    best = state[BEST + side]
    base = side * width
    while best >= 0 and levels[base + best]["count"] == 0:
        best -= 1
    state[BEST + side] = best


@inner
def link(book, width, reference):
    """Append an order (its level, side and size are set) to the tail of its level."""
    order = book.orders[reference]
    side = order["side"]
    index = order["level"]
    level = book.levels[side * width + index]
    tail = level["tail"] if level["count"] > 0 else -1
    order["prev"] = tail
    order["next"] = -1
    if tail >= 0:
        book.orders[tail]["next"] = reference
    else:
        level["head"] = reference
    level["tail"] = reference
    fresh = level["count"] == 0
    if fresh:
        level["size"] = 0
        book.state[LEVELS + side] += 1
    level["count"] += 1
    level["size"] += order["size"]
    if index > book.state[BEST + side]:
        book.state[BEST + side] = index
    _touched(book, width, side, index, np.int64(fresh))


@inner
def unlink(book, width, reference):
    """Take an order out of its level."""
    order = book.orders[reference]
    side = order["side"]
    index = order["level"]
    level = book.levels[side * width + index]
    before = order["prev"]
    after = order["next"]
    if before >= 0:
        book.orders[before]["next"] = after
    else:
        level["head"] = after
    if after >= 0:
        book.orders[after]["prev"] = before
    else:
        level["tail"] = before
    level["count"] -= 1
    level["size"] -= order["size"]
    _touched(book, width, side, index, np.int64(level["count"] == 0))
    if level["count"] == 0:
        level["size"] = 0
        book.state[LEVELS + side] -= 1
        if index == book.state[BEST + side]:
            _lower_best(book.levels, width, book.state, side)


@inner
def add(book, width, shift, order_id, side, level, size):
    """A new order at the tail of its level. The caller made sure that the pool has room and the id is not there."""
    state = book.state
    reference = state[FREE]
    if reference >= 0:
        state[FREE] = book.orders[reference]["next"]
    else:
        reference = state[USED]
        state[USED] += 1
    order = book.orders[reference]
    order["id"] = order_id
    order["size"] = size
    order["level"] = level
    order["side"] = side
    link(book, width, reference)
    insert(book.table, order_id, reference, shift)
    state[LIVE] += 1


@inner
def remove(book, width, shift, slot, reference):
    """Take an order out of the book and give its place back."""
    unlink(book, width, reference)
    erase(book.table, slot, shift)
    book.orders[reference]["next"] = book.state[FREE]
    book.state[FREE] = reference
    book.state[LIVE] -= 1


@inner
def forget_top(state, side):
    """Nothing of the cached top levels of a side holds any more."""
    state[FLOOR + side] = -1
    state[HIGH + side] = ALL
    state[RESHAPED + side] = 1


@kernel
def clear(book):
    """Empty the book; status and counters stay."""
    book.table[:] = 0
    for i in range(book.levels.shape[0]):
        book.levels[i]["count"] = 0
        book.levels[i]["size"] = 0
        book.levels[i]["noted"] = 0
    state = book.state
    state[BEST] = -1
    state[BEST + 1] = -1
    state[FREE] = -1
    state[USED] = 0
    state[LIVE] = 0
    state[LEVELS] = 0
    state[LEVELS + 1] = 0
    state[TOUCHED] = 0
    state[TOP_LEVEL] = -1
    state[TOP_LEVEL + 1] = -1
    forget_top(state, 0)
    forget_top(state, 1)


@kernel
def replace_side(book, width, shift, side, level, size):
    """A top-of-book record: the side becomes this one level (level -1: empty). It is no order; its count is 1."""
    state = book.state
    base = side * width
    for index in range(width):
        row = book.levels[base + index]
        if row["count"] == 0:
            continue
        reference = row["head"]
        while reference >= 0:
            after = book.orders[reference]["next"]
            erase(book.table, find(book.table, book.orders, book.orders[reference]["id"], shift), shift)
            book.orders[reference]["next"] = state[FREE]
            state[FREE] = reference
            state[LIVE] -= 1
            reference = after
        row["count"] = 0
        row["size"] = 0
    state[LEVELS + side] = 0
    state[BEST + side] = level
    forget_top(state, side)
    state[TOUCHED] = TOUCHED_ROOM + 1
    state[TOP_LEVEL + side] = level
    state[TOP_SIZE + side] = size
    if level >= 0:
        row = book.levels[base + level]
        row["count"] = 1
        row["size"] = size
        row["head"] = -1
        row["tail"] = -1
        state[LEVELS + side] = 1


@inner
def doubt(book, counter, reason):
    """Count an anomaly; a valid book becomes suspect for the first reason and stays so until a clear or a whole snapshot."""
    book.counters[counter] += 1
    if book.state[STATUS] == VALID:
        book.state[STATUS] = SUSPECT
        book.state[REASON] = reason
        book.state[ANOMALY] = counter


@inner
def set_aside(state):
    """A row was quarantined before the next record: a valid book is suspect from here on, and so is one whose snapshot it may have been of."""
    if state[STATUS] == VALID:
        state[STATUS] = SUSPECT
        state[REASON] = R_QUARANTINED
    if state[INCOMPLETE] != 0:
        state[INCOMPLETE] = HOLED
    if state[IN_SNAPSHOT] == 0:
        state[IN_SNAPSHOT] = AFTER_HOLE


@inner
def _reset(book, incomplete):
    """Empty the book: at once valid after a plain clear, without a book until a snapshot that starts here is complete; incomplete as in state."""
    clear(book)
    book.state[STATUS] = NO_BOOK if incomplete else VALID
    book.state[REASON] = R_NO_SNAPSHOT if incomplete else 0
    book.state[INCOMPLETE] = incomplete


@inner
def apply_record(book, width, shift, action, side_code, rank, size, order_id, flags):
    """Apply one record by the rules of the book; counts it under its action and under any anomaly.

    rank: of the price, -1 when undefined; size int64. The pool must have one free order. Returns nothing; status and reason are in state.
    """
    state = book.state
    counters = book.counters
    if flags & F_SNAPSHOT:
        if state[IN_SNAPSHOT] != 1:
            counters[C_SNAPSHOTS] += 1
            if action != A_CLEAR:
                counters[C_IMPLICIT_CLEARS] += 1
                _reset(book, HOLED if state[IN_SNAPSHOT] == AFTER_HOLE else 1)  # the row may have been its first
        state[IN_SNAPSHOT] = 1
    else:
        state[IN_SNAPSHOT] = 0
    side = BID if side_code == S_BID else ASK
    level = rank if side == BID else width - 1 - rank
    rests = size > 0 and rank >= 0 and (side_code in (S_BID, S_ASK))
    if action == A_ADD:
        counters[C_ADD] += 1
        if flags & F_TOB:
            counters[C_TOP_OF_BOOK] += 1
            if side_code in (S_BID, S_ASK):
                replace_side(book, width, shift, side, level if rests else -1, size)
        else:
            slot = find(book.table, book.orders, order_id, shift)
            if slot >= 0:
                doubt(book, C_DUPLICATE_ADD, R_DUPLICATE_ID)
                remove(book, width, shift, slot, reference_at(book.table, slot))
            if rests:
                add(book, width, shift, order_id, side, level, size)
    elif action == A_CANCEL:
        counters[C_CANCEL] += 1
        slot = find(book.table, book.orders, order_id, shift)
        if slot < 0:
            doubt(book, C_UNKNOWN_CANCEL, R_UNKNOWN_ID)
        else:
            reference = reference_at(book.table, slot)
            order = book.orders[reference]
            if size < order["size"]:
                order["size"] -= size
                book.levels[order["side"] * width + order["level"]]["size"] -= size
                _touched(book, width, order["side"], order["level"], 0)
            else:
                if size > order["size"]:
                    doubt(book, C_OVER_CANCEL, R_OVER_CANCEL)
                remove(book, width, shift, slot, reference)
    elif action == A_MODIFY:
        counters[C_MODIFY] += 1
        _modify(book, width, shift, side, level, size, order_id, side_code, rests)
    elif action == A_TRADE:
        counters[C_TRADE] += 1
    elif action == A_FILL:
        counters[C_FILL] += 1
    elif action == A_CLEAR:
        counters[C_CLEAR] += 1
        _reset(book, 1 if flags & F_SNAPSHOT else 0)
    else:
        counters[C_NONE] += 1
    if (flags & F_LAST) and state[INCOMPLETE] != 0:
        # Real files (GLBX, 2023) leave LAST off the final record of a snapshot: the first LAST after it ends it as well.
        holed = state[INCOMPLETE] == HOLED
        state[STATUS] = SUSPECT if holed else VALID
        state[REASON] = R_QUARANTINED if holed else 0
        state[INCOMPLETE] = 0
    if flags & F_MAYBE_BAD_BOOK:
        doubt(book, C_MAYBE_BAD, R_MAYBE_BAD)


@inner
def _modify(book, width, shift, side, level, size, order_id, side_code, rests):
    """New total size; the queue place is kept only at the same price with a size not larger. What cannot rest is only removed."""
    slot = find(book.table, book.orders, order_id, shift)
    if slot < 0:
        doubt(book, C_UNKNOWN_MODIFY, R_UNKNOWN_ID)
        if rests:
            add(book, width, shift, order_id, side, level, size)
        return
    reference = reference_at(book.table, slot)
    order = book.orders[reference]
    if side_code != (S_BID if order["side"] == BID else S_ASK):
        doubt(book, C_SIDE_CHANGE, R_SIDE_CHANGE)
    if not rests:
        remove(book, width, shift, slot, reference)
    elif order["side"] == side and order["level"] == level and size <= order["size"]:
        book.levels[side * width + level]["size"] -= order["size"] - size
        order["size"] = size
        _touched(book, width, side, level, 0)
    else:
        unlink(book, width, reference)
        order["side"] = side
        order["level"] = level
        order["size"] = size
        link(book, width, reference)


@inner
def refresh_top(book, width, side, depth, top):
    """Bring the cached best `depth` levels of a side (Top of sample_kernels.py) up to date: those that changed, or all from the first that did.

    Most events change the size of one level only; reading ten levels anew after each of them cost as much as applying it.
    """
    state = book.state
    base = side * width
    high = state[HIGH + side]
    rank = top.rank[side]
    k = 0
    while k < depth and rank[k] > high:
        k += 1
    if state[RESHAPED + side] == 0:
        while k < depth and rank[k] >= state[LOW + side]:
            level = book.levels[base + rank[k]]
            put_level(top, side, k, depth, top.px[side, k], level["size"], np.int64(level["count"]))
            k += 1
    else:
        index = min(high, state[BEST + side])
        while index >= 0 and k < depth:
            level = book.levels[base + index]
            if level["count"] > 0:
                price = book.prices[index] if side == BID else book.prices[width - 1 - index]
                put_level(top, side, k, depth, price, level["size"], np.int64(level["count"]))
                rank[k] = index
                k += 1
            index -= 1
        state[FLOOR + side] = rank[depth - 1] if k == depth else -1
        while k < depth:
            put_level(top, side, k, depth, UNDEF_PRICE, 0, 0)
            rank[k] = -1
            k += 1
        state[RESHAPED + side] = 0
    state[HIGH + side] = -1
    state[LOW + side] = ALL


@kernel
def dump_orders(book, width, side_out, price, order_id, size):
    """All resting orders, best level first, in priority order within a level. Arrays of length state[LIVE]; returns how many were written.

    side_out uint8 ASCII, price int64 1e-9, order_id uint64, size int64.
    """
    n = 0
    for side in range(2):
        index = book.state[BEST + side]
        while index >= 0:
            level = book.levels[side * width + index]
            if level["count"] > 0:
                reference = level["head"]
                while reference >= 0:
                    side_out[n] = S_BID if side == BID else S_ASK
                    price[n] = book.prices[index] if side == BID else book.prices[width - 1 - index]
                    order_id[n] = book.orders[reference]["id"]
                    size[n] = book.orders[reference]["size"]
                    n += 1
                    reference = book.orders[reference]["next"]
            index -= 1
    return n


@kernel
def add_orders(book, width, side, rank, order_id, size):
    """Add resting orders in the given order: side uint8 ASCII, rank int32, order_id uint64, size int64, all of length n. The pool has room."""
    shift = shift_of(book.table)
    for i in range(rank.shape[0]):
        which = BID if side[i] == S_BID else ASK
        add(book, width, shift, order_id[i], which, rank[i] if which == BID else width - 1 - rank[i], size[i])
