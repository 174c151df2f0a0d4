"""Bars the slow and obvious way: Python integers, one list per bar. Twin of tasks/aggregation/bar_kernels.py and bars.py."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import NamedTuple

UNDEF_PRICE = 2**63 - 1
WORSE = ["valid", "stale", "halted", "suspect", "no_book"]


class Trade(NamedTuple):
    ts_event: int
    ts_recv: int
    price: int
    size: int
    side: str
    status: str
    reason: str = ""
    status_since: int = 0


def time_bars(trades: list[Trade], interval: int, clock: str) -> list[dict]:
    buckets: dict[int, list[Trade]] = {}
    for trade in trades:
        ts = getattr(trade, clock)
        buckets.setdefault(floor(Fraction(ts, interval)) * interval, []).append(trade)
    return [summary(buckets[start], start, start + interval) for start in sorted(buckets)]


def activity_bars(trades: list[Trade], kind: str, size: int, clock: str) -> tuple[list[dict], bool]:
    """The bars, and whether the last one is unfinished."""
    bars, members = [], []
    for trade in trades:
        members.append(trade)
        spent = {
            "tick": Fraction(len(members)),
            "volume": Fraction(sum(t.size for t in members)),
            "dollar": sum((Fraction(abs(t.price) * t.size, 10**9) for t in members), Fraction(0)),
        }[kind]
        if spent >= size:
            bars.append(members)
            members = []
    is_open = bool(members)
    return [summary(m, getattr(m[0], clock), getattr(m[-1], clock)) for m in bars + [members] * is_open], is_open


def summary(trades: list[Trade], start: int, end: int) -> dict:
    prices = [t.price for t in trades]
    volume = sum(t.size for t in trades)
    worst = max((t.status for t in trades), key=WORSE.index)
    first = next(t for t in trades if t.status == worst)
    return {
        "ts_event": start,
        "ts_close": end,
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": volume,
        "vwap": floor(Fraction(sum(t.price * t.size for t in trades), volume) + Fraction(1, 2)) if volume else UNDEF_PRICE,
        "trades": len(trades),
        "buy_volume": sum(t.size for t in trades if t.side == "B"),
        "sell_volume": sum(t.size for t in trades if t.side == "A"),
        "valid_share": sum(t.status == "valid" for t in trades) / len(trades),
        "status": worst,
        "reason": first.reason,
        "status_since": first.status_since,
    }
