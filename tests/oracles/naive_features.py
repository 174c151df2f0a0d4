"""Features and trade signs the slow and obvious way: every grid row looks through all events anew. Twin of tasks/aggregation/feature_kernels.py,
features.py and tasks/reconstruction/trade_sign_kernels.py.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

UNDEF_PRICE = 2**63 - 1


class Quote(NamedTuple):
    ts_event: int
    as_of: int
    bid: int
    ask: int
    bid_size: int
    ask_size: int
    status: str
    fresh: bool = False  # made by a snapshot, or at the start of a window: does not follow from the row before


class Print(NamedTuple):
    ts_event: int
    ts_recv: int
    price: int
    size: int
    side: str
    method: str


class Grid(NamedTuple):
    ts: int
    levels: list[tuple[int, int, int, int]]  # bid price, ask price, bid size, ask size


def seen(rows: list, clock: str) -> list[int]:
    """When each row could first be known: the greatest clock value so far."""
    times = [getattr(row, clock) for row in rows]
    return [max(times[: k + 1]) for k in range(len(times))]


def features(grid: list[Grid], quotes: list[Quote], prints: list[Print], interval: int, clock: str) -> list[dict]:
    quote_times, print_times = seen(quotes, "as_of"), seen(prints, clock)
    flows, returns = [flow(quotes, k) for k in range(len(quotes))], [squared_return(quotes, k) for k in range(len(quotes))]
    rows = []
    for point in grid:
        inside = [k for k, t in enumerate(quote_times) if point.ts - interval < t <= point.ts]
        before = [(p, t) for p, t in zip(prints, print_times, strict=True) if t <= point.ts and p.price != UNDEF_PRICE]
        traded = [p for p, t in before if t > point.ts - interval]
        rows.append(
            {
                **of_book(point.levels),
                "ts_event": point.ts,
                "ofi": sum(flows[k] for k in inside),
                "realised_vol": math.sqrt(math.fsum(returns[k] for k in inside)),
                "trades": len(traded),
                "volume": sum(p.size for p in traded),
                "signed_volume": sum(p.size * {"B": 1, "A": -1, "N": 0}[p.side] for p in traded),
                "last_side": before[-1][0].side if before else "N",
                "last_side_method": before[-1][0].method if before else "none",
            }
        )
    return rows


def of_book(levels: list[tuple[int, int, int, int]]) -> dict:
    bid, ask, bid_size, ask_size = levels[0]
    sided = bid != UNDEF_PRICE and ask != UNDEF_PRICE
    bids, asks = sum(level[2] for level in levels), sum(level[3] for level in levels)
    total = bid_size + ask_size
    return {
        "spread": ask - bid if sided else UNDEF_PRICE,
        "mid": float(Fraction(bid + ask, 2 * 10**9)) if sided else None,
        "microprice": float(Fraction(bid * ask_size + ask * bid_size, total * 10**9)) if sided and total else None,
        "imbalance_1": float(Fraction(bid_size - ask_size, total)) if total else None,
        "imbalance_n": float(Fraction(bids - asks, bids + asks)) if bids + asks else None,
    }


def flow(quotes: list[Quote], k: int) -> int:
    """e_k of Cont, Kukanov and Stoikov (2014)."""
    if k == 0 or quotes[k].fresh or "no_book" in (quotes[k].status, quotes[k - 1].status):
        return 0
    (pb, qb, pa, qa), (pb0, qb0, pa0, qa0) = touch(quotes[k]), touch(quotes[k - 1])
    return (pb >= pb0) * qb - (pb <= pb0) * qb0 - (pa <= pa0) * qa + (pa >= pa0) * qa0


def touch(quote: Quote) -> tuple:
    bid = (-math.inf, 0) if quote.bid == UNDEF_PRICE else (quote.bid, quote.bid_size)
    ask = (math.inf, 0) if quote.ask == UNDEF_PRICE else (quote.ask, quote.ask_size)
    return *bid, *ask


def mid(quote: Quote) -> Fraction | None:
    """The mid that a return can start or end at."""
    if UNDEF_PRICE in (quote.bid, quote.ask) or quote.bid + quote.ask <= 0:
        return None
    return Fraction(quote.bid + quote.ask, 2)


def squared_return(quotes: list[Quote], k: int) -> float:
    if quotes[k].fresh or quotes[k].status == "no_book" or mid(quotes[k]) is None:
        return 0.0
    for earlier in range(k - 1, -1, -1):
        if quotes[earlier].status == "no_book":
            break
        if mid(quotes[earlier]) is not None:
            return math.log1p(float(mid(quotes[k]) / mid(quotes[earlier]) - 1)) ** 2
        if quotes[earlier].fresh:
            break
    return 0.0


def signs(trades: list[tuple[str, int, int, int]]) -> list[tuple[str, str]]:
    """(side, method) of each (side, price, bid, ask): feed, else quote rule, else tick rule."""
    out = []
    for k, (side, price, bid, ask) in enumerate(trades):
        if side in "AB":
            out.append((side, "feed"))
            continue
        if price == UNDEF_PRICE:
            out.append(("N", "none"))
            continue
        if UNDEF_PRICE not in (bid, ask) and 2 * price != bid + ask:
            out.append(("B" if 2 * price > bid + ask else "A", "quote"))
            continue
        different = [p for _, p, _, _ in trades[:k] if p not in (price, UNDEF_PRICE)]
        out.append(("B" if price > different[-1] else "A", "tick") if different else ("N", "none"))
    return out
