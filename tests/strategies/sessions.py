"""Hypothesis strategies: small market-by-order sessions, as a feed would send them and damaged in the ways that real files are.

Prices and order ids are few, so that levels, queues and ids collide often. Long realistic streams come from tasks.scanning.synthetic.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tasks.schemas import F_BAD_TS_RECV, F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, F_TOB, MBO_RECORD, UNDEF_PRICE

TICK = 250_000_000
LEVELS = 4  # prices per side: bids at base + 0..3 ticks, asks at base + 4..7
START_NS = 1_761_139_800_000_000_000
SNAPSHOT = F_SNAPSHOT | F_BAD_TS_RECV

Row = tuple[str, str, int, int, int, int, int]  # action, side, price, size, order_id, flags, publisher_id
Orders = dict[int, tuple[str, int, int]]  # order id -> side, price, size; in order of arrival at the level

_STEPS = ("add", "add", "add", "cancel", "partial", "shrink", "grow", "move", "trade", "none", "clear", "snapshot", "snapshot_clear")
_FAULTS = ("delete", "duplicate", "swap", "size", "price", "side", "order_id", "bad_book", "top", "no_top", "last")


@st.composite
def sessions(draw: st.DrawFn, max_records: int = 60, corrupt: bool | None = None, publishers: int = 2) -> np.ndarray:
    """MBO_RECORD[n], 1 <= n <= max_records, of one instrument.

    corrupt False: valid by every rule and never crossed at an event end; True: one to six faults are put in, and half of them begin in
    the middle, without their clear; None: either.
    """
    damaged = draw(st.booleans()) if corrupt is None else corrupt
    base = draw(st.sampled_from((4_800 * 4, 0, -LEVELS, -40))) * TICK
    number = st.integers(0, 9)
    steps = draw(st.lists(st.tuples(st.sampled_from(_STEPS), number, number, number, st.integers(1, publishers)), min_size=1, max_size=max_records))
    rows: list[Row] = []
    for publisher in range(1, publishers + 1):
        rows.append(("R", "N", UNDEF_PRICE, 0, 0, draw(st.sampled_from((0, F_LAST))), publisher))
    books: dict[int, Orders] = {p: {} for p in range(1, publishers + 1)}
    for order_id, (kind, a, b, c, publisher) in enumerate(steps, start=1):
        rows += _step(kind, a, b, c, publisher, books[publisher], base, order_id)
    if damaged:
        if draw(st.booleans()):  # starts in the middle
            rows = rows[draw(st.integers(0, len(rows) - 1)) :]
        faults = st.tuples(st.sampled_from(_FAULTS), st.integers(0, max_records), number)
        for kind, at, value in draw(st.lists(faults, min_size=1, max_size=6)):
            _damage(rows, kind, at % len(rows), value, base)
    return _records(rows[:max_records])


def _step(kind: str, a: int, b: int, c: int, publisher: int, orders: Orders, base: int, order_id: int) -> list[Row]:
    """Rows of one event, and its change of `orders`. a, b, c choose order, price and size; `order_id` is new."""
    side = "B" if a % 2 == 0 else "A"
    price = base + TICK * (b % LEVELS + (LEVELS if side == "A" else 0))
    size = c + 1
    if kind == "none":
        return [("N", "N", UNDEF_PRICE, 0, 0, F_LAST, publisher)]
    if kind == "clear":
        orders.clear()
        return [("R", "N", UNDEF_PRICE, 0, 0, F_LAST, publisher)]
    if kind in ("snapshot", "snapshot_clear"):
        if not orders:
            return []
        rows = [("A", s, p, z, i, SNAPSHOT, publisher) for i, (s, p, z) in orders.items()]
        rows[-1] = (*rows[-1][:5], SNAPSHOT | F_LAST, publisher)
        # Without an R only a record without SNAPSHOT before it tells where a snapshot starts.
        action, flags = ("R", SNAPSHOT) if kind == "snapshot_clear" else ("N", F_LAST)
        before: Row = (action, "N", UNDEF_PRICE, 0, 0, flags, publisher)
        return [before, *rows]
    if kind == "add" or not orders:
        orders[order_id] = (side, price, size)
        return [("A", side, price, size, order_id, F_LAST if c % 5 else F_LAST | 2, publisher)]
    if kind == "trade":
        return _trade(side, size, publisher, orders, order_id)
    target = list(orders)[a % len(orders)]
    side, old_price, resting = orders[target]
    if kind == "cancel" or (kind == "partial" and resting == 1):
        del orders[target]
        return [("C", side, old_price, resting, target, F_LAST, publisher)]
    if kind == "partial":
        removed = 1 + c % (resting - 1)
        orders[target] = (side, old_price, resting - removed)
        return [("C", side, old_price, removed, target, F_LAST, publisher)]
    price = base + TICK * (b % LEVELS + (LEVELS if side == "A" else 0)) if kind == "move" else old_price
    size = {"shrink": max(1, resting - c), "grow": resting + c, "move": size}[kind]
    if price != old_price or size > resting:
        del orders[target]  # to the tail
    orders[target] = (side, price, size)
    return [("M", side, price, size, target, F_LAST, publisher)]


def _trade(aggressor: str, size: int, publisher: int, orders: Orders, order_id: int) -> list[Row]:
    """An aggressive order against the best level, first in first out."""
    resting = "A" if aggressor == "B" else "B"
    prices = [p for s, p, _ in orders.values() if s == resting]
    if not prices:
        return [("N", "N", UNDEF_PRICE, 0, 0, F_LAST, publisher)]
    best = max(prices) if resting == "B" else min(prices)
    fills, left = [], size
    for i in [i for i, (s, p, _) in orders.items() if (s, p) == (resting, best)]:
        done = min(left, orders[i][2])
        if done:
            fills.append((i, done))
            orders[i] = (resting, best, orders[i][2] - done)
            left -= done
        if orders[i][2] == 0:
            del orders[i]
    rows: list[Row] = [("T", aggressor, best, size - left, order_id, 0, publisher)]
    rows += [("F", resting, best, done, i, 0, publisher) for i, done in fills]
    rows += [("C", resting, best, done, i, F_LAST if i == fills[-1][0] else 0, publisher) for i, done in fills]
    return rows


def _damage(rows: list[Row], kind: str, at: int, value: int, base: int) -> None:
    """Put one fault into `rows` in place; at least one row stays."""
    action, side, price, size, order_id, flags, publisher = rows[at]
    if kind == "delete" and len(rows) > 1:
        del rows[at]
    elif kind == "duplicate":
        rows.insert(at, rows[at])
    elif kind == "swap":
        other = (at + 1 + value) % len(rows)
        rows[at], rows[other] = rows[other], rows[at]
    elif kind == "size":
        rows[at] = (action, side, price, value, order_id, flags, publisher)
    elif kind == "price":
        rows[at] = (action, side, base + TICK * value, size, order_id, flags, publisher)
    elif kind == "side":
        rows[at] = (action, {"A": "B", "B": "A"}.get(side, side), price, size, order_id, flags, publisher)
    elif kind == "order_id":
        rows[at] = (action, side, price, size, value if value < 9 else 6_412_777_000_000, flags, publisher)
    elif kind == "bad_book":
        rows[at] = (action, side, price, size, order_id, flags | F_MAYBE_BAD_BOOK, publisher)
    elif kind in ("top", "no_top"):
        level = UNDEF_PRICE if kind == "no_top" else base + TICK * value
        rows.insert(at, ("A", "BA"[value % 2], level, value + 1, 0, F_TOB | F_LAST, publisher))
    elif kind == "last":
        rows[at] = (action, side, price, size, order_id, flags ^ F_LAST, publisher)


def _records(rows: list[Row]) -> np.ndarray:
    out = np.zeros(len(rows), MBO_RECORD)
    out["length"], out["rtype"], out["instrument_id"], out["ts_in_delta"] = 14, 160, 1, 12_000
    for n, (action, side, price, size, order_id, flags, publisher) in enumerate(rows):
        row = out[n]
        row["action"], row["side"], row["price"], row["size"] = ord(action), ord(side), price, size
        row["order_id"], row["flags"], row["publisher_id"] = order_id, flags, publisher
        row["ts_event"], row["sequence"] = START_NS + 1_000_000 * (n // 2), 100 + n  # pairs share a time
        row["ts_recv"] = row["ts_event"] + 85_000
    return out
