"""Later snapshots of a feed as truth of the book that was built without them: what stood before each, against what the feed says.

Every level of both sides is compared (price, size, orders), and every order with its place in the queue. Only a book that is said to be
valid is held to it; a suspect one is counted apart, and what it was since the last truth counts as a wrong span where its fault was noticed
late. No kernels and no files here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tasks.reconstruction.book import OrderBook
from tasks.reconstruction.book_kernels import C_ADD, C_CANCEL, C_FILL, C_MODIFY, C_TRADE, LIVE, R_QUARANTINED, REASON, STATUS
from tasks.reconstruction.proof_kernels import DIFFERENCE_SIZE, P_GOOD, P_OPEN, P_SPANS, Proof, compare_states, new_proof, note_states
from tasks.schemas import REASONS, STATUSES, SUSPECT, UNDEF_PRICE, VALID

Orders = dict[str, np.ndarray]
# What shows that messages were lost, or wrong, some time before: the book was not right all the while it said that it was.
_NOTICED_LATE = ("unknown_id", "over_cancel", "duplicate_id", "side_change")


@dataclass(frozen=True)
class BookImage:
    """A whole book at a moment: levels per side (px, sz, ct int64[k], best first), the resting orders, status and reason; standing as of
    OrderBook.standing."""

    levels: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
    orders: Orders
    status: int
    reason: int
    standing: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, book: OrderBook) -> BookImage:
        """The book as it stands."""
        state = book.arrays.state
        return cls((book.level_arrays(0), book.level_arrays(1)), book.resting_orders(), int(state[STATUS]), int(state[REASON]), book.standing())

    @classmethod
    def of_orders(cls, orders: Orders, status: str, reason: str, standing: Mapping[str, Any] | None = None) -> BookImage:
        """The book that `orders` (as of OrderBook.resting_orders) make, and what else stands, see OrderBook.restore."""
        book = OrderBook(starts_empty=True)
        book.restore(**orders, status=status, reason=reason, standing=standing)
        return cls.of(book)


@dataclass
class SnapshotTruth:
    """All snapshots of one replay. orders: counts of orders compared, matched, and in the same queue order; suspect: snapshots that met a
    suspect book, and how many of those found it right; opening: the book of a snapshot with which the events begin."""

    proof: Proof = field(default_factory=new_proof)
    orders: dict[str, int] = field(default_factory=lambda: {"orders_compared": 0, "orders_matched": 0, "queues_equal": 0})
    suspect: dict[str, int] = field(default_factory=lambda: {"suspect_compared": 0, "suspect_matched": 0})
    opening: BookImage | None = None
    opening_ns: int = -1
    _before: BookImage | None = None
    _started: bool = False
    _is_opening: bool = False

    def begin(self, book: OrderBook, is_first: bool, doubted: bool = False) -> None:
        """A snapshot starts; `book` stands as it was before. is_first: no record came before it; where only clears did, it is so too.
        doubted: a row was quarantined between the two."""
        state, counters = book.arrays.state, book.arrays.counters
        is_first = is_first or (state[LIVE] == 0 and not counters[[C_ADD, C_CANCEL, C_FILL, C_MODIFY, C_TRADE]].any())
        known = int(state[STATUS]) in (VALID, SUSPECT)
        self._before = BookImage.of(book) if known and not is_first else None
        if self._before and self._before.status == VALID and doubted:
            self._before = replace(self._before, status=SUSPECT, reason=R_QUARANTINED)
        self._started, self._is_opening = True, is_first

    def end(self, book: OrderBook, now: int, sequence: int) -> None:
        """The snapshot is whole and `book` holds it."""
        if not self._started:
            return
        before, self._before, self._started = self._before, None, False
        if before is not None:
            self.compare(before, BookImage.of(book), now, sequence)
        elif self._is_opening and self.opening is None:
            self.opening, self.opening_ns = BookImage.of(book), now
        self._is_right(now)

    def _is_right(self, now: int) -> None:
        """The book is the snapshot from here on, whatever it was before: a wrong span ends, and the next one begins here at the earliest."""
        number, spans = self.proof
        if number[P_OPEN] and number[P_SPANS] <= len(spans):
            spans[number[P_SPANS] - 1, 1] = now
        number[P_OPEN], number[P_GOOD] = 0, now

    def abandon(self) -> None:
        """The snapshot was broken off by a clear, or a row of it was quarantined: it proves nothing."""
        self._before, self._started = None, False

    def compare(self, before: BookImage, truth: BookImage, now: int, sequence: int) -> bool:
        """Book one comparison; returns whether all levels are equal."""
        if before.status == SUSPECT:
            good, *_ = compare_books(truth, before)
            self.suspect["suspect_compared"] += 1
            self.suspect["suspect_matched"] += good
            if REASONS[before.reason] in _NOTICED_LATE and not self.proof.number[P_OPEN]:
                number, spans = self.proof
                if number[P_SPANS] < len(spans):
                    spans[number[P_SPANS], 0] = number[P_GOOD]
                number[P_SPANS] += 1
                number[P_OPEN] = 1
            return good
        good, levels, matched, difference = compare_books(truth, before)
        note_states(
            self.proof, np.array([good], np.uint8), np.array([now]), np.array([max(sequence, 0)], np.uint32), np.array([levels]),
            np.array([matched]), difference,
        )  # fmt: skip
        for name, count in compare_orders(truth.orders, before.orders).items():
            self.orders[name] += count
        return good

    def facts(self) -> dict[str, Any]:
        """The counts that are not in `proof`."""
        return {**self.orders, **self.suspect}


def compare_books(truth: BookImage, found: BookImage) -> tuple[bool, int, int, np.ndarray]:
    """(whether equal, levels compared, levels matched, first difference int64[1, 8]) of two whole books."""
    k = max(1, *(len(px) for image in (truth, found) for px, _, _ in image.levels))
    arrays = []
    for image in (truth, found):
        px, sz, ct = np.full((1, 2, k), UNDEF_PRICE), np.zeros((1, 2, k), np.int64), np.zeros((1, 2, k), np.int64)
        for side, levels in enumerate(image.levels):
            for out, values in zip((px, sz, ct), levels, strict=True):
                out[0, side, : len(values)] = values
        arrays.append((px, sz, ct))
    tally, difference = np.zeros((1, 2), np.int64), np.zeros((1, DIFFERENCE_SIZE), np.int64)
    compare_states(arrays[0], arrays[1], tally, difference)
    compared, matched = tally[0].tolist()
    return compared == matched, compared, matched, difference


def compare_orders(truth: Orders, found: Orders) -> dict[str, int]:
    """How many orders either has, how many are the same (id, side, price, size), and whether all queues are in the same order (0 or 1)."""

    def rows(orders: Orders) -> set[tuple[Any, ...]]:
        return set(zip(*(orders[name].tolist() for name in ("order_id", "side", "price", "size")), strict=True))

    one, other = rows(truth), rows(found)
    ids = {row[0] for row in one} | {row[0] for row in other}
    same = np.array_equal(truth["order_id"], found["order_id"])
    return {"orders_compared": len(ids), "orders_matched": len(one & other), "queues_equal": int(same)}


def status_of(image: BookImage) -> tuple[str, str]:
    """(status, reason) by name."""
    return STATUSES[image.status], REASONS[image.reason]
