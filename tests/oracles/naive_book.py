"""The rules of a market-by-order book, slow and obvious: dicts and lists, one record at a time. Twin of the order-by-order replay kernel.

Only book rules belong here: no files, no sampling, no partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tasks.schemas import F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, F_TOB, UNDEF_PRICE

ANOMALIES = ("unknown_cancel", "unknown_modify", "over_cancel", "duplicate_add", "side_change")
REASON_OF = {
    "unknown_cancel": "unknown_id",
    "unknown_modify": "unknown_id",
    "over_cancel": "over_cancel",
    "duplicate_add": "duplicate_id",
    "side_change": "side_change",
}


class NaiveBook:
    """One book of one (instrument_id, publisher_id).

    orders: order id -> (side, price, size), size > 0; queues: side -> price -> order ids in priority order, never empty;
    top: side -> (price, size) of a TOB row, which is a level and no order; counters: anomaly -> times seen;
    status, reason: names of tasks.schemas.STATUSES and REASONS; event_end: whether the last record carried LAST, so that the book may be read.
    Sides are "B" and "A". A record is anything with the fields action, side (ASCII codes), price, size, order_id and flags.

    A snapshot starts at an R with SNAPSHOT, or at a SNAPSHOT record after a record without it (or at the start); that clears the book.
    It is complete at its LAST, or, where the feed left that out (ESH4 of 2023-12-25 does), at the first LAST after it; suspect when a row was
    set aside within it, or right before it where no R says that it starts with the next record.
    """

    def __init__(self, depth: int = 10, starts_empty: bool = False) -> None:
        self.depth = depth
        self.orders: dict[int, tuple[str, int, int]] = {}
        self.queues: dict[str, dict[int, list[int]]] = {"B": {}, "A": {}}
        self.top: dict[str, tuple[int, int] | None] = {"B": None, "A": None}
        self.counters = dict.fromkeys(ANOMALIES, 0)
        self.status, self.reason = ("valid", "") if starts_empty else ("no_book", "no_snapshot")
        self.event_end = False
        self._after_snapshot = False  # the previous record carried SNAPSHOT
        self.incomplete = False  # a snapshot has started and no LAST was seen since
        self.holed = False  # a row of the last snapshot was set aside, or may have been of it
        self._aside = False  # a row was set aside since the previous record

    def next_file(self) -> None:
        """Another source begins: what it says of a snapshot belongs to one of its own, unless one is not complete yet."""
        if not self.incomplete:
            self._after_snapshot = self._aside = False

    def set_aside(self) -> None:
        """A row was quarantined before the next record."""
        self._suspect("quarantined")
        self._aside, self.holed = True, self.holed or self.incomplete

    def apply(self, record: Mapping[str, Any] | np.void) -> None:
        """Apply one record. Order of things: clear, change of the book, end of a snapshot, MAYBE_BAD_BOOK."""
        action, side = chr(int(record["action"])), chr(int(record["side"]))
        price, size, order_id, flags = (int(record[name]) for name in ("price", "size", "order_id", "flags"))
        snapshot = bool(flags & F_SNAPSHOT)

        if action == "R" or (snapshot and not self._after_snapshot):
            self._clear()
            self.status, self.reason = ("no_book", "no_snapshot") if snapshot else ("valid", "")
            self.incomplete, self.holed = snapshot, self._aside and action != "R"
        self._after_snapshot, self._aside = snapshot, False

        if action == "A" and flags & F_TOB:
            self._replace_side(side, price, size)
        elif action == "A":
            self._add(side, price, size, order_id)
        elif action == "C":
            self._cancel(size, order_id)
        elif action == "M":
            self._modify(side, price, size, order_id)

        self.event_end = bool(flags & F_LAST)
        if self.event_end and self.incomplete:
            self.status, self.reason = ("suspect", "quarantined") if self.holed else ("valid", "")
            self.incomplete = False
        if flags & F_MAYBE_BAD_BOOK:
            self._suspect("maybe_bad_book")

    def _add(self, side: str, price: int, size: int, order_id: int) -> None:
        if order_id in self.orders:
            self._anomaly("duplicate_add")
            self._remove(order_id)
        self._append(side, price, size, order_id)

    def _cancel(self, size: int, order_id: int) -> None:
        if order_id not in self.orders:
            self._anomaly("unknown_cancel")
            return
        side, price, resting = self.orders[order_id]
        if size > resting:
            self._anomaly("over_cancel")
        if size >= resting:
            self._remove(order_id)
        else:
            self.orders[order_id] = (side, price, resting - size)

    def _modify(self, side: str, price: int, size: int, order_id: int) -> None:
        if order_id not in self.orders:
            self._anomaly("unknown_modify")
            self._append(side, price, size, order_id)
            return
        old_side, old_price, old_size = self.orders[order_id]
        if side != old_side:
            self._anomaly("side_change")
        if side == old_side and price == old_price and 0 < size <= old_size:
            self.orders[order_id] = (side, price, size)  # keeps its place
        else:
            self._remove(order_id)
            self._append(side, price, size, order_id)

    def _append(self, side: str, price: int, size: int, order_id: int) -> None:
        if size == 0 or side not in self.queues or price == UNDEF_PRICE:
            return  # nothing that could rest
        self.orders[order_id] = (side, price, size)
        self.queues[side].setdefault(price, []).append(order_id)

    def _remove(self, order_id: int) -> None:
        side, price, _ = self.orders.pop(order_id)
        queue = self.queues[side][price]
        queue.remove(order_id)
        if not queue:
            del self.queues[side][price]

    def _replace_side(self, side: str, price: int, size: int) -> None:
        if side not in self.queues:
            return
        for queue in list(self.queues[side].values()):
            for order_id in list(queue):
                self._remove(order_id)
        self.top[side] = None if price == UNDEF_PRICE or size == 0 else (price, size)

    def _clear(self) -> None:
        self.orders.clear()
        self.queues = {"B": {}, "A": {}}
        self.top = {"B": None, "A": None}

    def _anomaly(self, name: str) -> None:
        self.counters[name] += 1
        self._suspect(REASON_OF[name])

    def _suspect(self, reason: str) -> None:
        if self.status == "valid":  # the first reason stays; without a book there is nothing to suspect
            self.status, self.reason = "suspect", reason

    def levels(self, side: str, depth: int | None = None) -> list[tuple[int, int, int]]:
        """(price, size, order count) from the touch outwards; all levels when depth is None."""
        totals = {price: (sum(self.orders[i][2] for i in ids), len(ids)) for price, ids in self.queues[side].items()}
        if (top := self.top[side]) is not None:
            size, count = totals.get(top[0], (0, 0))
            totals[top[0]] = (size + top[1], count + 1)
        return [(price, *totals[price]) for price in sorted(totals, reverse=side == "B")[:depth]]

    def queue(self, price: int, side: str) -> list[tuple[int, int]]:
        """(order id, size) of the orders at a level, first in priority first."""
        return [(i, self.orders[i][2]) for i in self.queues[side].get(price, [])]

    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask (crossed or locked)."""
        bids, asks = ([*self.queues[side]] + [top[0] for top in (self.top[side],) if top] for side in "BA")
        return bool(bids and asks) and max(bids) >= min(asks)

    def consistent(self) -> None:
        """Assert that levels and orders tell the same: each order stands once, where it says, and no level is empty."""
        seen = []
        for side, prices in self.queues.items():
            for price, ids in prices.items():
                assert ids, f"empty level {side} {price}"
                assert all(self.orders[i][:2] == (side, price) for i in ids)
                seen += ids
            top = self.top[side]
            synthetic = top[1] if top else 0
            resting = sum(size for s, _, size in self.orders.values() if s == side)
            assert sum(size for _, size, _ in self.levels(side)) == resting + synthetic
        assert len(seen) == len(set(seen)) == len(self.orders)
        assert all(size > 0 for _, _, size in self.orders.values())


def replay(records: Iterable[np.void], depth: int = 10, starts_empty: bool = False) -> dict[tuple[int, int], NaiveBook]:
    """The final book of each (instrument_id, publisher_id) of `records` (MBO_RECORD)."""
    books: dict[tuple[int, int], NaiveBook] = {}
    for record in records:
        key = int(record["instrument_id"]), int(record["publisher_id"])
        if key not in books:
            books[key] = NaiveBook(depth, starts_empty)
        books[key].apply(record)
    return books
