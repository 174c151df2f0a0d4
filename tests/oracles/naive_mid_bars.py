"""Bars and features of depth books the slow and obvious way: the touch is looked up anew at each point of time, sums are fractions.

Twin of tasks/aggregation/depth_bars.py, depth_features.py and their kernels.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from tests.oracles.naive_bars import WORSE

UNDEF_PRICE = 2**63 - 1
Span = tuple[int, int]


class Touch(NamedTuple):
    """A row of the touch layer."""

    as_of: int
    bid: int
    ask: int
    bid_size: int
    ask_size: int
    status: str
    reason: str
    since: int | None


NO_TOUCH = Touch(-1, UNDEF_PRICE, UNDEF_PRICE, 0, 0, "no_book", "no_snapshot", None)


def known(row: Touch) -> Touch:
    """The touch of a book that is not known is empty."""
    return row._replace(bid=UNDEF_PRICE, ask=UNDEF_PRICE, bid_size=0, ask_size=0) if row.status == "no_book" else row


def clocks(rows: list[Touch]) -> list[int]:
    return [max(row.as_of for row in rows[: k + 1]) for k in range(len(rows))]


def changed(rows: list[Touch]) -> list[bool]:
    return [known(row)[1:5] != known(before)[1:5] for before, row in pairwise([NO_TOUCH, *rows])]


def state_at(rows: list[Touch], silent: list[Span], ns: int) -> Touch:
    """The last row at or before `ns`; stale where it is valid and a silence has begun that no row has ended."""
    times = clocks(rows)
    row = known(([NO_TOUCH, *(r for r, t in zip(rows, times, strict=True) if t <= ns)])[-1])
    for start, end in silent:
        if start <= ns < min([end, *(t for t in times if start <= t)]) and row.status == "valid":
            return row._replace(status="stale", reason="silence", since=start)
    return row


def mid_bars(rows: list[Touch], windows: list[Span], silent: list[Span], interval: int, price_digits: int, size_digits: int) -> list[dict]:
    times = clocks(rows)
    edges = {t for span in (*windows, *silent) for t in span} | set(times)
    for start, end in windows:
        edges |= set(range(start - start % interval, end + interval, interval))
    pieces: dict[int, list[Span]] = {}
    for a, b in pairwise(sorted(edges)):
        if any(start <= a and b <= end for start, end in windows):
            pieces.setdefault(a // interval * interval, []).append((a, b))
    inside = {start: [k for k, t in enumerate(times) if any(a <= t < b for a, b in spans)] for start, spans in pieces.items()}
    moved = changed(rows)
    made = []
    for start, spans in sorted(pieces.items()):
        states = [(state_at(rows, silent, a), b - a) for a, b in spans]
        row = {"ts_event": start, "ts_close": start + interval, "changes": sum(moved[k] for k in inside[start])}
        made.append({**row, **status_of(states), **prices_of(states, 10**price_digits, 10**size_digits)})
    return made


def status_of(states: list[tuple[Touch, int]]) -> dict:
    worst = max((state.status for state, _ in states), key=WORSE.index)
    first = next(state for state, _ in states if state.status == worst)
    valid = sum(ns for state, ns in states if state.status == "valid")
    return {"status": worst, "reason": first.reason, "status_since": first.since, "valid_share": valid / sum(ns for _, ns in states)}


def prices_of(states: list[tuple[Touch, int]], price_units: int, size_units: int) -> dict:
    sided = [(state, ns) for state, ns in states if UNDEF_PRICE not in (state.bid, state.ask)]
    names = ("open", "high", "low", "close", "twap", "spread_mean", "bid_sz_mean", "ask_sz_mean")
    if not sided:
        return dict.fromkeys(names)
    mids = [Fraction(state.bid + state.ask, 2 * price_units) for state, _ in sided]

    def mean(values: list[Fraction]) -> Fraction:
        return sum((v * ns for v, (_, ns) in zip(values, sided, strict=True)), Fraction(0)) / sum(ns for _, ns in sided)

    values = (
        mids[0], max(mids), min(mids), mids[-1], mean(mids), mean([Fraction(s.ask - s.bid, price_units) for s, _ in sided]),
        mean([Fraction(s.bid_size, size_units) for s, _ in sided]), mean([Fraction(s.ask_size, size_units) for s, _ in sided]),
    )  # fmt: skip
    return dict(zip(names, map(float, values), strict=True))


Level = tuple[int, int, int, int]  # bid price, ask price, bid size, ask size


def book_features(levels: list[Level], price_digits: int, size_digits: int, bands: tuple[int, ...]) -> dict:
    """The features that describe the grid row's own book; all null when a side is empty."""
    names = ["spread", "mid", "microprice", "imbalance_1", "imbalance_n", "bid_depth", "ask_depth"]
    names += [f"{side}_depth_{bps}bps" for bps in bands for side in ("bid", "ask")]
    bid, ask, bid_size, ask_size = levels[0]
    if UNDEF_PRICE in (bid, ask):
        return dict.fromkeys(names)
    price, size = 10**price_digits, 10**size_digits
    sides = [[(row[k], row[k + 2]) for row in levels if row[k] != UNDEF_PRICE] for k in (0, 1)]
    bids, asks = (sum(s for _, s in side) for side in sides)
    mid, total = Fraction(bid + ask, 2), bid_size + ask_size
    out = {
        "spread": Fraction(ask - bid, price), "mid": mid / price, "microprice": Fraction(bid * ask_size + ask * bid_size, total * price),
        "imbalance_1": Fraction(bid_size - ask_size, total), "imbalance_n": Fraction(bids - asks, bids + asks),
        "bid_depth": Fraction(bids, size), "ask_depth": Fraction(asks, size),
    }  # fmt: skip
    for bps in bands:
        for name, side in zip(("bid", "ask"), sides, strict=True):
            near = sum(s for p, s in side if abs(p - mid) * 10_000 <= bps * abs(mid))
            out[f"{name}_depth_{bps}bps"] = Fraction(near, size)
    return {name: float(value) for name, value in out.items()}


def changes_in(rows: list[Touch], grid: list[int], interval: int) -> list[int]:
    moved = [t for t, is_changed in zip(clocks(rows), changed(rows), strict=True) if is_changed]
    return [sum(now - interval < t <= now for t in moved) for now in grid]


def silences(messages: list[int], grid: list[int], interval: int, stale_after: int) -> list[Span]:
    """Silences as a grid can know of them: at T the last message is older than the limit; over with the next message or an interval after T."""
    found: dict[int, int] = {}
    for now in grid:
        last = max((t for t in messages if t <= now), default=None)
        if last is not None and now - last > stale_after:
            found[last + stale_after] = now + interval
    seen = [max((t for t in messages if t <= now), default=0) for now in grid]
    return [(start, min([end, *(t for t in seen if start < t < end)])) for start, end in sorted(found.items())]
