"""Windowed replay of a level-N message file (LOBSTER) by price level, checked against the published book after every message.

Such a file covers only the top N levels and starts with a book that is there already. So: seed from the first published row, apply each message
to its level, prune below level N, and take from the published book only a newly revealed deepest level. Everything else of the published
row is truth to compare with. Source: LOBSTER's description of its output (lobsterdata.com), and formats measured on its sample files.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.book_kernels import A_ADD, A_CANCEL, A_CLEAR, A_FILL, A_MODIFY, A_TRADE, BID, R_QUARANTINED, S_BID
from tasks.reconstruction.proof_kernels import note
from tasks.reconstruction.sample_kernels import T_AS_OF, T_NOW, T_SEQUENCE, event_end, grid_until, put_level, trade_row, wanted
from tasks.schemas import F_LAST, HALTED, NO_BOOK, SUSPECT, UNDEF_PRICE, VALID

# Columns of one batch, length n; price int64 1e-9; marks int64[m]. first: position in truth of the batch's first event end
WindowBatch = namedtuple("WindowBatch", "action side flags price size clock sequence marks")

# px, sz int64[2, N + 1] best first; held int64[2] levels held
WindowBook = namedtuple("WindowBook", "px sz held state counters")

# published, integrity: Proof of proof_kernels.py; difference int64[8] scratch
WindowProofs = namedtuple("WindowProofs", "published integrity difference")

W_STATUS, W_REASON, W_HALTED, W_SEEDED = range(4)
W_EMPTIED, W_EMPTIED_PX = 4, 5  # the level that the running event removed: 1 + side, 0 for none; its price
W_STATE_SIZE = 6

W_COUNTERS = (
    "add", "cancel", "fill", "modify", "none", "clear", "trade",
    "event_ends", "crossed", "locked", "unknown_level", "over_cancel", "outside_window",
    "revealed", "pruned", "truth_compared", "truth_matched", "halts", "quarantined_before", "crossed_halted",
)  # fmt: skip
(K_ADD, K_CANCEL, K_FILL, K_MODIFY, K_NONE, K_CLEAR, K_TRADE, K_EVENT_ENDS, K_CROSSED, K_LOCKED, K_UNKNOWN, K_OVER, K_OUTSIDE,
 K_REVEALED, K_PRUNED, K_COMPARED, K_MATCHED, K_HALTS, K_QUARANTINED,
 K_CROSSED_HALTED) = range(20)  # fmt: skip
R_HALT, R_TRUTH = 8, 9
W_DONE, W_GRID_FULL = 0, 1


@inner
def _place(book, side, price):
    """(position of the level or where it would stand, whether it is there)."""
    sign = 1 if side == BID else -1
    for k in range(book.held[side]):
        if book.px[side, k] == price:
            return k, True
        if sign * book.px[side, k] < sign * price:
            return k, False
    return book.held[side], False


@inner
def _open(book, side, k, price, size):
    """Insert a level at position k; the arrays have room for N + 1."""
    for j in range(book.held[side], k, -1):
        book.px[side, j] = book.px[side, j - 1]
        book.sz[side, j] = book.sz[side, j - 1]
    book.px[side, k] = price
    book.sz[side, k] = size
    book.held[side] += 1


@inner
def _close(book, side, k):
    """Remove the level at position k."""
    for j in range(k, book.held[side] - 1):
        book.px[side, j] = book.px[side, j + 1]
        book.sz[side, j] = book.sz[side, j + 1]
    book.held[side] -= 1


@inner
def _apply(book, action, side, price, size, depth):
    """Change one level; a message that does not fit the book is counted."""
    k, there = _place(book, side, price)
    if action == A_ADD:
        if there:
            book.sz[side, k] += size
        else:
            _open(book, side, k, price, size)
    elif not there:
        book.counters[K_UNKNOWN] += 1
    elif size >= book.sz[side, k]:
        if size > book.sz[side, k]:
            book.counters[K_OVER] += 1
        _close(book, side, k)
        book.state[W_EMPTIED] = 1 + side
        book.state[W_EMPTIED_PX] = price
    else:
        book.sz[side, k] -= size
    if book.held[side] > depth:
        book.held[side] = depth
        book.counters[K_PRUNED] += 1


@inner
def _seed(book, row, depth):
    """Take the whole published row (ask px, ask sz, bid px, bid sz by level)."""
    for side in range(2):
        held = 0
        for k in range(depth):
            price = row[k, 2 if side == BID else 0]
            if price != UNDEF_PRICE:
                book.px[side, held] = price
                book.sz[side, held] = row[k, 3 if side == BID else 1]
                held += 1
        book.held[side] = held


@inner
def _reveal(book, row, depth):
    """Take a deepest level that the published row has beyond the held ones; only one can have come into the window.

    Once the book is wrong, that level may stand in it already, and levels would be out of order. And one that this very event removed is no
    new one: taking it would hide that a message removed too much.
    """
    for side in range(2):
        k = book.held[side]
        if k < depth:
            price = row[k, 2 if side == BID else 0]
            sign = 1 if side == BID else -1
            known = (k > 0 and sign * price >= sign * book.px[side, k - 1]) or (
                book.state[W_EMPTIED] == 1 + side and price == book.state[W_EMPTIED_PX]
            )
            if price != UNDEF_PRICE and not known and (k + 1 == depth or row[k + 1, 2 if side == BID else 0] == UNDEF_PRICE):
                book.px[side, k] = price
                book.sz[side, k] = row[k, 3 if side == BID else 1]
                book.held[side] += 1
                book.counters[K_REVEALED] += 1


@inner
def _compare(book, row, depth, difference):
    """(levels that either has, levels that are equal) of the book and a published row; the first that is not goes to difference int64[8]."""
    levels = 0
    matched = 0
    difference[1] = -1
    for k in range(depth):
        for side in range(2):
            price = row[k, 2 if side == BID else 0]
            held = k < book.held[side]
            if not held and price == UNDEF_PRICE:
                continue
            size = row[k, 3 if side == BID else 1] if price != UNDEF_PRICE else 0
            levels += 1
            if held and book.px[side, k] == price and book.sz[side, k] == size:
                matched += 1
            elif difference[1] < 0:
                difference[0] = side
                difference[1] = k
                difference[2] = price
                difference[3] = size
                difference[4] = -1
                difference[5] = book.px[side, k] if held else UNDEF_PRICE
                difference[6] = book.sz[side, k] if held else 0
                difference[7] = -1
    return levels, matched


@inner
def _check_touch(book, halted, now, sequence, integrity, difference):
    """Count a crossed or locked book, apart while trading is halted, where it is legal; `integrity` is a Proof (see proof_kernels.py)."""
    good = book.px[0, 0] < book.px[1, 0]
    if not good and halted:
        book.counters[K_CROSSED_HALTED] += 1
        return
    if book.px[0, 0] > book.px[1, 0]:
        book.counters[K_CROSSED] += 1
    elif not good:
        book.counters[K_LOCKED] += 1
    if not good:
        difference[0] = 0
        difference[1] = 0
        for side in range(2):
            difference[2 + 3 * side] = book.px[side, 0]
            difference[3 + 3 * side] = book.sz[side, 0]
            difference[4 + 3 * side] = -1
    note(integrity, good, now, sequence, 1, 1 if good else 0, difference)


@kernel
def replay_window(batch, start, n, truth, row, book, clock, top, rows, bbo, grid, trades, windows, depth, shown, proofs):
    """Apply records start..n-1; truth int64[m, depth, 4] holds the published book after each event end, `row` is the next one to use.

    windows: Spans; depth: levels of the file; shown: written at most, the rest of each row is empty; proofs: WindowProofs, what was compared.
    Returns (code, next record, next row): W_DONE, or W_GRID_FULL (empty the grid buffer and go on). A difference from the truth makes the book
    suspect from there on; it is not repaired.
    Twin: tests/oracles/naive_window.py
    """
    state = book.state
    counters = book.counters
    width = top.px.shape[1]
    mark = 0
    while mark < batch.marks.shape[0] and batch.marks[mark] < start:
        mark += 1
    for i in range(start, n):
        now = max(clock[T_NOW], batch.clock[i])
        ends = (batch.flags[i] & F_LAST) != 0
        if ends and not grid_until(clock, top, grid, windows.grid, width, now):
            return W_GRID_FULL, i, row
        clock[T_NOW] = now
        is_wanted, _ = wanted(clock, windows.rows, now)
        while mark < batch.marks.shape[0] and batch.marks[mark] == i:
            counters[K_QUARANTINED] += 1
            if state[W_STATUS] == VALID:
                state[W_STATUS] = SUSPECT
                state[W_REASON] = R_QUARANTINED
            mark += 1
        action = batch.action[i]
        if action == A_TRADE:
            counters[K_TRADE] += 1
            if is_wanted:
                trade_row(clock, top, trades, i)
        elif action in (A_ADD, A_CANCEL):
            counters[K_ADD if action == A_ADD else K_CANCEL] += 1
            if state[W_SEEDED]:
                _apply(book, action, BID if batch.side[i] == S_BID else 1, batch.price[i], np.int64(batch.size[i]), depth)
        elif action == A_FILL:
            counters[K_FILL] += 1
        elif action == A_MODIFY:
            counters[K_MODIFY] += 1
        elif action == A_CLEAR:
            counters[K_CLEAR] += 1
        else:
            counters[K_NONE] += 1
            if batch.price[i] != UNDEF_PRICE:  # a halt message: -1 halted, 0 quoting resumes, 1 trading resumes
                counters[K_HALTS] += 1
                # Quoting that resumes is no trading yet: the halt lasts until trading does.
                state[W_HALTED] = 0 if batch.price[i] > 0 else 1
        if not ends:
            continue
        if not state[W_SEEDED]:
            _seed(book, truth[row], depth)
            state[W_SEEDED] = 1
            if state[W_STATUS] == NO_BOOK:
                state[W_STATUS] = VALID
                state[W_REASON] = 0
        else:
            _reveal(book, truth[row], depth)
            counters[K_COMPARED] += 1
            levels, matched = _compare(book, truth[row], depth, proofs.difference)
            if levels == matched:
                counters[K_MATCHED] += 1
            elif state[W_STATUS] == VALID:
                state[W_STATUS] = SUSPECT
                state[W_REASON] = R_TRUTH
            note(proofs.published, levels == matched, now, np.int64(batch.sequence[i]), levels, matched, proofs.difference)
        state[W_EMPTIED] = 0
        row += 1
        counters[K_EVENT_ENDS] += 1
        for side in range(2):
            for k in range(shown):
                held = k < book.held[side]
                put_level(top, side, k, width, book.px[side, k] if held else UNDEF_PRICE, book.sz[side, k] if held else 0, 0)
        if book.held[0] > 0 and book.held[1] > 0:
            _check_touch(book, state[W_HALTED] == 1, now, np.int64(batch.sequence[i]), proofs.integrity, proofs.difference)
        clock[T_AS_OF] = now
        clock[T_SEQUENCE] = batch.sequence[i]
        halted = state[W_HALTED] == 1 and state[W_STATUS] == VALID
        event_end(clock, top, rows, bbo, width, i, now, HALTED if halted else state[W_STATUS], R_HALT if halted else state[W_REASON], is_wanted)
    return W_DONE, n, row
