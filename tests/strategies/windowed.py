"""Hypothesis strategies: LOBSTER message files with few prices, cut from a full-depth book that is kept order by order.

The full book is the truth: a level-N file has the messages that change its top N levels, and the published book after each.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from tasks.schemas import EVENT_DTYPES, F_LAST, UNDEF_PRICE
from tests.oracles.naive_window import Book

UNIT = 100_000  # of a LOBSTER price, in 1e-9
TICK, BASE, LEVELS = 100, 2_238_100, 5  # in LOBSTER units; bids rest at base + 0..4 ticks, asks above them
START_NS = 1_340_285_400_000_000_000  # 2012-06-21 09:30 in New York
HALTED, QUOTING, TRADING = -1, 0, 1
ADD, PARTIAL, DELETE, EXECUTION, HIDDEN, CROSS, HALT = range(1, 8)
_STEPS = (ADD, ADD, ADD, ADD, PARTIAL, DELETE, DELETE, EXECUTION, EXECUTION, HIDDEN, CROSS, HALT)

Step = tuple[int, int, int, int]


@dataclass(frozen=True)
class Message:
    """A line of the message file (price in LOBSTER units) and the published book after it, prices in 1e-9, best first."""

    kind: int
    order_id: int
    size: int
    price: int
    direction: int
    book: Book


class Market:
    """A full-depth book order by order, and the lines that a level-N file has of it: those that change its top N levels."""

    def __init__(self, levels: int) -> None:
        self.levels, self.orders, self.next_id = levels, dict[int, tuple[int, int, int]](), 1  # id -> direction, price, size

    def book(self) -> Book:
        """The top N levels."""
        sums: dict[int, dict[int, int]] = {1: {}, -1: {}}
        for direction, price, size in self.orders.values():
            sums[direction][price * UNIT] = sums[direction].get(price * UNIT, 0) + size
        return sorted(sums[1].items(), reverse=True)[: self.levels], sorted(sums[-1].items())[: self.levels]

    def step(self, step: Step) -> Message | None:
        """Take one step (kind and three numbers that choose order, price and size); its line, where the file has one."""
        before = self.book()
        line = self._change(*step)
        after = self.book()
        return Message(*line, after) if line is not None and (line[0] in (HIDDEN, CROSS, HALT) or before != after) else None

    def _change(self, kind: int, a: int, b: int, c: int) -> tuple[int, int, int, int, int] | None:
        direction, size = 1 if a % 2 else -1, c + 1
        if kind == ADD:
            price = BASE + TICK * (b % LEVELS + (LEVELS if direction < 0 else 0))
            self.orders[self.next_id] = (direction, price, size)
            self.next_id += 1
            return ADD, self.next_id - 1, size, price, direction
        if kind == HALT:
            return HALT, 0, 0, (HALTED, QUOTING, TRADING)[b % 3], -1
        if kind in (HIDDEN, CROSS):
            return kind, 0 if kind == HIDDEN else -1, size, BASE + LEVELS * TICK - 50, direction
        same = [i for i, order in self.orders.items() if order[0] == direction]
        if not same:
            return None
        chosen = min(same, key=lambda i: (-direction * self.orders[i][1], i)) if kind == EXECUTION else same[b % len(same)]
        _, price, resting = self.orders[chosen]
        if kind == PARTIAL and resting == 1:
            kind = DELETE
        taken = resting if kind == DELETE else min(size, resting - (kind == PARTIAL))
        if taken == resting:
            del self.orders[chosen]
        else:
            self.orders[chosen] = (direction, price, resting - taken)
        return kind, chosen, taken, price, direction


def recorded(steps: list[Step], levels: int, unseen: int) -> list[Message]:
    """The file of a market whose first `unseen` steps came before the recording."""
    market = Market(levels)
    lines = [market.step(step) for step in steps]
    return [line for line in lines[unseen:] if line is not None]


number = st.integers(0, 9)
steps = st.lists(st.tuples(st.sampled_from(_STEPS), number, number, number), min_size=2, max_size=90)
files = st.builds(recorded, steps, st.integers(1, 3), st.integers(0, 30)).filter(bool)


def levels_of(messages: list[Message]) -> int:
    """Levels that a file of these messages needs."""
    return max(1, *(len(side) for m in messages for side in m.book))


def records_of(messages: list[Message]) -> list[tuple[str, str, int, int, int, int]]:
    """(action, side, price, size, flags, message) of each event, as the LOBSTER reader makes them."""
    rows: list[tuple[str, str, int, int, int, int]] = []
    for n, m in enumerate(messages):
        side, other = ("B", "A") if m.direction > 0 else ("A", "B")
        price = m.price * UNIT if m.kind != HALT else m.price * 10**9
        if m.kind == EXECUTION:
            rows.append(("T", other, price, m.size, 0, n))
        action = {ADD: "A", HIDDEN: "T", CROSS: "T", HALT: "N"}.get(m.kind, "C")
        side = {HIDDEN: other, CROSS: "N", HALT: "N"}.get(m.kind, side)
        rows.append((action, side, price, m.size, F_LAST, n))
    return rows


def columns_of(messages: list[Message]) -> dict[str, np.ndarray]:
    """The event columns of a file."""
    rows = records_of(messages)
    columns = {name: np.zeros(len(rows), dtype) for name, dtype in EVENT_DTYPES.items()}
    for i, (action, side, price, size, flags, n) in enumerate(rows):
        columns["action"][i], columns["side"][i], columns["price"][i] = ord(action), ord(side), price
        columns["size"][i], columns["flags"][i], columns["sequence"][i] = size, flags, n
        columns["ts_event"][i] = START_NS + n // 2 * 1_000_000  # pairs share a time
    columns["ts_recv"] = columns["ts_event"].copy()
    return columns


def truth_of(messages: list[Message], levels: int) -> np.ndarray:
    """int64[n, levels, 4] published books: ask px, ask sz, bid px, bid sz."""
    truth = np.zeros((len(messages), levels, 4), np.int64)
    truth[:, :, [0, 2]] = UNDEF_PRICE
    for n, m in enumerate(messages):
        for at, side in ((2, m.book[0]), (0, m.book[1])):
            for k, level in enumerate(side):
                truth[n, k, at : at + 2] = level
    return truth


def busy(count: int, seed: int = 4) -> list[Message]:
    """A three-level file of about `count` messages."""
    rng = random.Random(seed)
    drawn = [(rng.choice(_STEPS), rng.randrange(10), rng.randrange(1000), rng.randrange(10)) for _ in range(count)]
    return recorded(drawn, 3, 40)
