"""The course of a generated session: opening, continuous trading, the clear in the middle, the lost messages and the snapshot after them.

Which order comes next is in synthetic_kernels.py, books and records in synthetic_book_kernels.py.
"""

from __future__ import annotations

import numpy as np

from tasks.scanning.synthetic_book_kernels import A_ADD, A_CLEAR, ASK, BID, BUILD, DUMP, NO_SIDE, TRADING, empty, kernel, price_of, put
from tasks.scanning.synthetic_clock_kernels import begin, choose_book, draw, exponential, spell, wait_for_next, wander
from tasks.scanning.synthetic_kernels import act, add_order, aggress, size_of
from tasks.schemas import F_BAD_TS_RECV, F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT, UNDEF_PRICE

SNAPSHOT = F_SNAPSHOT | F_BAD_TS_RECV
HOUR = 3_600_000_000_000


@kernel
def run(m, out, limit):
    """Write events to out MBO_RECORD[>= limit + EVENT_ROWS] until `limit` rows or the end of the session; returns the rows written.

    m: Market, changed in place. Where a run stops does not change what follows: every state is in m.
    """
    state = m.state[0]
    state["row"] = 0
    while state["row"] < limit and state["emitted"] < state["total"]:
        if state["phase"] == BUILD:
            _build(state, m, out)
        elif state["phase"] == DUMP:
            _dump(state, m, out)
        else:
            _go_on(state, m, out)
    return state["row"]


@kernel
def _build(state, m, out):
    """Next record of an opening, book by book: R, its first orders and, on the first opening, an auction print; or the same as a snapshot."""
    book = m.books[state["cursor"]]
    snapshot = state["snapshot_start"] == 1 and state["opened"] == 0
    if state["left"] < 0:
        _tick(state, snapshot)
        empty(state, m.pool, book, out, SNAPSHOT if snapshot else (F_LAST if state["opened"] == 1 else F_BAD_TS_RECV))
        state["left"] = book["target"]
        return
    if state["left"] > 0:
        _tick(state, snapshot)
        state["left"] -= 1
        flags = F_LAST
        if snapshot:
            flags = SNAPSHOT | (F_LAST if state["left"] == 0 else 0)
        add_order(state, m.pool, book, out, BID if state["left"] % 2 == 0 else ASK, m.fairs[book["fair"]]["value"], flags)
        return
    if state["opened"] == 0 and not snapshot:
        _tick(state, False)
        if draw(state) < 0.5:
            aggress(state, m.pool, book, out, BID, 5 + size_of(state, 60), book["best_ask"], True)
        else:
            aggress(state, m.pool, book, out, ASK, 5 + size_of(state, 60), book["best_bid"], True)
    state["left"] = -1
    state["cursor"] += 1
    if state["cursor"] == len(m.books):
        state["cursor"] = 0
        state["opened"] = 1
        state["phase"] = TRADING


@kernel
def _tick(state, snapshot):
    """Open an event of an opening or a snapshot. In a snapshot ts_event is when the order came, up to a day before."""
    begin(state, 0 if snapshot else np.int64(exponential(state) * 1e-7 * (state["end"] - state["start"])))
    if snapshot:
        state["ts_event"] = state["start"] - HOUR - np.int64(draw(state) * 23 * HOUR)
        state["ts_in_delta"] = 0


@kernel
def _dump(state, m, out):
    """Next record of the snapshot that repairs lost messages: book by book R, then its orders from the touch outwards in priority order."""
    book = m.books[state["cursor"]]
    _tick(state, True)
    if state["left"] < 0:
        book["doubt"] = 0
        state["left"] = book["live"]
        state["level"] = book["best_bid"] if book["best_bid"] >= 0 else book["best_ask"]
        state["order"] = -1
        put(state, book, out, A_CLEAR, NO_SIDE, UNDEF_PRICE, 0, 0, SNAPSHOT | (F_LAST if book["live"] == 0 else 0))
    else:
        if state["order"] < 0:
            state["order"] = m.pool.levels[book["first_level"] + state["level"]]["head"]
        order = m.pool.orders[book["first_order"] + state["order"]]
        side = np.int64(order["side"])
        state["left"] -= 1
        flags = SNAPSHOT | (F_LAST if state["left"] == 0 else 0)
        put(state, book, out, A_ADD, side, price_of(book, state["level"]), np.int64(order["size"]), np.int64(order["id"]), flags)
        state["order"] = order["next"]
        if state["order"] < 0 and state["left"] > 0:
            state["level"] = _next_level(m, book, state["level"], side)
    if state["left"] == 0:
        state["left"] = -1
        state["cursor"] += 1
        if state["cursor"] == len(m.books):
            state["cursor"] = 0
            state["phase"] = TRADING


@kernel
def _next_level(m, book, level, side):
    """The occupied level behind `level`, the best ask behind the last bid. There must be one."""
    base, step = book["first_level"], -1 if side == BID else 1
    level += step
    while level >= 0 and m.pool.levels[base + level]["count"] == 0:
        level += step
    return level if level >= 0 else book["best_ask"]


@kernel
def _go_on(state, m, out):
    """The next event of continuous trading, or a change of phase when its record has come."""
    if state["clear_at"] >= 0 and state["emitted"] >= state["clear_at"] and state["lost"] == 0:
        state["clear_at"] = -1
        state["phase"] = BUILD
        return
    if state["recover_at"] >= 0 and state["emitted"] >= state["recover_at"]:
        state["recover_at"] = -1
        needed = len(m.books)
        for b in range(len(m.books)):
            needed += m.books[b]["live"]
        if state["emitted"] + needed < state["total"]:  # half a snapshot would leave the book unknown
            state["phase"] = DUMP
            return
    if state["gap_at"] >= 0 and state["emitted"] >= state["gap_at"]:
        state["gap_at"] = -1
        state["lost"] = 20 + min(2_000, state["total"] // 200)
    row, emitted = state["row"], state["emitted"]
    if state["now"] >= state["next_spell"]:
        spell(state)
    wait, caused = wait_for_next(state)
    if not caused or draw(state) < 0.2:
        state["hot"] = choose_book(state, m.chance, m.alias)
    begin(state, np.int64(wait * 1e9))
    book = m.books[state["hot"]]
    act(state, m.pool, book, out, wander(state, m.fairs[book["fair"]]))
    if state["lost"] > 0:  # the market moves on, the feed does not say
        state["row"], state["emitted"] = row, emitted
        state["lost"] -= 1
        if state["lost"] == 0:
            state["now"] = min(state["now"] + (state["end"] - state["start"]) // 200, state["end"] - 1)
            for b in range(len(m.books)):
                m.books[b]["doubt"] = F_MAYBE_BAD_BOOK
