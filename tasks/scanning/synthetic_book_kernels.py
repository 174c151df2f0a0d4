"""The books behind a generated session: orders in FIFO queues on a price ladder, and the records that tell of each change.

What an order does next is chosen in synthetic_kernels.py. Each function that changes a book also writes the record of it, so that stream and
book cannot disagree. Oracle: tests/oracles/naive_book.py, which replays the records and must end with the same book.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tasks.kernels import njit
from tasks.schemas import F_LAST, UNDEF_PRICE

# Without reference counts: these kernels allocate nothing, and counting the arrays in every call took 60% of the time (520 -> 310 ns a record).
kernel = njit(nogil=True, cache=True, _nrt=False, error_model="numpy")  # type: ignore[call-overload]

ORDER = np.dtype([("id", "u8"), ("size", "i4"), ("level", "i4"), ("next", "i4"), ("previous", "i4"), ("side", "i4"), ("unused", "i4")])
LEVEL = np.dtype([("head", "i4"), ("tail", "i4"), ("count", "i4")])
BOOK = np.dtype(
    [
        ("first_order", "i8"), ("capacity", "i8"), ("live", "i8"), ("first_level", "i8"), ("width", "i8"), ("bottom", "i8"), ("tick", "i8"),
        ("best_bid", "i8"), ("best_ask", "i8"), ("bid_orders", "i8"), ("ask_orders", "i8"), ("target", "i8"), ("instrument", "i8"),
        ("publisher", "i8"), ("fair", "i8"), ("doubt", "i8"),
    ]
)  # fmt: skip

BID, ASK = 0, 1
BUILD, TRADING, DUMP = 0, 1, 2  # state["phase"]
A_ADD, A_CANCEL, A_FILL, A_MODIFY, A_NONE, A_CLEAR, A_TRADE = 65, 67, 70, 77, 78, 82, 84
LETTERS = np.array([66, 65, 78], np.uint8)  # of BID, ASK and neither
NO_SIDE = 2

STATE = np.dtype(
    [
        ("now", "i8"), ("start", "i8"), ("end", "i8"),  # ns UTC
        ("ts_event", "i8"), ("ts_recv", "i8"), ("ts_in_delta", "i8"), ("sequence", "i8"), ("order_id", "i8"),  # of the event at hand; last id given
        ("row", "i8"), ("emitted", "i8"), ("total", "i8"),  # next row of the buffer; records so far and in all
        ("phase", "i8"), ("cursor", "i8"), ("left", "i8"), ("level", "i8"), ("order", "i8"), ("opened", "i8"),  # where an opening or snapshot stands
        ("snapshot_start", "i8"), ("clear_at", "i8"), ("gap_at", "i8"), ("recover_at", "i8"), ("lost", "i8"),  # records, -1 never; events yet to lose
        ("hot", "i8"), ("next_spell", "i8"),  # book of the last event; ns
        ("excite", "f8"), ("decay", "f8"), ("activity", "f8"),  # intensity that past events leave (1/s), its decay (1/s), factor of the spell
        ("random", "u8"),
    ]
)  # fmt: skip


class Pool(NamedTuple):
    """Orders and levels of all books. References to orders and levels are counted within a book, levels from the bottom of its ladder.

    orders ORDER[sum of capacities], dense per book; levels LEVEL[sum of widths], head and tail -1 when empty;
    fills int64[MAX_FILLS]: sizes taken by the event at hand.
    """

    orders: np.ndarray
    levels: np.ndarray
    fills: np.ndarray


class Market(NamedTuple):
    """All state of a session: state STATE[1], pool, books BOOK[b], fairs FAIR[symbols], and Walker's table of the books' activity,
    chance float64[b] and alias int64[b].
    """

    state: np.ndarray
    pool: Pool
    books: np.ndarray
    fairs: np.ndarray
    chance: np.ndarray
    alias: np.ndarray


@kernel
def put(state, book, out, action, side, price, size, order_id, flags):
    """Write one record of the event at hand to out[ROW]; the very last record of the session ends its event."""
    row = out[state["row"]]
    state["row"] += 1
    state["emitted"] += 1
    if state["emitted"] == state["total"]:
        flags |= F_LAST
    row["length"] = 14  # in words of four bytes
    row["rtype"] = 160
    row["publisher_id"] = book["publisher"]
    row["instrument_id"] = book["instrument"]
    row["ts_event"] = state["ts_event"]
    row["order_id"] = order_id
    row["price"] = price
    row["size"] = size
    row["flags"] = flags | book["doubt"]
    row["channel_id"] = 0
    row["action"] = action
    row["side"] = LETTERS[side]
    row["ts_recv"] = state["ts_recv"]
    row["ts_in_delta"] = state["ts_in_delta"]
    row["sequence"] = state["sequence"]
    if flags & F_LAST:
        book["doubt"] = 0


@kernel
def price_of(book, level):
    """Price (1e-9) of a level."""
    return book["bottom"] + level * book["tick"]


@kernel
def push(pool, book, reference, side, level):
    """Append an order, which stands in no queue, to the tail of its level."""
    first = book["first_order"]
    order = pool.orders[first + reference]
    row = pool.levels[book["first_level"] + level]
    order["level"] = level
    order["side"] = side
    order["next"] = -1
    order["previous"] = row["tail"]
    if row["tail"] < 0:
        row["head"] = reference
    else:
        pool.orders[first + row["tail"]]["next"] = reference
    row["tail"] = reference
    row["count"] += 1
    if side == BID:
        book["bid_orders"] += 1
        book["best_bid"] = max(book["best_bid"], level)
    else:
        book["ask_orders"] += 1
        book["best_ask"] = min(book["best_ask"], level)


@kernel
def pull(pool, book, reference):
    """Take an order out of its queue; the touch moves away when its level was the last orders' there."""
    first, base = book["first_order"], book["first_level"]
    order = pool.orders[first + reference]
    level = np.int64(order["level"])
    row = pool.levels[base + level]
    if order["previous"] < 0:
        row["head"] = order["next"]
    else:
        pool.orders[first + order["previous"]]["next"] = order["next"]
    if order["next"] < 0:
        row["tail"] = order["previous"]
    else:
        pool.orders[first + order["next"]]["previous"] = order["previous"]
    row["count"] -= 1
    if order["side"] == BID:
        book["bid_orders"] -= 1
        if row["count"] == 0 and level == book["best_bid"]:
            while level >= 0 and pool.levels[base + level]["count"] == 0:
                level -= 1
            book["best_bid"] = level
    else:
        book["ask_orders"] -= 1
        if row["count"] == 0 and level == book["best_ask"]:
            while level < book["width"] and pool.levels[base + level]["count"] == 0:
                level += 1
            book["best_ask"] = level


