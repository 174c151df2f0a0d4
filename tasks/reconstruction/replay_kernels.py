"""Order-by-order replay of one batch with all samplers in one pass; the book stays in its arrays between batches."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.audit_kernels import audit
from tasks.reconstruction.book_kernels import (
    A_FILL,
    A_NONE,
    A_TRADE,
    ANOMALY,
    BEST,
    BROKEN,
    C_CROSSED,
    C_CROSSED_HALTED,
    C_EVENT_ENDS,
    C_LOCKED,
    C_QUARANTINED,
    DIRTY,
    FREE,
    HALTED_STATE,
    R_HALT,
    R_QUARANTINED,
    REASON,
    STATUS,
    UNAUDITED,
    USED,
    apply_record,
    read_top,
)
from tasks.reconstruction.order_table_kernels import shift_of
from tasks.reconstruction.proof_kernels import note
from tasks.reconstruction.record_check_kernels import GOOD_FILL, NO_FILL, check_fill, check_sequence, note_halt
from tasks.reconstruction.sample_kernels import T_NOW, T_SEQUENCE, event_end, grid_until, trade_row, wanted
from tasks.schemas import F_LAST, HALTED, SUSPECT, VALID

# Columns of one batch, length n: action, side, flags uint8; rank int32 (-1 undefined); size uint32; order_id uint64; clock int64; sequence uint32;
# marks int64[m]: records before which a row was quarantined, ascending
Batch = namedtuple("Batch", "action side flags rank size order_id clock sequence marks")

# What to look for besides: strict, every_record, contiguous (sequence numbers), halts (N records of the trading state),
# all booleans; audit_every: event ends between two audits (see audit_kernels.py)
Rules = namedtuple("Rules", "strict every_record contiguous halts audit_every")

# Comparisons made on the way: fills, integrity (Proof, see proof_kernels.py); difference int64[8] scratch
Proofs = namedtuple("Proofs", "fills integrity difference")

DONE, GRID_FULL, BOOK_FULL, BOOK_ERROR, BOOK_BROKEN = range(5)


@inner
def _check_touch(book, width, now, sequence, top, proofs):
    """Count a crossed or locked book; while trading is halted it is legal, and counted apart."""
    state = book.state
    ask_rank = width - 1 - state[BEST + 1]
    good = state[BEST] < ask_rank
    if not good and state[HALTED_STATE] != 0:
        book.counters[C_CROSSED_HALTED] += 1
        return
    if state[BEST] > ask_rank:
        book.counters[C_CROSSED] += 1
    elif not good:
        book.counters[C_LOCKED] += 1
    if not good:
        proofs.difference[0] = 0
        proofs.difference[1] = 0
        for side in range(2):
            proofs.difference[2 + 3 * side] = top.px[side, 0]
            proofs.difference[3 + 3 * side] = top.sz[side, 0]
            proofs.difference[4 + 3 * side] = top.ct[side, 0]
    note(proofs.integrity, good, now, sequence, 1, 1 if good else 0, proofs.difference)


@kernel
def replay(batch, start, n, book, clock, top, rows, bbo, grid, trades, windows, depth, rules, proofs):
    """Apply records start..n-1 and sample.

    Returns (code, next record): DONE; GRID_FULL (empty the grid buffer and go on at next); BOOK_FULL (give the pool room and go on);
    BOOK_ERROR (only when strict: record `next` was the anomaly state[ANOMALY] of a valid book); BOOK_BROKEN (a level is not the sum of its
    orders: a fault of the program). every_record treats each record as an event end (used to compare with published per-record MBP files).
    Changes book, clock, top, proofs and the buffers. Twin: tests/oracles/naive_book.py
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    counters = book.counters
    mark = 0
    while mark < batch.marks.shape[0] and batch.marks[mark] < start:
        mark += 1
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            return BOOK_FULL, i
        now = max(clock[T_NOW], batch.clock[i])
        ends = rules.every_record or (batch.flags[i] & F_LAST) != 0
        if ends and not grid_until(clock, top, grid, windows, depth, now):
            return GRID_FULL, i
        clock[T_NOW] = now
        is_wanted = wanted(clock, windows)
        while mark < batch.marks.shape[0] and batch.marks[mark] == i:
            counters[C_QUARANTINED] += 1
            if state[STATUS] == VALID:
                state[STATUS] = SUSPECT
                state[REASON] = R_QUARANTINED
            mark += 1
        if batch.action[i] == A_TRADE and is_wanted:
            trade_row(clock, top, trades, i)
        if batch.action[i] == A_FILL and state[STATUS] == VALID and batch.order_id[i] != 0:
            rank = np.int64(batch.rank[i])
            fill = check_fill(book, width, shift, batch.side[i], rank, np.int64(batch.size[i]), batch.order_id[i], proofs.difference)
            if fill != NO_FILL:
                note(proofs.fills, fill == GOOD_FILL, now, np.int64(batch.sequence[i]), 1, 1 if fill == GOOD_FILL else 0, proofs.difference)
        if rules.contiguous:
            check_sequence(book, np.int64(batch.sequence[i]), batch.flags[i])
        if rules.halts and batch.action[i] == A_NONE and batch.rank[i] >= 0:
            note_halt(book, batch.rank[i])
        apply_record(book, width, shift, batch.action[i], batch.side[i], batch.rank[i], np.int64(batch.size[i]), batch.order_id[i], batch.flags[i])
        if rules.strict and state[ANOMALY] >= 0:
            return BOOK_ERROR, i
        if ends:
            counters[C_EVENT_ENDS] += 1
            state[UNAUDITED] += 1
            if state[BROKEN] != 0 or (state[UNAUDITED] >= rules.audit_every and audit(book, width) >= 0):
                return BOOK_BROKEN, i
            for side in range(2):
                if state[DIRTY + side]:
                    read_top(book, width, side, depth, top.px, top.sz, top.ct)
            if state[BEST] >= 0 and state[BEST + 1] >= 0:
                _check_touch(book, width, now, np.int64(batch.sequence[i]), top, proofs)
            clock[T_SEQUENCE] = batch.sequence[i]
            halted = state[HALTED_STATE] != 0 and state[STATUS] == VALID
            event_end(clock, top, rows, bbo, depth, i, HALTED if halted else state[STATUS], R_HALT if halted else state[REASON], is_wanted)
    return DONE, n
