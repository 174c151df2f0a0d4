"""Order-by-order replay of one batch with all samplers in one pass; the book stays in its arrays between batches."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import kernel
from tasks.reconstruction.book_kernels import (
    A_TRADE,
    ANOMALY,
    BEST,
    C_CROSSED,
    C_EVENT_ENDS,
    C_LOCKED,
    C_QUARANTINED,
    DIRTY,
    FREE,
    R_QUARANTINED,
    REASON,
    STATUS,
    USED,
    apply_record,
    read_top,
)
from tasks.reconstruction.order_table_kernels import shift_of
from tasks.reconstruction.sample_kernels import T_NOW, T_SEQUENCE, event_end, grid_until, trade_row, wanted
from tasks.schemas import F_LAST, SUSPECT, VALID

# Columns of one batch, length n: action, side, flags uint8; rank int32 (-1 undefined); size uint32; order_id uint64; clock int64; sequence uint32;
# marks int64[m]: records before which a row was quarantined, ascending
Batch = namedtuple("Batch", "action side flags rank size order_id clock sequence marks")

DONE, GRID_FULL, BOOK_FULL, BOOK_ERROR = range(4)


@kernel
def replay(batch, start, n, book, clock, top, rows, bbo, grid, trades, windows, depth, strict, every_record):
    """Apply records start..n-1 and sample.

    Returns (code, next record): DONE; GRID_FULL (empty the grid buffer and go on at next); BOOK_FULL (give the pool room and go on);
    BOOK_ERROR (only when strict: record `next` was the anomaly state[ANOMALY] of a valid book). every_record treats each record as an event
    end (used to compare with published per-record MBP files). Changes book, clock, top and the buffers. Twin: tests/oracles/naive_book.py
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
        ends = every_record or (batch.flags[i] & F_LAST) != 0
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
        apply_record(book, width, shift, batch.action[i], batch.side[i], batch.rank[i], np.int64(batch.size[i]), batch.order_id[i], batch.flags[i])
        if strict and state[ANOMALY] >= 0:
            return BOOK_ERROR, i
        if ends:
            counters[C_EVENT_ENDS] += 1
            for side in range(2):
                if state[DIRTY + side]:
                    read_top(book, width, side, depth, top.px, top.sz, top.ct)
            if state[BEST] >= 0 and state[BEST + 1] >= 0:
                ask_rank = width - 1 - state[BEST + 1]
                if state[BEST] > ask_rank:
                    counters[C_CROSSED] += 1
                elif state[BEST] == ask_rank:
                    counters[C_LOCKED] += 1
            clock[T_SEQUENCE] = batch.sequence[i]
            event_end(clock, top, rows, bbo, depth, i, state[STATUS], state[REASON], is_wanted)
    return DONE, n
