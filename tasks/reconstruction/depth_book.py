"""`DepthBook`: owns the arrays of one price-level book, brings updates to its scale, maps prices to ranks. Rules: depth_book_kernels.py."""

from __future__ import annotations

import math

import numpy as np

from tasks.depth_batches import BID, MAX_DIGITS, NO_ID, PRICE_DIGITS, DepthBatch
from tasks.errors import BookError
from tasks.reconstruction.depth_book_kernels import BEST, BOOK_STATE, COUNT, LAST_ID, REASON, STATUS, WORST, Book, Image, move_levels, read_image
from tasks.reconstruction.depth_price_kernels import Scale, Written, fill_table, move_ranks, places_in, scale_updates, unknown_prices
from tasks.schemas import NO_BOOK, REASONS, UNDEF_PRICE

# Prices between the outermost ones of the book and the batch are made known in advance, tick by tick, while they are no more than this: new prices
# in most batches of a market that moves cost as much as all else (measured: 29 ns an update without, 18 with).
MOST_TICKS = 8_192
# Otherwise: known prices beyond which those without a level are forgotten, in multiples of the levels and at least.
PRICES_PER_LEVEL = 8
LEAST_PRICES = 4_096
LEAST_ROOM = 64
SLOTS_PER_PRICE = 4
_LARGEST = UNDEF_PRICE - 1


class ScaleTooSmall(Exception):
    """An update has more decimals than the book's scale. price_digits, size_digits: the least scale that takes all updates so far and this batch.

    Nothing of the batch was applied; the caller starts again with that scale.
    """

    def __init__(self, price_digits: int, size_digits: int) -> None:
        super().__init__(price_digits, size_digits)
        self.price_digits, self.size_digits = price_digits, size_digits


