"""The state that a generated session starts from and what it can say at its end. Kernels change it; synthetic.py streams it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.scanning import synthetic_book_kernels as k
from tasks.scanning.synthetic_clock_kernels import EVENTS_PER_RECORD, FAIR
from tasks.scanning.synthetic_kernels import MAX_FILLS
from tasks.schemas import UNDEF_PRICE

if TYPE_CHECKING:
    from tasks.scanning.synthetic import SessionSpec

FIRST_ORDER_ID = 6_412_777_000_000
FIRST_SEQUENCE = 680
FEWEST_ORDERS = 12  # a book starts with
# Ladder widths by the orders a book is to hold: 2,000 small books must not need the memory of 2,000 large ones (12 bytes a level).
WIDTHS = ((4_000, 4_096), (400, 1_024), (0, 256))


def new_market(spec: SessionSpec) -> k.Market:
    """Empty books at the start of a session. Book i * publishers + j is that of symbol i on publisher j."""
    publishers, ids = len(spec.publishers), spec.instrument_ids
    share = 1.0 / np.arange(1, len(spec.symbols) + 1) ** spec.zipf
    share /= share.sum()
    random = np.random.default_rng(spec.seed)
    relative = random.uniform(0.2, 2.0, len(share))
    relative[0] = 1.0

    books = np.zeros(len(share) * publishers, k.BOOK)
    fairs = np.zeros(len(share), FAIR)
    for i, part in enumerate(share):
        target = int(max(FEWEST_ORDERS, min(spec.live_orders * part / share[0], 0.1 * spec.records * part / publishers)))
        width = next(w for least, w in WIDTHS if target >= least)
        _start_fair(fairs[i], width, max(1.0, EVENTS_PER_RECORD * spec.records * part))
        middle = spec.open_price if i == 0 else int(spec.open_price * relative[i]) // spec.tick * spec.tick
        for j, publisher in enumerate(spec.publishers):
            book = books[i * publishers + j]
            book["capacity"], book["target"], book["width"] = 2 * target + 64, target, width
            book["bottom"], book["tick"], book["fair"] = middle - width // 2 * spec.tick, spec.tick, i
            book["instrument"], book["publisher"] = ids[i], publisher
            book["best_bid"], book["best_ask"] = -1, width
    books["first_order"] = np.cumsum(books["capacity"]) - books["capacity"]
    books["first_level"] = np.cumsum(books["width"]) - books["width"]
    levels = np.zeros(int(books["width"].sum()), k.LEVEL)
    levels["head"] = levels["tail"] = -1
    chance, alias = _walker(np.repeat(share / publishers, publishers))
    pool = k.Pool(np.zeros(int(books["capacity"].sum()), k.ORDER), levels, np.zeros(MAX_FILLS, np.int64))
    return k.Market(_state(spec, int(random.integers(1, 2**63))), pool, books, fairs, chance, alias)


def _start_fair(fair: np.void, width: int, events: float) -> None:
    """A fair value that crosses few enough levels for the order flow to keep up: about one in 200 events, in the largest sessions fewer."""
    fair["centre"] = fair["value"] = width / 2 + 0.5
    fair["limit"] = 0.2 * width
    fair["noise"] = min(0.05, 0.06 * width / events**0.5)
    fair["trend"] = min(0.0014, 0.3 * width / events)
    fair["leg"] = 1.0 + events / 16.0


def _state(spec: SessionSpec, random: int) -> np.ndarray:
    state = np.zeros(1, k.STATE)
    first = state[0]
    first["now"] = first["ts_recv"] = first["start"] = first["next_spell"] = spec.start_ns
    first["end"], first["total"] = spec.end_ns, spec.records
    first["order_id"], first["sequence"], first["left"], first["random"] = FIRST_ORDER_ID, FIRST_SEQUENCE, -1, random
    first["snapshot_start"], first["activity"] = spec.snapshot_start, 1.0
    first["clear_at"] = spec.records // 2 if spec.mid_clear else -1
    first["gap_at"], first["recover_at"] = (7 * spec.records // 10, 72 * spec.records // 100) if spec.gap else (-1, -1)
    # Bursts are short beside the mean distance of events, in the largest sessions too.
    first["decay"] = max(2_000.0, 20.0 * EVENTS_PER_RECORD * spec.records / (3_600.0 * spec.hours))
    return state


def _walker(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias table (1977): float64[n] chance and int64[n] alias that draw i with probability share[i] in one step."""
    chance, alias = share * len(share), np.arange(len(share))
    small, large = [i for i, c in enumerate(chance) if c < 1.0], [i for i, c in enumerate(chance) if c >= 1.0]
    while small and large:
        i, j = small.pop(), large[-1]
        alias[i] = j
        chance[j] -= 1.0 - chance[i]
        if chance[j] < 1.0:
            small.append(large.pop())
    chance[small + large] = 1.0  # rounding
    return chance, alias.astype(np.int64)


def side_facts(market: k.Market, b: int) -> tuple[int, int, int, int, int, int]:
    """Bid levels, ask levels, best bid price and size, best ask price and size of book b (prices 1e-9, UNDEF_PRICE and 0 when empty)."""
    book = market.books[b]
    orders = market.pool.orders[book["first_order"] : book["first_order"] + book["live"]]
    facts = []
    for side, best in ((k.BID, int(book["best_bid"])), (k.ASK, int(book["best_ask"]))):
        own = orders[orders["side"] == side]
        size = int(own["size"][own["level"] == best].sum(dtype=np.int64))
        price = int(book["bottom"] + best * book["tick"]) if len(own) else UNDEF_PRICE
        facts.append((len(np.unique(own["level"])), price, size))
    (bids, bid_px, bid_sz), (asks, ask_px, ask_sz) = facts
    return bids, asks, bid_px, bid_sz, ask_px, ask_sz
