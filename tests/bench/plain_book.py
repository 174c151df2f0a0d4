"""A book of orders in plain Python, as one writes it without further thought: what a kernel is compared with."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from typing import Any


class PlainBook:
    """Orders in a dictionary; on each side a dictionary of sizes and a sorted list of prices (bids negated, so that the best comes first)."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[str, int, int]] = {}
        self.sizes: dict[str, dict[int, int]] = {"B": {}, "A": {}}
        self.prices: dict[str, list[int]] = {"B": [], "A": []}
        self.event_ends = 0

    def _change(self, side: str, price: int, size: int) -> None:
        key, sizes = -price if side == "B" else price, self.sizes[side]
        left = sizes.get(key, 0) + size
        if key not in sizes:
            insort(self.prices[side], key)
        sizes[key] = left
        if not left:
            del sizes[key]
            self.prices[side].remove(key)

    def _take(self, order_id: int, side: str, price: int, size: int) -> None:
        self.orders[order_id] = (side, price, size)
        self._change(side, price, size)

    def apply(self, action: str, side: str, price: int, size: int, order_id: int, is_last: bool) -> None:
        """One record; at an event end the first ten levels are looked up."""
        if action == "A":
            self._take(order_id, side, price, size)
        elif action in "CM" and order_id in self.orders:
            old_side, old_price, old_size = self.orders.pop(order_id)
            self._change(old_side, old_price, -old_size)
            if action == "M":
                self._take(order_id, side, price, size)
            elif old_size > size:
                self._take(order_id, old_side, old_price, old_size - size)
        elif action == "R":
            self.orders, self.sizes, self.prices = {}, {"B": {}, "A": {}}, {"B": [], "A": []}
        if is_last:
            self.event_ends += 1
            self.levels(10)

    def levels(self, depth: int) -> dict[str, list[list[int]]]:
        """[price, size] of the best levels of both sides."""
        return {side: [[abs(key), self.sizes[side][key]] for key in keys[:depth]] for side, keys in self.prices.items()}


def plain_book(rows: Iterable[tuple[str, str, int, int, int, bool]]) -> dict[str, Any]:
    """What a PlainBook ends with."""
    book = PlainBook()
    for row in rows:
        book.apply(*row)
    best = book.levels(1)
    return {"event_ends": book.event_ends, "orders": len(book.orders), "best_bid": best["B"][0], "best_ask": best["A"][0]}
