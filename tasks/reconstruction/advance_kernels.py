"""A book brought forward without samples and proofs: what every question about the past needs between a checkpoint and its answer."""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.book_kernels import (
    A_NONE,
    FREE,
    HALTED_STATE,
    R_HALT,
    REASON,
    STATUS,
    USED,
    apply_record,
    set_aside,
)
from tasks.reconstruction.order_table_kernels import ask_ahead, shift_of
from tasks.reconstruction.record_check_kernels import check_sequence, note_halt
from tasks.schemas import F_LAST, HALTED, VALID

# moment int64[MOMENT_SIZE]: the book after the last complete event
M_AS_OF = 0  # its clock time, -1 before the first
M_SEQUENCE = 1  # of its last record
M_STATUS = 2  # as shown: a valid book is halted while trading is
M_REASON = 3
M_SINCE = 4  # clock time from which on both have been so, -1 before the first record
MOMENT_SIZE = 5

DONE, BOOK_FULL = 0, 2


@inner
def note_marks(batch, mark, i, state):
    """Whether a row was quarantined before record i. Returns the next mark."""
    while mark < batch.marks.shape[0] and batch.marks[mark] <= i:
        if batch.marks[mark] == i:
            set_aside(state)
        mark += 1
    return mark


@inner
def step(batch, i, book, width, shift, contiguous, halts):
    """Apply record i with what the rules of the source look for besides; see Rules of replay_kernels.py."""
    if contiguous:
        check_sequence(book, np.int64(batch.sequence[i]), batch.flags[i])
    if halts and batch.action[i] == A_NONE and batch.rank[i] >= 0:
        note_halt(book, batch.rank[i])
    apply_record(book, width, shift, batch.action[i], batch.side[i], batch.rank[i], np.int64(batch.size[i]), batch.order_id[i], batch.flags[i])


@inner
def shown_status(state):
    """The status that rows show."""
    return HALTED if state[HALTED_STATE] != 0 and state[STATUS] == VALID else state[STATUS]


@kernel
def advance(batch, start, n, book, moment, contiguous, halts):
    """Apply records start..n-1.

    batch: Batch of replay_kernels.py, its clock running; moment int64[MOMENT_SIZE]. Returns (code, next record): DONE; BOOK_FULL (give the pool
    room and go on at next). Changes book and moment. 96 ns a record on a generated futures session of 7M records with 19,000 resting orders.
    Twin: tests/oracles/naive_tracking.py
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    mark = 0
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            return BOOK_FULL, i
        ask_ahead(book.table, book.orders, batch.order_id, i, n, shift)
        mark = note_marks(batch, mark, i, state)
        step(batch, i, book, width, shift, contiguous, halts)
        if batch.flags[i] & F_LAST:
            status = shown_status(state)
            reason = R_HALT if status == HALTED else state[REASON]
            if status != moment[M_STATUS] or reason != moment[M_REASON]:
                moment[M_STATUS] = status
                moment[M_REASON] = reason
                moment[M_SINCE] = batch.clock[i]
            moment[M_AS_OF] = batch.clock[i]
            moment[M_SEQUENCE] = batch.sequence[i]
    return DONE, n
