"""`OrderBook`: owns the arrays of one order-by-order book, gives them room, and maps prices to ranks. Rules live in book_kernels.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.kernels import aligned
from tasks.reconstruction.book_kernels import (
    AFTER_HOLE,
    ANOMALY,
    BEST,
    BID,
    COUNTERS,
    FREE,
    HALTED_STATE,
    IN_SNAPSHOT,
    INCOMPLETE,
    LAST_SEQUENCE,
    LEVEL,
    LIVE,
    ORDER,
    REASON,
    STATE_SIZE,
    STATUS,
    TOP_LEVEL,
    TOP_SIZE,
    TOUCHED,
    TOUCHED_ROOM,
    USED,
    Book,
    add_orders,
    dump_orders,
    forget_top,
    replace_side,
    set_aside,
)
from tasks.reconstruction.ladder_kernels import fill_ranks, to_ranks
from tasks.reconstruction.order_table_kernels import fill_slots, shift_of
from tasks.schemas import NO_BOOK, REASONS, STATUSES, VALID

# Slots per order of the pool. Hash load is the biggest lever of the replay: under 1/8 beats 1/2 by a half (measured).
SLOTS_PER_ORDER = 8
FIRST_ORDERS = 16_384
# New prices bring the ticks of their block, and of those beside it, into the ladder, as long as it stays this short. A ladder of met prices only
# grew in two of three batches of a market that moves, at a fifth of the whole replay (measured).
BLOCK_TICKS = 128
MOST_TICKS = 32_768
_FAR = 1 << 61  # prices beyond it bring no ticks: their blocks would not fit 64 bits
_LOWER = np.uint64(0xFFFFFFFF)


class OrderBook:
    """One book for one (instrument, publisher). `arrays` is the kernels' namedtuple; it is replaced when something grows."""

    def __init__(self, *, starts_empty: bool = False) -> None:
        state = np.zeros(STATE_SIZE, np.int64)
        state[BEST : BEST + 2] = -1
        state[FREE] = -1
        forget_top(state, 0)
        forget_top(state, 1)
        state[ANOMALY] = -1
        state[LAST_SEQUENCE] = -1
        state[TOP_LEVEL : TOP_LEVEL + 2] = -1
        state[STATUS], state[REASON] = (VALID, 0) if starts_empty else (NO_BOOK, REASONS.index("no_snapshot"))
        self._ranks = np.zeros((64, 2), np.int64)
        self._tick = 0  # greatest common divisor of all prices met
        self.arrays = Book(
            table=np.zeros(FIRST_ORDERS * SLOTS_PER_ORDER, np.uint64),
            orders=aligned(FIRST_ORDERS, ORDER),
            levels=np.zeros(0, LEVEL),
            prices=np.zeros(0, np.int64),
            state=state,
            counters=np.zeros(len(COUNTERS), np.int64),
            touched=np.zeros(TOUCHED_ROOM, np.int32),
        )

    def ranks(self, price: np.ndarray, out: np.ndarray) -> None:
        """Write the rank of each price int64[n] to out int32[n] (-1 undefined), making room for prices not met before."""
        if to_ranks(self._ranks, price, out):
            self._widen(self._ladder(np.unique(price[out == -2])))
            to_ranks(self._ranks, price, out)

    def _ladder(self, new: np.ndarray) -> np.ndarray:
        """The known prices and `new` ones, and the ticks around these, so that the next prices of a market that moves are known already."""
        known = self.arrays.prices
        self._tick = math.gcd(self._tick, int(np.gcd.reduce(new[np.abs(new) > 1])) if (np.abs(new) > 1).any() else 0)
        span = BLOCK_TICKS * self._tick
        if span and span < _FAR:
            blocks = np.unique(new[np.abs(new) < _FAR] // span)
            blocks = np.unique(np.concatenate([blocks - 1, blocks, blocks + 1]))
            if len(known) + len(blocks) * BLOCK_TICKS <= MOST_TICKS:
                ticks = (blocks[:, None] * span + np.arange(BLOCK_TICKS) * self._tick).ravel()
                new = np.union1d(new, ticks)
        return np.union1d(known, new)

    def _widen(self, prices: np.ndarray) -> None:
        """Take `prices` (ascending, containing all known ones) as the ladder; every level and order moves to its new index."""
        old, width, new_width = self.arrays, len(self.arrays.prices), len(prices)
        ranks = np.searchsorted(prices, old.prices).astype(np.int32)
        # index -> new index per side; the ask side is mirrored
        moves = np.stack([ranks, (new_width - 1 - ranks)[::-1]]) if width else np.zeros((2, 0), np.int32)
        levels = np.zeros(2 * new_width, LEVEL)
        for side in range(2):
            levels[side * new_width + moves[side]] = old.levels[side * width : (side + 1) * width]
            best = old.state[BEST + side]
            old.state[BEST + side] = moves[side][best] if best >= 0 else -1
            top = old.state[TOP_LEVEL + side]
            old.state[TOP_LEVEL + side] = moves[side][top] if top >= 0 else -1
        used = int(old.state[USED])
        if used and width:
            pool = old.orders[:used]
            # unused places of the pool may hold an old level of any side: bound them, they are overwritten when taken
            index = np.minimum(pool["level"], width - 1)
            pool["level"] = moves[pool["side"] & 1, index]
        forget_top(old.state, 0)
        forget_top(old.state, 1)
        touched = int(old.state[TOUCHED])
        if width and touched <= TOUCHED_ROOM:  # more than were noted: all are looked at
            noted = old.touched[:touched]
            side = noted // width
            noted[:] = side * new_width + moves[side, noted - side * width]
        slots = 64
        while slots < 4 * new_width:
            slots *= 2
        self._ranks = np.zeros((slots, 2), np.int64)
        fill_ranks(self._ranks, prices)
        self.arrays = old._replace(levels=levels, prices=prices)

    def grow_pool(self) -> None:
        """Double the room for orders and rehash."""
        old = self.arrays
        orders = aligned(2 * len(old.orders), ORDER)
        orders[: len(old.orders)] = old.orders
        table = np.zeros(2 * len(old.table), np.uint64)
        fill_slots(table, orders, (old.table[old.table != 0] & _LOWER).astype(np.int64) - 1)
        self.arrays = old._replace(orders=orders, table=table)

    def doubt(self) -> None:
        """A row was quarantined after the last record."""
        set_aside(self.arrays.state)

    def next_file(self) -> None:
        """Another source begins: a record of a snapshot is then the first of a new one, unless one is not complete yet."""
        state = self.arrays.state
        if state[INCOMPLETE] == 0 or state[IN_SNAPSHOT] == AFTER_HOLE:  # a row set aside at the end of a file is none of the next one
            state[IN_SNAPSHOT] = 0

    def counters(self) -> dict[str, int]:
        """Counts by name, see book_kernels.COUNTERS."""
        return dict(zip(COUNTERS, self.arrays.counters.tolist(), strict=True))

    def resting_orders(self) -> dict[str, np.ndarray]:
        """side uint8, price int64, order_id uint64, size int64 of all resting orders, best level first, in priority order."""
        n, width = int(self.arrays.state[LIVE]), len(self.arrays.prices)
        out: dict[str, np.ndarray] = {
            "side": np.zeros(n, np.uint8),
            "price": np.zeros(n, np.int64),
            "order_id": np.zeros(n, np.uint64),
            "size": np.zeros(n, np.int64),
        }
        dump_orders(self.arrays, width, out["side"], out["price"], out["order_id"], out["size"])
        return out

    def level_arrays(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """px, sz, ct int64[k] of all levels of a side (0 bid, 1 ask), best first."""
        width = len(self.arrays.prices)
        rows = self.arrays.levels[side * width : (side + 1) * width]
        index = np.flatnonzero(rows["count"])[::-1]
        px = self.arrays.prices[index if side == 0 else width - 1 - index]
        return px, rows["size"][index], rows["count"][index].astype(np.int64)

    def levels(self, side: int) -> list[tuple[int, int, int]]:
        """(price, size, orders) of all levels of a side (0 bid, 1 ask), best first."""
        return list(zip(*(values.tolist() for values in self.level_arrays(side)), strict=True))

    def standing(self) -> dict[str, Any]:
        """What holds beside the orders and the status, for `restore`: the trading state, the last sequence number, [price, size] of the level that
        a top-of-book record made of each side (None: none did), and how far a snapshot is, see INCOMPLETE and IN_SNAPSHOT of book_kernels.py."""
        state, prices = self.arrays.state, self.arrays.prices
        index = [int(state[TOP_LEVEL]), len(prices) - 1 - int(state[TOP_LEVEL + 1])]
        top = [[int(prices[index[side]]), int(state[TOP_SIZE + side])] if state[TOP_LEVEL + side] >= 0 else None for side in range(2)]
        told = {"halted": HALTED_STATE, "numbered": LAST_SEQUENCE, "incomplete": INCOMPLETE, "in_snapshot": IN_SNAPSHOT}
        return {name: int(state[place]) for name, place in told.items()} | {"top": top}

    def restore(
        self, *, side: np.ndarray, price: np.ndarray, order_id: np.ndarray, size: np.ndarray, status: str, reason: str,
        standing: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Fill an empty book with the orders of `resting_orders` (best level first, in priority order) and set its status.

        standing: has the facts of `standing`; what an older version did not write stays as it is in an empty book. Counters stay at zero.
        """
        while len(self.arrays.orders) < len(price):
            self.grow_pool()
        standing = standing or {}
        tops = [(place, *level) for place, level in enumerate(standing.get("top", ())) if level]
        rank = np.zeros(len(price) + len(tops), np.int32)
        self.ranks(np.concatenate([price, np.array([level for _, level, _ in tops], np.int64)]), rank)
        width = len(self.arrays.prices)
        for at, (place, _, held) in zip(rank[len(price) :].tolist(), tops, strict=True):
            replace_side(self.arrays, width, shift_of(self.arrays.table), place, at if place == BID else width - 1 - at, held)
        add_orders(self.arrays, width, side, rank[: len(price)], order_id, size)
        state = self.arrays.state
        state[STATUS], state[REASON] = STATUSES.index(status), REASONS.index(reason)
        state[HALTED_STATE], state[LAST_SEQUENCE] = standing.get("halted", 0), standing.get("numbered", -1)
        state[INCOMPLETE], state[IN_SNAPSHOT] = standing.get("incomplete", 0), standing.get("in_snapshot", 0)


def from_day_before(facts: Mapping[str, Any], halts: bool) -> dict[str, Any]:
    """Facts of a closing book for the next day's `restore`. halts: its own source tells the trading state; else nothing would end a halt."""
    return {**facts, "halted": facts.get("halted", 0) if halts else 0}
