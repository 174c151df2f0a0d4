"""What happens next in a book of a generated session: which order comes, goes, changes or trades.

Prices follow the symbol's latent fair value (synthetic_clock_kernels.py): the touch follows it because orders do. The books themselves and the
records are in synthetic_book_kernels.py.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.scanning.synthetic_book_kernels import (
    A_FILL,
    A_NONE,
    A_TRADE,
    ASK,
    BID,
    NO_SIDE,
    TRADING,
    change,
    enter,
    kernel,
    price_of,
    put,
    reduce_order,
)
from tasks.scanning.synthetic_clock_kernels import draw, exponential
from tasks.schemas import F_LAST, UNDEF_PRICE

MAX_FILLS = 100
EVENT_ROWS = 3 * MAX_FILLS + 4  # no event writes more
TAKES, CHANGES = 0.057, 0.29  # below: an aggressor, a modify; above: an add or a cancel
NEAR = 0.62  # share of passive orders that come near the touch
FEW = 4  # orders that stay on a side whatever happens


@kernel
def size_of(state, largest):
    """Heavy-tailed size: half are 1, 4% above 10, near to ESH4's adds."""
    u = 1.0 - draw(state)
    return min(largest, np.int64(u**-0.72))


@kernel
def _new_id(state):
    """The next order id: shared by all books of the channel, so with gaps."""
    u = draw(state)
    if u < 0.8:
        state["order_id"] += 1
    elif u < 0.9995:
        state["order_id"] += 1 + np.int64((u - 0.8) * 100.0)
    else:
        state["order_id"] += 1 + np.int64((u - 0.9995) * 4.0e7)
    return state["order_id"]


@kernel
def _attracts(book, level):
    """Whether a level gathers large orders: round prices, and a few that the ladder's place decides."""
    tick = book["bottom"] // book["tick"] + level
    return tick % 20 == 0 or (tick * 7_919) % 257 < 6


@kernel
def _place(state, book, side, value):
    """Level for a passive order: most near the touch, or within an open spread, some far, a few very far; never at or through the other side.

    An opening has fewer near the touch, or its queues there would outlast the session.
    """
    u, width = draw(state), book["width"]
    near = NEAR if state["phase"] == TRADING else 0.15
    step, fair = -1 if side == BID else 1, np.int64(math.floor(value))
    level = min(book["best_ask"] - 1, fair) if side == BID else max(book["best_bid"] + 1, fair + 1)
    if u < near:
        if book["best_ask"] - book["best_bid"] > 1 and draw(state) < 0.6:
            return level
        return min(max(level + step * np.int64(exponential(state) * min(5.0, width / 24.0)), 1), width - 2)
    level += step * np.int64(exponential(state) * (width / 60.0 if u < 0.92 else width / 12.0))
    if u < near + 0.09:
        for _ in range(20):
            if _attracts(book, level):
                break
            level += step
    return min(max(level, 1), width - 2)


@kernel
def add_order(state, pool, book, out, side, value, flags):
    """One new resting order of `side` near the touch, sometimes far and large; writes its A record with `flags`."""
    level = _place(state, book, side, value)
    away = value - level if side == BID else level - value
    size = size_of(state, 120)
    if away > 6.0 and _attracts(book, level):
        size = min(500, size * 4 + 3)
    enter(state, pool, book, out, side, level, size, _new_id(state), flags)


@kernel
def _pick(state, pool, book):
    """A resting order: near the touch the latest ones and the more the longer the level's queue, else any; large ones stay longer."""
    first, base = book["first_order"], book["first_level"]
    if draw(state) < 0.65:
        side = BID if draw(state) < 0.5 else ASK
        step = -1 if side == BID else 1
        level = (book["best_bid"] if side == BID else book["best_ask"]) + step * np.int64(exponential(state) * 5.0)
        for _ in range(16):
            if level < 0 or level >= book["width"]:
                break
            row = pool.levels[base + level]
            if row["count"] > 0:
                if draw(state) * 12.0 < row["count"]:
                    return np.int64(row["tail"] if draw(state) < 0.7 else row["head"])
                break
            level += step
    reference = np.int64(draw(state) * book["live"])
    if pool.orders[first + reference]["size"] >= 20 and draw(state) < 0.8:
        reference = np.int64(draw(state) * book["live"])
    return reference


@kernel
def _cancel(state, pool, book, out):
    reference = _pick(state, pool, book)
    size = np.int64(pool.orders[book["first_order"] + reference]["size"])
    if size > 1 and draw(state) < 0.1:
        size = 1 + np.int64(draw(state) * (size - 1))
    reduce_order(state, pool, book, out, reference, size, F_LAST)


