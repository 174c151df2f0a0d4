"""Where times and prices stand on a picture: tick lattice of a grid, round axis ticks, exact labels. Integers in, positions and text out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from tasks.heatmap_grid import HeatmapGrid
from tasks.schemas import PRICE_SCALE, UNDEF_PRICE

_SECOND = 1_000_000_000
_TIME_STEPS = (
    *(m * 10**k for k in range(9) for m in (1, 2, 5)),
    *(s * _SECOND for s in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400, 172800, 604800)),
)


# ts int64[n] ns, price int64[n] 1e-9, size int[n], side uint8[n] ASCII codes of the aggressor: B, A or N
TradeChunk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
# All trades of a picture in their order, some at a time; gone through several times.
Trades = Iterable[TradeChunk]
NO_TRADES: Trades = ()


@dataclass(frozen=True)
class TradeFacts:
    """What a picture says of all its trades. prices int64[2]: lowest and highest, empty without trades; sides: those of `side_index` that occur."""

    count: int
    volume: int
    prices: np.ndarray
    sides: frozenset[int]


def trade_facts(trades: Trades) -> TradeFacts:
    """The facts, from one pass."""
    count, volume, ends, sides = 0, 0, list[int](), set[int]()
    for _, price, size, side in trades:
        if len(price):
            count, volume = count + len(price), volume + int(np.sum(size, dtype=np.int64))
            ends += [int(price.min()), int(price.max())]
            sides |= set(side_index(np.unique(side)).tolist())
    return TradeFacts(count, volume, np.array([min(ends), max(ends)] if ends else [], np.int64), frozenset(sides))


@dataclass(frozen=True)
class Levels:
    """A grid cut to the price levels that its picture shows, lowest first.

    bids, asks float32[n, width]; prices int64[n] 1e-9, equally spaced by `step`; exact: prices are those of the feed (the grid resolves
    single ticks), otherwise each is the lower edge of a bin `step` wide.
    """

    bids: np.ndarray
    asks: np.ndarray
    prices: np.ndarray
    step: int
    exact: bool

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest price of the picture: bands centred on exact prices, else the bins themselves."""
        low = int(self.prices[0]) - (self.step // 2 if self.exact else 0)
        return low, low + self.step * len(self.prices)


def levels_of(grid: HeatmapGrid, prices: np.ndarray | None = None) -> Levels:
    """`grid` on its tick lattice where it has one, without the empty rows above and below.

    A grid finer than the tick fills single rows with empty ones between; drawn as it is that is a comb of hairlines. The tick is the
    greatest common divisor of the touch prices, or a part of it, and is believed only if every filled row holds a price of it.
    A grid whose rows hold several ticks of the feed is drawn as it is: no price of it is exact, on whatever round prices the touch stands.
    prices: int64[m] 1e-9, trade prices (the extremes are enough) that should stay in the picture; they may widen it by a tenth on each side.
    """
    used = np.flatnonzero((grid.bids != 0).any(axis=1) | (grid.asks != 0).any(axis=1))
    touch = np.unique(np.concatenate([grid.bid_px, grid.ask_px]))
    touch = touch[(touch != UNDEF_PRICE) & (touch >= grid.price_edges[0]) & (touch < grid.price_edges[-1])]
    row_step = int(grid.price_edges[1] - grid.price_edges[0])
    tick = int(np.gcd.reduce(np.diff(touch))) if len(touch) > 1 and grid.ticks == 1 else 0
    rows, level_prices, step, exact = np.arange(grid.bids.shape[0]), grid.price_edges[:-1], row_step, False
    for part in (1, 2, 4, 5, 10, 20, 25, 50, 100):
        if tick % part or tick // part < row_step:
            continue
        lattice, candidate = _lattice(grid.price_edges, int(touch[0]), tick // part)
        if np.isin(used, lattice).all():
            rows, level_prices, step, exact = lattice, candidate, tick // part, True
            break
    keep = _extent(np.flatnonzero(np.isin(rows, used)), level_prices, prices)
    rows, level_prices = rows[keep], level_prices[keep]
    return Levels(np.ascontiguousarray(grid.bids[rows]), np.ascontiguousarray(grid.asks[rows]), level_prices.astype(np.int64), step, exact)


def _lattice(edges: np.ndarray, anchor: int, tick: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a grid that hold a multiple of `tick` counted from `anchor`, and those prices."""
    first = anchor - (anchor - int(edges[0])) // tick * tick
    prices = np.arange(first, int(edges[-1]), tick, dtype=np.int64)
    return np.searchsorted(edges, prices, side="right") - 1, prices


def _extent(filled: np.ndarray, level_prices: np.ndarray, prices: np.ndarray | None) -> slice:
    """The levels to show: from the lowest to the highest filled one, the trades near them, and one more on each side."""
    if len(filled) == 0:
        return slice(0, len(level_prices))
    low, high = int(filled[0]), int(filled[-1])
    if prices is not None and len(prices):
        reach = max((high - low) // 10, 1)
        inside = np.searchsorted(level_prices, [prices.min(), prices.max()], side="right") - 1
        low, high = max(min(low, int(inside[0])), low - reach), min(max(high, int(inside[1])), high + reach)
    return slice(max(low - 1, 0), min(high + 2, len(level_prices)))


def column_position(grid: HeatmapGrid, ns: np.ndarray, width: int) -> np.ndarray:
    """float64: place of times `ns` on an axis `width` wide, linear in time within each column; outside the grid below 0 or above width."""
    start = int(grid.time_edges[0])
    edges = (grid.time_edges - start).astype(np.float64)
    places = np.linspace(0.0, width, len(edges))
    return np.interp((np.asarray(ns, np.int64) - start).astype(np.float64), edges, places, left=-1.0, right=width + 1.0)


def side_index(side: np.ndarray) -> np.ndarray:
    """int8: 0 bought (B), 1 sold (A), 2 not known."""
    return np.select([side == ord("B"), side == ord("A")], [0, 1], 2).astype(np.int8)


def decimals_of(*values: int) -> int:
    """Decimal places that write every one of `values` (1e-9 units) exactly."""
    for places in range(10):
        if all(value % 10 ** (9 - places) == 0 for value in values):
            return places
    return 9


def price_text(price: int, places: int) -> str:
    """`price` (1e-9) with `places` decimals, exact if decimals_of(price) <= places; integers only, never through a float."""
    sign, price = ("-" if price < 0 else ""), abs(int(price))
    whole, fraction = divmod(price, PRICE_SCALE)
    return f"{sign}{whole:,}" + (f".{fraction:09d}"[: places + 1] if places else "")


def time_text(ns: int, step_ns: int = 1) -> str:
    """UTC time of day of `ns`, with the digits that a step of `step_ns` needs."""
    seconds, fraction = divmod(int(ns), _SECOND)
    moment = datetime.fromtimestamp(seconds, UTC)
    if step_ns % (60 * _SECOND) == 0:
        return moment.strftime("%H:%M")
    digits = 0 if step_ns % _SECOND == 0 else 9 - next(k for k in range(9, -1, -1) if step_ns % 10**k == 0)
    return moment.strftime("%H:%M:%S") + (f".{fraction:09d}"[: digits + 1] if digits else "")


def date_text(ns: int) -> str:
    """UTC date of `ns`."""
    return datetime.fromtimestamp(int(ns) // _SECOND, UTC).strftime("%Y-%m-%d")


def time_ticks(start_ns: int, end_ns: int, most: int = 12) -> tuple[list[int], int]:
    """Round times in [start, end], at most about `most` of them, and their step in ns."""
    span = max(end_ns - start_ns, 1)
    step = next((s for s in _TIME_STEPS if span / s <= most), _TIME_STEPS[-1])
    first = -(-start_ns // step) * step
    return list(range(first, end_ns + 1, step)), step


def price_ticks(low: int, high: int, tick: int = 1, most: int = 16) -> list[int]:
    """Round prices (1e-9) in [low, high], at most about `most`, each a multiple of 1, 2, 2.5 or 5 times a power of ten.

    Of these steps the first that is also a multiple of `tick` is taken, where there is one.
    """
    wanted = max((high - low) / most, 1.0)
    power = 10 ** max(math.floor(math.log10(wanted)), 0)
    choices = [power * factor // 4 for factor in (4, 8, 10, 20, 40, 80, 100, 200, 400) if power * factor % 4 == 0 and power * factor // 4 >= wanted]
    step = next((c for c in choices if tick and c % tick == 0), choices[0])
    return list(range(-(-low // step) * step, high + 1, step))
