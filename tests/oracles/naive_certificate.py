"""Which states of a rebuilt book differ from a published one: lists and loops, written from the rules of the formats.

A state is the book after a complete event: (time ns, sequence, {"B": levels, "A": levels}), best level first, a level (price, size, orders).
A published row is a dict with ts_recv, sequence and the levels bid_px_00, ask_px_00, bid_sz_00, ...; both lists are in the order of the feed.
One book and one day: nothing here knows of symbols.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.schemas import UNDEF_PRICE

State = tuple[int, int, dict[str, list[tuple[int, int, int]]]]
Row = dict[str, Any]
EMPTY = (UNDEF_PRICE, 0, 0)


class Difference(NamedTuple):
    """The first level, from the touch down and the bid first, at which state number `state` is not what row number `row` says."""

    state: int
    row: int
    side: str
    level: int
    expected: tuple[int, int, int]
    found: tuple[int, int, int]


def passes(sequences: list[int]) -> list[tuple[int, int]]:
    """Each sequence number with the number of falls before it: where a feed begins to count again, the smaller number is the later one."""
    found: list[tuple[int, int]] = []
    falls = 0
    for k, sequence in enumerate(sequences):
        if k > 0 and sequence < sequences[k - 1]:
            falls += 1
        found.append((falls, sequence))
    return found


def pairs_by_row(states: list[State], rows: list[Row]) -> list[tuple[int, int]]:
    """(state, row) for mbp-N: the truth of an event's end is the last row whose sequence is at or before its own.

    Rows exist only for changes within their depth, so one row may be the truth of several states. A state before the first row has none, nor
    has one that is followed by another of the same sequence: some feeds mark the trade, the fill and the cancel of one execution as ends, and
    the vendor publishes them as one row, after the cancel.
    """
    ends, published = passes([state[1] for state in states]), passes([row["sequence"] for row in rows])
    pairs = []
    for s, end in enumerate(ends):
        if s + 1 < len(ends) and ends[s + 1] == end:
            continue
        last = None
        for r, sequence in enumerate(published):
            if sequence <= end:
                last = r
        if last is not None:
            pairs.append((s, last))
    return pairs


def pairs_by_interval(states: list[State], rows: list[Row]) -> list[tuple[int, int]]:
    """(state, row) for bbo-1s and bbo-1m: the row of time T shows the state after the last complete event with a time of T or before.

    A state that the feed brings after one past T is too late for the row, whatever its own time: a sample knows nothing of what follows it.
    """
    pairs = []
    for r, row in enumerate(rows):
        last = None
        for s, (time, _, _) in enumerate(states):
            if time > row["ts_recv"]:
                break
            last = s
        if last is not None:
            pairs.append((last, r))
    return pairs


def pairs_before_trades(states: list[State], rows: list[Row]) -> list[tuple[int, int]]:
    """(state, row) for tbbo: a row shows the touch before its trade, so it is the truth of the last state whose sequence is before its own.

    Of several trades between two states only the first has a complete event before it: what the later ones saw was the middle of an event.
    """
    ends, published = passes([state[1] for state in states]), passes([row["sequence"] for row in rows])
    pairs: list[tuple[int, int]] = []
    for r, sequence in enumerate(published):
        last = None
        for s, end in enumerate(ends):
            if end < sequence:
                last = s
        if last is not None and last not in [s for s, _ in pairs]:
            pairs.append((last, r))
    return pairs


def level_of(row: Row, side: str, level: int) -> tuple[int, int, int]:
    """Price, size and orders of one level of a published row."""
    name = "bid" if side == "B" else "ask"
    return row[f"{name}_px_{level:02d}"], row[f"{name}_sz_{level:02d}"], row[f"{name}_ct_{level:02d}"]


def first_difference(state: State, row: Row, depth: int) -> tuple[str, int, tuple[int, int, int], tuple[int, int, int]] | None:
    """(side, level, expected, found) of the first level that differs, None when all `depth` levels of both sides are equal."""
    for level in range(depth):
        for side in ("B", "A"):
            levels = state[2][side]
            found = levels[level] if level < len(levels) else EMPTY
            expected = level_of(row, side, level)
            if found != expected:
                return side, level, expected, found
    return None


def compare(states: list[State], rows: list[Row], schema: str, depth: int) -> tuple[list[tuple[int, int]], list[Difference]]:
    """The pairs (state, row) that could be compared, in order, and the differences among them. schema: mbp-N, tbbo, bbo-1s or bbo-1m."""
    if schema.startswith("bbo"):
        pairs = pairs_by_interval(states, rows)
    elif schema == "tbbo":
        pairs = pairs_before_trades(states, rows)
    else:
        pairs = pairs_by_row(states, rows)
    wrong = []
    for s, r in pairs:
        difference = first_difference(states[s], rows[r], depth)
        if difference is not None:
            wrong.append(Difference(s, r, *difference))
    return pairs, wrong


# ---- What a certificate says of the pairs.

Verdict = tuple[int, bool]  # time ns of a compared state, and whether it is right


def wrong_spans(compared: list[Verdict]) -> list[tuple[int | None, int | None]]:
    """(last good, next good) around each run of states that are not right; None where there is none on that side."""
    spans: list[tuple[int | None, int | None]] = []
    for k, (_, good) in enumerate(compared):
        if good or (k > 0 and not compared[k - 1][1]):
            continue
        after = [time for time, right in compared[k:] if right]
        spans.append((compared[k - 1][0] if k > 0 else None, after[0] if after else None))
    return spans


def without_middles(pairs: list[tuple[int, int]], states: list[State], middles: set[int]) -> list[tuple[int, int]]:
    """The pairs whose state is the last thing of its key. middles: keys whose last record ends no event, so that the vendor's row of such a key
    shows the middle of the next event."""
    return [(s, r) for s, r in pairs if states[s][1] not in middles]


def rows_among_states(states: list[State], rows: list[Row], depth: int) -> list[tuple[int, bool]]:
    """For each published row the state that it is compared with and whether they are equal. states: the book after every single record.

    A row is one of the states of its own key, none before the state of the row before it. Where no state is equal, the last of its key stands
    for what was found; where no record has its key, the state before it (-1: there is none).
    """
    found: list[tuple[int, bool]] = []
    start = 0
    for row in rows:
        own = [s for s in range(start, len(states)) if states[s][1] == row["sequence"]]
        equal = [s for s in own if first_difference(states[s], row, depth) is None]
        before = [s for s in range(len(states)) if states[s][1] < row["sequence"]]
        if equal:
            start = equal[0]
            found.append((equal[0], True))
        elif own:
            found.append((own[-1], False))
        elif before:
            found.append((before[-1], first_difference(states[before[-1]], row, depth) is None))
        else:
            found.append((-1, False))
    return found


def levels_of(orders: list[tuple[str, int, int, int]], side: str) -> list[tuple[int, int, int]]:
    """(price, size, orders) of a side, best first, from resting orders (side, price, order id, size)."""
    prices = sorted({price for s, price, _, _ in orders if s == side}, reverse=side == "B")
    sizes = [[size for s, p, _, size in orders if (s, p) == (side, price)] for price in prices]
    return [(price, sum(size), len(size)) for price, size in zip(prices, sizes, strict=True)]


def compare_whole(before: list[tuple[str, int, int, int]], truth: list[tuple[str, int, int, int]]) -> dict[str, int]:
    """Two whole books, each its orders in the order of side, level and queue: how many levels and orders either has and how many are the same."""
    levels = levels_matched = 0
    for side in ("B", "A"):
        ours, theirs = levels_of(before, side), levels_of(truth, side)
        levels += max(len(ours), len(theirs))
        levels_matched += sum(one == other for one, other in zip(ours, theirs, strict=False))
    ids = {i for _, _, i, _ in before} | {i for _, _, i, _ in truth}
    same = sum(order in truth for order in before)
    queues = [order[2] for order in before] == [order[2] for order in truth]
    return {
        "levels": levels, "levels_matched": levels_matched, "orders_compared": len(ids), "orders_matched": same, "queues_equal": int(queues),
    }  # fmt: skip