@kernel
def forget(pool, book, reference):
    """Remove an order; the book's last order moves into its place, so that orders stay dense and can be drawn evenly."""
    pull(pool, book, reference)
    first, last = book["first_order"], book["live"] - 1
    book["live"] = last
    if reference == last:
        return
    moved = pool.orders[first + last]
    hole = pool.orders[first + reference]
    hole["id"] = moved["id"]
    hole["size"] = moved["size"]
    hole["level"] = moved["level"]
    hole["side"] = moved["side"]
    hole["next"] = moved["next"]
    hole["previous"] = moved["previous"]
    row = pool.levels[book["first_level"] + hole["level"]]
    if hole["previous"] < 0:
        row["head"] = reference
    else:
        pool.orders[first + hole["previous"]]["next"] = reference
    if hole["next"] < 0:
        row["tail"] = reference
    else:
        pool.orders[first + hole["next"]]["previous"] = reference


@kernel
def enter(state, pool, book, out, side, level, size, order_id, flags):
    """A new order at the tail of a level, and its A record. The book must have room for it."""
    reference = book["live"]
    book["live"] = reference + 1
    order = pool.orders[book["first_order"] + reference]
    order["id"] = order_id
    order["size"] = size
    push(pool, book, reference, side, level)
    put(state, book, out, A_ADD, side, price_of(book, level), size, order_id, flags)


@kernel
def reduce_order(state, pool, book, out, reference, size, flags):
    """Take `size` (1..the order's) from an order, and its C record."""
    order = pool.orders[book["first_order"] + reference]
    put(state, book, out, A_CANCEL, np.int64(order["side"]), price_of(book, np.int64(order["level"])), size, np.int64(order["id"]), flags)
    if size == order["size"]:
        forget(pool, book, reference)
    else:
        order["size"] -= size


@kernel
def change(state, pool, book, out, reference, level, size, flags):
    """New level and total size of an order, and its M record; the place is kept only at the same level with a size not larger."""
    order = pool.orders[book["first_order"] + reference]
    side = np.int64(order["side"])
    put(state, book, out, A_MODIFY, side, price_of(book, level), size, np.int64(order["id"]), flags)
    if level != order["level"] or size > order["size"]:
        pull(pool, book, reference)
        push(pool, book, reference, side, level)
    order["size"] = size


@kernel
def empty(state, pool, book, out, flags):
    """Clear a book, and its R record."""
    base = book["first_level"]
    for level in range(base, base + book["width"]):
        pool.levels[level]["head"] = -1
        pool.levels[level]["tail"] = -1
        pool.levels[level]["count"] = 0
    book["live"] = 0
    book["bid_orders"] = 0
    book["ask_orders"] = 0
    book["best_bid"] = -1
    book["best_ask"] = book["width"]
    put(state, book, out, A_CLEAR, NO_SIDE, UNDEF_PRICE, 0, 0, flags)
