"""Consolidated best bid and offer the slow and obvious way: all rows sorted, all publishers looked at anew after each. Twin of
tasks/aggregation/consolidated_kernels.py and consolidated.py.
"""

from __future__ import annotations

from typing import NamedTuple

UNDEF_PRICE = 2**63 - 1
WORSE = ["valid", "stale", "halted", "suspect", "no_book"]


class Touch(NamedTuple):
    ts_event: int
    ts_recv: int
    as_of: int
    bid: tuple[int, int, int]  # price, size, orders; price UNDEF_PRICE where the side is empty
    ask: tuple[int, int, int]
    status: str
    reason: str
    since: int | None


def consolidated(publishers: dict[int, list[Touch]], clock: str) -> tuple[list[dict], dict]:
    """(rows, facts) of the touch rows of each publisher id."""
    moments = [
        (max(row.as_of for row in rows[: place + 1]), publisher, place)  # the running maximum
        for publisher, rows in publishers.items()
        for place in range(len(rows))
    ]
    now: dict[int, Touch] = {}
    written: list[dict] = []
    late = 0
    for time, publisher, place in sorted(moments):
        touch = publishers[publisher][place]
        now[publisher] = touch
        late += getattr(touch, clock) < time
        row = {"ts_event": touch.ts_event, "ts_recv": touch.ts_recv, **state(now)}
        row[clock] = time
        if not written or any(row[name] != written[-1][name] for name in row if name not in ("ts_event", "ts_recv")):
            written.append(row)
    both = [row for row in written if UNDEF_PRICE not in (row["bid_px"], row["ask_px"])]
    facts = {
        "rows_in": len(moments),
        "rows_out": len(written),
        "unchanged": len(moments) - len(written),
        "crossed": len([row for row in both if row["bid_px"] > row["ask_px"]]),
        "locked": len([row for row in both if row["bid_px"] == row["ask_px"]]),
        "late": late,
        "publishers": sorted(publishers),
    }
    return written, facts


def state(now: dict[int, Touch]) -> dict:
    """What the publishers' last rows come to, but for the times."""
    counting = {publisher: touch for publisher, touch in now.items() if touch.status not in ("no_book", "halted")}
    row: dict = {"venues": len(counting)}
    for side, best_of in (("bid", max), ("ask", min)):
        quotes = {publisher: getattr(touch, side) for publisher, touch in counting.items()}
        quotes = {publisher: quote for publisher, quote in quotes.items() if quote[0] != UNDEF_PRICE}
        best = best_of(quote[0] for quote in quotes.values()) if quotes else UNDEF_PRICE
        there = [publisher for publisher in sorted(quotes) if quotes[publisher][0] == best]
        row[f"{side}_px"], row[f"{side}_venues"] = best, there
        row[f"{side}_sz"] = sum(quotes[publisher][1] for publisher in there)
        row[f"{side}_ct"] = sum(quotes[publisher][2] for publisher in there)
    worst = max(WORSE.index(touch.status) for touch in now.values())
    giver = min(publisher for publisher, touch in now.items() if touch.status == WORSE[worst])
    return row | {"status": WORSE[worst], "reason": now[giver].reason, "status_since": now[giver].since}