class DepthBook:
    """One book of price levels. `arrays` is the kernels' namedtuple; it is replaced when prices come to it."""

    def __init__(self, price_digits: int, size_digits: int) -> None:
        self.price_digits, self.size_digits = price_digits, size_digits
        self._scale = Scale(*_factors(price_digits), *_factors(size_digits))
        self._table = np.zeros((64, 2), np.int64)
        self._tick = 0  # greatest common divisor of all prices met
        self._rank, self._size = np.zeros(0, np.int32), np.zeros(0, np.int64)
        self.arrays = _empty(np.zeros(0, np.int64))
        state = self.arrays.state
        state[STATUS], state[REASON], state[LAST_ID] = NO_BOOK, REASONS.index("no_snapshot"), NO_ID

    def take(self, batch: DepthBatch) -> tuple[np.ndarray, np.ndarray]:
        """rank int32[m] and size int64[m] of a batch's updates at the book's scale, valid until the next call; makes room for new prices.

        Raises ScaleTooSmall, or BookError for a value that no 64-bit integer holds at this scale; the book is as it was then.
        """
        m = len(batch.side)
        if len(self._rank) < m:
            self._rank, self._size = np.zeros(m, np.int32), np.zeros(m, np.int64)
        rank, size = self._rank[:m], self._size[:m]
        written = Written(batch.price, batch.size, batch.price_digits, batch.size_digits)
        unknown, refused, price_digits, size_digits = scale_updates(self._table, written, self._scale, rank, size)
        if refused >= 0:
            price_digits, size_digits = batch.price_digits.max(), batch.size_digits.max()
        if price_digits > self.price_digits or size_digits > self.size_digits:
            raise ScaleTooSmall(max(self.price_digits, int(price_digits)), max(self.size_digits, int(size_digits)))
        if refused >= 0:
            raise BookError(self._explain(batch, refused))
        if unknown:
            self._widen(written, rank, unknown)
        return rank, size

    def _widen(self, written: Written, rank: np.ndarray, unknown: int) -> None:
        """Take the prices of the updates with an UNKNOWN rank into the list; every level moves to its new place, and `rank` follows."""
        new = np.zeros(unknown, np.int64)
        unknown_prices(written, self._scale, rank, new)
        old, met = self.arrays, rank[rank >= 0]
        new = np.unique(new)
        self._tick = math.gcd(self._tick, int(np.gcd.reduce(new)))
        prices = self._ladder(new, met)
        if prices is None:
            prices = np.union1d(self._kept(met), new)
        moved = np.zeros(len(old.prices), np.int32)
        places_in(prices, old.prices, moved)
        self.arrays = _empty(prices)
        move_levels(old, self.arrays, moved)
        slots = 64
        while slots < SLOTS_PER_PRICE * len(prices):
            slots *= 2
        self._table = np.zeros((slots, 2), np.int64)
        fill_table(self._table, prices)
        move_ranks(self._table, written, self._scale, moved, rank)

    def _ladder(self, new: np.ndarray, met: np.ndarray) -> np.ndarray | None:
        """All ticks around the book and the batch, with room on both sides; None when they are too many. met: known ranks of the batch."""
        state, width = self.arrays.state, len(self.arrays.prices)
        ranks = [int(met.min()), int(met.max())] if len(met) else []
        for side in range(2):
            if state[COUNT + side]:
                edges = int(state[BEST + side]), int(state[WORST + side])
                ranks += [width - 1 - place for place in edges] if side == BID else edges
        ends = [int(new[0]), int(new[-1]), *(int(self.arrays.prices[rank]) for rank in ranks)]
        low, high = min(ends), max(ends)
        room = (high - low) // (2 * max(self._tick, 1)) + LEAST_ROOM
        low, high = low - room * self._tick, high + room * self._tick
        if self._tick == 0 or (high - low) // self._tick >= MOST_TICKS or low < -_LARGEST or high > _LARGEST or high - low > _LARGEST:
            return None
        return np.arange(low, high + 1, self._tick, dtype=np.int64)

    def _kept(self, met: np.ndarray) -> np.ndarray:
        """The known prices that stay known: those of the book, and of this batch, when they have become too many."""
        old = self.arrays
        if len(old.prices) <= max(LEAST_PRICES, PRICES_PER_LEVEL * int(old.state[COUNT : COUNT + 2].sum())):
            return old.prices
        live = (old.size[1] != 0) | (old.size[0, ::-1] != 0)
        live[met] = True
        return old.prices[live]

    def _explain(self, batch: DepthBatch, update: int) -> str:
        i = int(np.searchsorted(batch.first, update, side="right")) - 1
        price, size = int(batch.price[update]), int(batch.size[update])
        pd, sd = int(batch.price_digits[update]), int(batch.size_digits[update])
        where = f"Line {int(batch.line[i]):,} (from 0; byte {int(batch.offset[i]):,}, update id {int(batch.update_id[i])})"
        if size < 0:
            return f"{where}: a level of size {size} x 10^-{sd}; sizes are 0 or more. Set the line aside and run again."
        name, value, digits, scale = "price", price, pd, self.price_digits
        if abs(price) <= self._scale.price_limit[pd]:
            name, value, digits, scale = "size", size, sd, self.size_digits
        told = f"{where}: {name} {value} x 10^-{digits} does not fit 64 bits in units of 10^-{scale}, the largest is {_LARGEST}."
        if name == "price" and scale <= PRICE_DIGITS:
            return f"{told} Prices have no larger units: set the line aside if it is wrong, and run again; else leave the pair out (--pairs)."
        return f"{told} Another line of the file has {name}s with so many decimals; set one of both lines aside and run again."

    def levels(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """px, sz int64[k] of all levels of a side (0 bid, 1 ask), best first."""
        image = new_image(int(self.arrays.state[COUNT : COUNT + 2].max()))
        read_image(self.arrays, image)
        count = int(image.count[side])
        return image.px[side, :count], image.sz[side, :count]


def new_image(room: int) -> Image:
    """Room for so many levels a side."""
    return Image(np.zeros((2, room), np.int64), np.zeros((2, room), np.int64), np.full((2, room), -1, np.int64), np.zeros(2, np.int64))


def _empty(prices: np.ndarray) -> Book:
    width = len(prices)
    state = np.zeros(BOOK_STATE, np.int64)
    state[BEST : BEST + 2], state[WORST : WORST + 2] = width, -1
    return Book(prices, np.zeros((2, width), np.int64), np.zeros((2, width), np.uint8), np.zeros((2, width), np.uint8), state)


def _factors(digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Factor and largest value int64[256] by the decimals that a value was written with."""
    if not 0 <= digits <= MAX_DIGITS:
        raise ValueError(f"a scale of {digits} decimals; 0 to {MAX_DIGITS} are allowed")
    factor = np.ones(256, np.int64)
    factor[: digits + 1] = [10 ** (digits - written) for written in range(digits + 1)]
    return factor, _LARGEST // factor