@kernel
def _modify(state, pool, book, out, value):
    reference = _pick(state, pool, book)
    order = pool.orders[book["first_order"] + reference]
    level, size, u = np.int64(order["level"]), np.int64(order["size"]), draw(state)
    if u < 0.45:
        moved = _place(state, book, np.int64(order["side"]), value)
        if moved != level:
            change(state, pool, book, out, reference, moved, size, F_LAST)
            return
    if u < 0.75 and size > 1:
        change(state, pool, book, out, reference, level, 1 + np.int64(draw(state) * (size - 1)), F_LAST)
    else:
        change(state, pool, book, out, reference, level, min(size + size_of(state, 20), 900), F_LAST)


@kernel
def aggress(state, pool, book, out, side, quantity, limit, auction):
    """An order that takes from the other side, first in first out, up to level `limit`; False when nothing may be taken.

    Records: per level a T and its F, then a C (or M) for each F, then sometimes an A for the rest. In an auction T and F have no side.
    """
    base, first = book["first_level"], book["first_order"]
    level, step = (book["best_ask"], 1) if side == BID else (book["best_bid"], -1)
    limit = min(max(limit, 0), book["width"] - 1)
    most = min(MAX_FILLS, (state["total"] - state["emitted"] - 1) // 3, (book["ask_orders"] if side == BID else book["bid_orders"]) - FEW)
    if most < 1 or (limit - level) * step < 0:
        return False
    order_id = 0 if auction else _new_id(state)
    count, left = 0, quantity
    while left > 0 and count < most and (limit - level) * step >= 0:
        reference = pool.levels[base + level]["head"]
        price, printed, traded = price_of(book, level), state["row"], 0
        if reference >= 0:
            put(state, book, out, A_TRADE, NO_SIDE if auction else side, price, 0, order_id, 0)
        while reference >= 0 and left > 0 and count < most:
            order = pool.orders[first + reference]
            fill = min(left, np.int64(order["size"]))
            put(state, book, out, A_FILL, NO_SIDE if auction else 1 - side, price, fill, np.int64(order["id"]), 0)
            pool.fills[count] = fill
            count += 1
            left -= fill
            traded += fill
            reference = order["next"]
        if traded > 0:
            out[printed]["size"] = traded
        level += step
    rests = left > 0 and count < most and not auction and draw(state) < 0.4
    for i in range(count):
        touch = pool.levels[base + (book["best_ask"] if side == BID else book["best_bid"])]
        reference = np.int64(touch["head"])
        order = pool.orders[first + reference]
        flags = F_LAST if i == count - 1 and not rests else 0
        if pool.fills[i] < order["size"] and draw(state) < 0.8:
            change(state, pool, book, out, reference, np.int64(order["level"]), np.int64(order["size"]) - pool.fills[i], flags)
        else:
            reduce_order(state, pool, book, out, reference, pool.fills[i], flags)
    if rests:
        enter(state, pool, book, out, side, limit, min(left, 80), order_id, F_LAST)
    return True


@kernel
def _take(state, pool, book, out, value, u):
    """An aggressor, if one comes: one in four times when the fair value has left the touch behind, else now and then, the likelier on the
    side to which the fair value leans; one in ten may sweep several levels. False when none came.
    """
    if value > book["best_ask"] + 0.8 and u < 0.25:
        return aggress(state, pool, book, out, BID, 2_000, np.int64(value - 0.2), False)
    if value < book["best_bid"] - 0.8 and u < 0.25:
        return aggress(state, pool, book, out, ASK, 2_000, np.int64(value + 1.2), False)
    if u > TAKES:
        return False
    lean = value - 0.5 * (book["best_bid"] + book["best_ask"])
    side = BID if draw(state) < min(0.9, max(0.1, 0.5 + 0.3 * lean)) else ASK
    levels = 0 if draw(state) < 0.9 else 1 + np.int64(draw(state) * 3.0)
    limit = book["best_ask"] + levels if side == BID else book["best_bid"] - levels
    return aggress(state, pool, book, out, side, size_of(state, 300) * (1 + 4 * levels), limit, False)


@kernel
def act(state, pool, book, out, value):
    """One event of a book in continuous trading."""
    u = draw(state)
    if min(book["bid_orders"], book["ask_orders"]) <= FEW and book["live"] < book["capacity"]:
        add_order(state, pool, book, out, BID if book["bid_orders"] <= book["ask_orders"] else ASK, value, F_LAST)
    elif book["live"] >= book["capacity"] - 1:
        _cancel(state, pool, book, out)
    elif _take(state, pool, book, out, value, u):
        return
    elif u < CHANGES:
        _modify(state, pool, book, out, value)
    elif u < CHANGES + 0.0005:
        put(state, book, out, A_NONE, NO_SIDE, UNDEF_PRICE, 0, 0, F_LAST)
    elif draw(state) < min(0.95, max(0.2, 0.56 + 0.4 * (1.0 - book["live"] / book["target"]))):  # the balance of both keeps the live orders
        add_order(state, pool, book, out, BID if draw(state) < 0.5 else ASK, value, F_LAST)
    else:
        _cancel(state, pool, book, out)
