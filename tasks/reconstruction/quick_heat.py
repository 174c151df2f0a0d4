"""`QuickHeat`: from batches of events straight to a heatmap grid and the trades over it, in one replay. No files, no lake.

The heatmap of a lake knows first and last time and the touch's range before it paints; here they come out at the end, so more is painted than wanted:
- Time: where the caller knows the span, the columns are the wanted ones from the start and the means exact. Else they are short at first and are
  joined in pairs (exact: they are equally long) whenever more than 2 * width would be needed; at the end width to 2 * width of them hold data, and
  are averaged over the wanted columns by the share that these cover of each. That is exact as well, but for a size that changed within a column
  which the edge of a wanted one cuts: it is spread over that column, which is no longer than a wanted one. Nothing is lost or doubled by it.
  The touch is that at the end of the last painted column before a wanted one's end.
- Price: BINS bins of a tick, the touch in the middle; of several ticks where BINS would not reach a price's REACH-th to both sides. When the touch
  comes near an edge the bins are shifted, or joined in pairs where its range fills half of them. What rested outside of the bins until then is not
  on the picture: its corners may be empty where prices ran further than BINS / 2 ticks.
What the picture does not need is cut off by the rule of the lake's: the touch's range weighted by time, and a margin.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from tasks.errors import BookBroken
from tasks.heatmap_grid import HeatmapGrid
from tasks.reconstruction import quick_heat_kernels as k
from tasks.reconstruction.book import OrderBook
from tasks.reconstruction.book_kernels import BROKEN
from tasks.schemas import F_LAST, F_SNAPSHOT, REASONS, STATUSES, UNDEF_PRICE, VALID

BINS = 1_024
REACH = 100  # the bins hold at least a price's 100th on each side of the first touch: a day's move of most markets
MARGIN_TICKS = 20
EDGE = BINS // 8  # bins between the touch and the edge below which the bins move
_SHARES = (0.005, 0.995)  # of the time that the touch stood anywhere, as for a lake
_FINER = 8  # columns at the start against those that an expected end asks for: data may end long before what a header promises
_TRADED = ("price", "size", "side")
Trades = list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]  # time ns, price, size, side code; in batches


class QuickHeat:
    """Feed batches in order, then ask for the grid.

    width columns, at most `height` bins; clock "ts_recv" or "ts_event"; span: first and last time ns, where known; expected_end: a time that the
    data will hardly pass, where told; starts_empty: the book is valid from the start; halts: N records with a price tell the trading state.
    """

    def __init__(
        self, width: int, height: int, *, clock: str = "ts_recv", span: tuple[int, int] | None = None, expected_end: int | None = None,
        starts_empty: bool = False, halts: bool = False, batch_rows: int = 16_384,
    ) -> None:  # fmt: skip
        self.book = OrderBook(starts_empty=starts_empty)
        self._width, self._height, self._clock, self._span, self._expected_end = width, height, clock, span, expected_end
        self._halts = halts
        self.moves = 0  # times that the bins were shifted or joined
        self._rank = np.zeros(batch_rows, np.int32)
        self._first: int | None = None  # clock of the first event end
        self._low = self._step = self._tick = 0
        self._prices = self.book.arrays.prices
        notes = np.zeros(k.NOTES, np.int64)
        notes[[k.LAST_END, k.SEEN_STATUS, k.SEEN_REASON, k.PLACE, k.PLACE + 1, k.HIGHEST]] = -1
        notes[[k.TOUCH, k.TOUCH + 1]], notes[k.LOWEST] = UNDEF_PRICE, BINS
        notes[k.WHOLE] = 1
        # Until there is a price: no columns.
        self._canvas = k.Canvas(
            plane=np.zeros((0, 2, BINS), np.float32), integral=np.zeros((2, BINS)), held=np.zeros((2, BINS), np.int64), seen=np.zeros(0, np.int64),
            bin_of=np.zeros(0, np.int32), edges=np.zeros(1, np.int64), touch=np.zeros((0, 2), np.int64), rested=np.zeros((2, BINS)),
            spans=np.zeros((64, 3), np.int64), trades=np.zeros(batch_rows, np.int32), notes=notes,
        )  # fmt: skip
        self._traded: Trades = []

    def feed(self, columns: dict[str, np.ndarray], marks: np.ndarray) -> None:
        """Apply one batch of event columns, of any stride, n <= batch_rows; marks int64[m]: rows before which a bad one stood. Raises BookBroken."""
        n = len(columns["price"])
        if n == 0:
            return
        self.book.ranks(columns["price"], self._rank[:n])
        self._follow_ladder()
        rows = k.Rows(
            action=columns["action"], side=columns["side"], flags=columns["flags"], rank=self._rank[:n], size=columns["size"],
            order_id=columns["order_id"], clock=columns[self._clock], snapshot_clock=columns["ts_recv"], marks=marks,
        )  # fmt: skip
        at = 0
        if not self._step:
            at = self._begin(columns, rows, n)
        self._paint(rows, at, n)
        self._take_trades(columns)
        if self.book.arrays.state[BROKEN]:
            raise BookBroken("A level of the book is not the sum of its orders. This is a fault of Bookmill: please report it with the file.")
        if self._step:
            self._stay_near()

    def _begin(self, columns: dict[str, np.ndarray], rows: Any, n: int) -> int:
        """Replay to the first event end, and lay out bins and columns as soon as there are prices. Returns the records applied."""
        ends = np.flatnonzero(columns["flags"] & F_LAST)
        if not len(ends):
            return 0
        stop = int(ends[0]) + 1
        self._paint(rows, 0, stop)
        notes = self._canvas.notes
        if self._first is None:
            self._first = int(notes[k.NOW])
        prices = columns["price"]
        prices = prices[prices != UNDEF_PRICE]
        if not len(prices):
            return stop
        touch = notes[[k.TOUCH, k.TOUCH + 1]]
        known = touch[touch != UNDEF_PRICE]
        middle = int(known[0] + (known[-1] - known[0]) // 2) if len(known) else int(np.sort(prices)[len(prices) // 2])
        self._lay_bins(prices, middle)
        self._lay_columns(columns, n)
        edges, now = self._canvas.edges, max(int(notes[k.NOW]), int(self._canvas.edges[0]))
        column = int(np.searchsorted(edges, now, side="right")) - 1
        k.write_columns(self._canvas, min(column, len(edges) - 1))
        k.look_at_all(self.book.arrays, self._canvas, float(edges[column + 1] - now) if column < len(edges) - 1 else 0.0)
        return stop

    def _lay_bins(self, prices: np.ndarray, middle: int) -> None:
        half = np.sort(prices)[[len(prices) // 4, len(prices) * 3 // 4]]
        reach = max(abs(middle) // REACH, int(half[1]) - int(half[0]))  # the prices of a spread stand round 0
        near = np.unique(prices[np.abs(prices - middle) <= 4 * reach])
        near = near if len(near) > 1 else np.unique(prices)
        self._tick = int(np.gcd.reduce(np.diff(near))) if len(near) > 1 else max(abs(middle) // 10_000, 1)
        self._step = max(-(-reach // (BINS // 2 * self._tick)), 1) * self._tick
        anchor = int(near[0]) if len(near) else middle
        self._low = anchor + ((middle - anchor) // self._tick) * self._tick - BINS // 2 * self._step - self._tick // 2
        self._follow_ladder(True)
        self._canvas.seen[:] = 0

    def _lay_columns(self, columns: dict[str, np.ndarray], n: int) -> None:
        if self._span is not None:
            first, last = self._span
            edges = _even_edges(first, last, self._width)
        else:
            assert self._first is not None
            clock = np.where(columns["flags"] & F_SNAPSHOT, columns["ts_recv"], columns[self._clock])
            span = max(int(clock.max()) - self._first, 1)
            if self._expected_end is not None and self._expected_end > self._first:
                span = max(span, (self._expected_end - self._first) // _FINER)
            edges = self._first + np.arange(2 * self._width + 1) * -(-span // (2 * self._width))
        count = len(edges) - 1
        self._canvas.notes[k.COLUMN] = 0
        self._canvas = self._canvas._replace(plane=_plane(count), edges=edges, touch=np.full((count, 2), UNDEF_PRICE))

    def _paint(self, rows: Any, at: int, stop: int) -> None:
        while at < stop:
            code, at = k.paint(rows, at, stop, self.book.arrays, self._canvas, self._halts)
            if code == k.POOL_FULL:
                self.book.grow_pool()
            elif code == k.SPANS_FULL:
                spans = self._canvas.spans
                self._canvas = self._canvas._replace(spans=np.concatenate([spans, np.zeros_like(spans)]))
            elif code == k.NO_COLUMNS:
                k.write_columns(self._canvas, len(self._canvas.edges) - 1)
                if self._span is None:
                    self._join_columns()

    def _join_columns(self) -> None:
        canvas, notes = self._canvas, self._canvas.notes
        count = len(canvas.edges) - 1
        k.merge_columns(canvas.plane, canvas.touch, count, min(int(notes[k.LOWEST]), BINS), int(notes[k.HIGHEST]) + 1)
        length = 2 * int(canvas.edges[1] - canvas.edges[0])
        canvas.edges[:] = canvas.edges[0] + np.arange(count + 1) * length
        notes[k.COLUMN] = count // 2
        canvas.integral[:] = canvas.held * float(length)

    def _follow_ladder(self, bins_moved: bool = False) -> None:
        """Bring what is kept for each level to a ladder that grew."""
        prices, old, canvas = self.book.arrays.prices, self._prices, self._canvas
        if prices is old and not bins_moved:
            return
        width, seen = len(prices), np.zeros(2 * len(prices), np.int64)
        if len(canvas.seen):
            ranks = np.searchsorted(prices, old)
            seen[ranks], seen[width + (width - 1 - ranks)[::-1]] = canvas.seen[: len(old)], canvas.seen[len(old) :]
            for side in range(2):
                place = int(canvas.notes[k.PLACE + side])
                if place >= 0:
                    canvas.notes[k.PLACE + side] = ranks[place] if side == 0 else 2 * width - 1 - ranks[2 * len(old) - 1 - place]
        bin_of = np.full(2 * width, k.BELOW, np.int32)
        if self._step:
            k.place_levels(prices, self._low, self._step, BINS, bin_of)
        self._prices, self._canvas = prices, canvas._replace(seen=seen, bin_of=bin_of)

    def _stay_near(self) -> None:
        """Move the bins, or make them higher, when the touch comes near their edges."""
        canvas, notes = self._canvas, self._canvas.notes
        places = notes[[k.PLACE, k.PLACE + 1]]
        rows = [int(canvas.bin_of[place]) for place in places if place >= 0]
        if len(rows) < 2 or all(EDGE <= row < BINS - EDGE for row in rows):
            return
        touch = [(int(notes[k.TOUCH + side]) - self._low) // self._step for side in range(2)]
        if max(touch) - min(touch) > BINS // 4:  # a book with hardly an order in it: not where the market is
            return
        standing = _range_of(canvas.rested)
        low, high = (min(standing[0], *touch), max(standing[1], *touch)) if standing else (min(touch), max(touch))
        per_bin = 2 if high - low > BINS - 4 * EDGE else 1
        if per_bin == 1 and high - low > BINS - 2 * EDGE:
            return
        offset = (per_bin * BINS - (high + low)) // 2
        self._move(offset, per_bin)

    def _move(self, offset: int, per_bin: int) -> None:
        if offset == 0 and per_bin == 1:
            return
        self.moves += 1
        canvas, notes = self._canvas, self._canvas.notes
        if notes[k.COLUMN]:
            k.move_bins(canvas.plane, int(notes[k.COLUMN]), offset, per_bin, np.zeros(BINS, np.float32))
        to = (np.arange(BINS) + offset) // per_bin
        kept = (to >= 0) & (to < BINS)
        for array in (canvas.integral, canvas.held):
            before = array.copy()
            array[:] = 0
            for side in range(2):
                np.add.at(array[side], to[kept], before[side, kept])
        before = canvas.rested.copy()
        canvas.rested[:] = 0
        for side in range(2):
            np.add.at(canvas.rested[side], np.clip(to, 0, BINS - 1), before[side])
        notes[k.LOWEST], notes[k.HIGHEST] = 0, BINS - 1
        self._low, self._step = self._low - offset * self._step, self._step * per_bin
        outside = canvas.bin_of < 0
        self._follow_ladder(True)
        self._canvas.seen[outside & (self._canvas.bin_of >= 0)] = 0
        notes[k.WHOLE] = 1  # what came into the bins is taken over at the next event end

    def _take_trades(self, columns: dict[str, np.ndarray]) -> None:
        notes = self._canvas.notes
        if count := int(notes[k.TRADES]):
            index = self._canvas.trades[:count]
            price, size, side = (columns[name][index] for name in _TRADED)
            self._traded.append((columns[self._clock][index].astype(np.int64), price, size, side))
            notes[k.TRADES] = 0

    def trades(self) -> Trades:
        """(time ns, price, size, side code) of the trades so far, batch by batch."""
        return list(self._traded)

    def finish(self) -> HeatmapGrid | None:
        """The picture up to the last complete event; None when there was never a touch. Nothing can be fed after it."""
        canvas, notes = self._canvas, self._canvas.notes
        if not self._step or self._first is None:
            return None
        last = max(int(notes[k.LAST_END]), int(canvas.edges[0]) + 1)
        for side in range(2):
            place = int(notes[k.PLACE + side])
            if place >= 0:
                row = int(canvas.bin_of[place])
                canvas.rested[side, {k.BELOW: 0, k.ABOVE: BINS - 1}.get(row, row)] += last - int(notes[k.SINCE + side]) + 1
        standing = _range_of(canvas.rested)
        if standing is None:
            return None
        wanted = canvas.edges if self._span is not None else _even_edges(int(canvas.edges[0]), last, self._width)
        used = self._close(max(last, int(wanted[-1])))
        low, per_bin, bins = self._cut(*standing)
        out = np.empty((self._width, 2, bins), np.float32)
        k.resample(canvas.plane[:used], canvas.edges[: used + 1], wanted, low, per_bin, out)
        ends = np.searchsorted(canvas.edges[1 : used + 1], wanted[1:], side="right") - 1
        touch = np.where(ends[:, None] >= 0, canvas.touch[ends], UNDEF_PRICE)
        base, step = self._low + low * self._step, per_bin * self._step
        self._canvas = canvas._replace(plane=canvas.plane[:0].copy())  # the largest part of all memory
        del canvas
        return HeatmapGrid(
            bids=out[:, 0].T, asks=out[:, 1].T, time_edges=wanted, price_edges=base + step * np.arange(bins + 1, dtype=np.int64),
            bid_px=touch[:, 0].copy(), ask_px=touch[:, 1].copy(), spans=self._spans(int(wanted[-1])), axis="time",
            ticks=max(step // self._tick, 1),
        )  # fmt: skip

    def _close(self, end: int) -> int:
        """Write all columns to `end`, the last one only as far as that; returns how many there are."""
        canvas, count = self._canvas, len(self._canvas.edges) - 1
        column = int(canvas.notes[k.COLUMN])
        if self._span is not None:
            k.write_columns(canvas, count)
            return count
        last = min(int(np.searchsorted(canvas.edges, end, side="left")), count)
        k.write_columns(canvas, max(last - 1, column))
        column = int(canvas.notes[k.COLUMN])
        if column < count and end > canvas.edges[column]:
            canvas.integral[:] -= canvas.held * float(canvas.edges[column + 1] - end)
            canvas.edges[column + 1] = end
            k.write_columns(canvas, column + 1)
        return int(canvas.notes[k.COLUMN])

    def _cut(self, first: int, last: int) -> tuple[int, int, int]:
        """(first bin of the picture, bins joined into one, how many of these)."""
        low, high = first * self._step, last * self._step
        margin = max(MARGIN_TICKS * self._tick, (high - low) // 5)
        bins = (high - low + 2 * margin) // self._step + 1
        per_bin = -(-bins // self._height)
        return (low - margin) // self._step, per_bin, -(-bins // per_bin)

    def _spans(self, end: int) -> tuple[tuple[int, int, str, str], ...]:
        rows = self._canvas.spans[: int(self._canvas.notes[k.SPANS])].tolist()
        ends = [*(row[0] for row in rows[1:]), end]
        return tuple(
            (start, stop, STATUSES[status], REASONS[reason]) for (start, status, reason), stop in zip(rows, ends, strict=True) if status != VALID
        )

    @property
    def edges(self) -> np.ndarray:
        """int64[columns + 1] ns: the columns that were painted, final after `finish`."""
        return self._canvas.edges[: int(self._canvas.notes[k.COLUMN]) + 1]

    @property
    def status(self) -> tuple[str, str]:
        """(status, reason) of the book after the last complete event."""
        notes = self._canvas.notes
        return STATUSES[notes[k.SEEN_STATUS]], REASONS[notes[k.SEEN_REASON]]


def _range_of(rested: np.ndarray) -> tuple[int, int] | None:
    """First and last bin of the touch's range, weighted by time; None when there was no touch."""
    share = np.cumsum(rested.sum(axis=0))
    if share[-1] <= 0:
        return None
    low, high = np.searchsorted(share, np.array(_SHARES) * share[-1])
    return int(low), min(int(high), BINS - 1)


def _plane(columns: int) -> np.ndarray:
    """Zeros float32[columns, 2, BINS] whose middle bins lie in the middle of a page: memory that is never written is never taken, and most books
    have orders in the middle half only. Mapped, because NumPy asks for pages of 2 MB."""
    first = mmap.PAGESIZE - BINS // 4 * 4 % mmap.PAGESIZE
    memory = mmap.mmap(-1, columns * 2 * BINS * 4 + mmap.PAGESIZE)
    return np.frombuffer(memory, np.float32, columns * 2 * BINS, first).reshape(columns, 2, BINS)


def _even_edges(first: int, last: int, width: int) -> np.ndarray:
    """int64[width + 1], as the lake's pictures have them."""
    return np.linspace(0, max(last - first, width), width + 1).astype(np.int64) + first
