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
    FREE,
    HALTED_STATE,
    HIGH,
    R_HALT,
    REASON,
    STATUS,
    UNAUDITED,
    USED,
    apply_record,
    refresh_top,
    set_aside,
)
from tasks.reconstruction.order_table_kernels import ask_ahead, shift_of
from tasks.reconstruction.proof_kernels import note, note_good
from tasks.reconstruction.record_check_kernels import GOOD_FILL, NO_FILL, check_fill, check_sequence, note_halt
from tasks.reconstruction.sample_kernels import T_AS_OF, T_NEXT, T_NOW, T_SEQUENCE, event_end, grid_until, trade_row, wanted
from tasks.schemas import F_LAST, HALTED, VALID

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
def _note_bad_touch(book, width, now, sequence, top, proofs):
    """Book a crossed or locked touch."""
    if book.state[BEST] > width - 1 - book.state[BEST + 1]:
        book.counters[C_CROSSED] += 1
    else:
        book.counters[C_LOCKED] += 1
    proofs.difference[0] = 0
    proofs.difference[1] = 0
    for side in range(2):
        proofs.difference[2 + 3 * side] = top.px[side, 0]
        proofs.difference[3 + 3 * side] = top.sz[side, 0]
        proofs.difference[4 + 3 * side] = top.ct[side, 0]
    note(proofs.integrity, False, now, sequence, 1, 0, proofs.difference)


@inner
def _tell(clock, batch, as_of, last):
    """Note the last complete event, at clock time as_of, which ended with record `last` of the batch (-1: with an earlier batch)."""
    clock[T_AS_OF] = as_of
    if last >= 0:
        clock[T_SEQUENCE] = batch.sequence[last]


@kernel
def replay(batch, start, n, book, clock, top, rows, bbo, grid, trades, windows, depth, rules, proofs):
    """Apply records start..n-1 and sample.

    windows: Spans. Returns (code, next record): DONE; GRID_FULL (empty the grid buffer and go on at next); BOOK_FULL (give the pool room and go on);
    BOOK_ERROR (only when strict: record `next` was the anomaly state[ANOMALY] of a valid book); BOOK_BROKEN (a level is not the sum of its
    orders: a fault of the program). every_record treats each record as an event end (used to compare with published per-record MBP files).
    Changes book, clock, top, proofs and the buffers. Twin: tests/oracles/naive_book.py
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    counters = book.counters
    marks = batch.marks.shape[0]
    mark = 0
    while mark < marks and batch.marks[mark] < start:
        mark += 1
    # What is looked at for every record is kept in registers; what good comparisons add up to is booked at the end, or before a bad one.
    now = clock[T_NOW]
    is_wanted = False
    look_again = now  # time from which on `is_wanted` may be another
    code = DONE
    at = n
    as_of, last = clock[T_AS_OF], -1  # of the last complete event
    unaudited = state[UNAUDITED]
    event_ends = 0
    sound, first_sound, last_sound = 0, now, now
    filled, first_filled, last_filled = 0, now, now
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            code, at = BOOK_FULL, i
            break
        ask_ahead(book.table, book.orders, batch.order_id, i, n, shift)
        flags = batch.flags[i]
        action = batch.action[i]
        time = max(now, batch.clock[i])
        ends = rules.every_record or (flags & F_LAST) != 0
        if ends and clock[T_NEXT] < time:
            _tell(clock, batch, as_of, last)
            if not grid_until(clock, top, grid, windows.grid, depth, time):
                code, at = GRID_FULL, i
                break
        now = time
        if now >= look_again:
            is_wanted, look_again = wanted(clock, windows.rows, now)
        while mark < marks and batch.marks[mark] == i:
            counters[C_QUARANTINED] += 1
            set_aside(state)
            mark += 1
        if action == A_TRADE and is_wanted:
            trade_row(clock, top, trades, i)
        if action == A_FILL and state[STATUS] == VALID and batch.order_id[i] != 0:
            rank = np.int64(batch.rank[i])
            fill = check_fill(book, width, shift, batch.side[i], rank, np.int64(batch.size[i]), batch.order_id[i], proofs.difference)
            if fill == GOOD_FILL:
                first_filled = now if filled == 0 else first_filled
                last_filled = now
                filled += 1
            elif fill != NO_FILL:
                note_good(proofs.fills, filled, first_filled, last_filled)
                filled = 0
                note(proofs.fills, False, now, np.int64(batch.sequence[i]), 1, 0, proofs.difference)
        if rules.contiguous:
            check_sequence(book, np.int64(batch.sequence[i]), flags)
        if rules.halts and action == A_NONE and batch.rank[i] >= 0:
            note_halt(book, batch.rank[i])
        apply_record(book, width, shift, action, batch.side[i], batch.rank[i], np.int64(batch.size[i]), batch.order_id[i], flags)
        if rules.strict and state[ANOMALY] >= 0:
            code, at = BOOK_ERROR, i
            break
        if ends:
            event_ends += 1
            unaudited += 1
            if unaudited >= rules.audit_every:
                unaudited = 0
                state[BROKEN] |= audit(book, width) >= 0
            if state[BROKEN] != 0:
                code, at = BOOK_BROKEN, i
                break
            for side in range(2):
                if state[HIGH + side] >= 0:
                    refresh_top(book, width, side, depth, top)
            if state[BEST] >= 0 and state[BEST + 1] >= 0:
                if state[BEST] < width - 1 - state[BEST + 1]:
                    first_sound = now if sound == 0 else first_sound
                    last_sound = now
                    sound += 1
                elif state[HALTED_STATE] != 0:
                    counters[C_CROSSED_HALTED] += 1  # legal while trading is halted
                else:
                    note_good(proofs.integrity, sound, first_sound, last_sound)
                    sound = 0
                    _note_bad_touch(book, width, now, np.int64(batch.sequence[i]), top, proofs)
            as_of = now
            last = i
            halted = state[HALTED_STATE] != 0 and state[STATUS] == VALID
            event_end(clock, top, rows, bbo, depth, i, now, HALTED if halted else state[STATUS], R_HALT if halted else state[REASON], is_wanted)
    clock[T_NOW] = now
    _tell(clock, batch, as_of, last)
    state[UNAUDITED] = unaudited
    counters[C_EVENT_ENDS] += event_ends
    note_good(proofs.integrity, sound, first_sound, last_sound)
    note_good(proofs.fills, filled, first_filled, last_filled)
    return code, at
