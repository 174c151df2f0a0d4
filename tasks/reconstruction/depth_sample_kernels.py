"""Sampling of a price-level book: the time grid and the changes of the touch, without look-ahead. No rules of the book here.

A grid row at T is written when the first message after T arrives, before that message is looked at, so it holds every message with time <= T
and none after. Times, windows and status are those of sample_kernels.py. Buffers are column-major: row level * 2 + side of px and sz is a column.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.depth_book_kernels import BEST, COUNT, REASON, STATUS, copy_top, price_at
from tasks.reconstruction.sample_kernels import (
    CLOCK_SIZE,
    NEVER,
    R_SILENCE,
    T_AS_OF,
    T_BBO,
    T_GRID,
    T_GRID_WINDOW,
    T_INTERVAL,
    T_NEXT,
    T_NOW,
    T_REASON,
    T_SEQUENCE,
    T_SINCE,
    T_STALE_AFTER,
    T_STATUS,
    first_grid_time,
)
from tasks.schemas import STALE, UNDEF_PRICE, VALID

# time, as_of (-1: no message yet), update_id, sequence int64[room] of the last message; px, sz int64[2 * depth, room]; price_digits, size_digits
# uint8[2 * depth, room] as written, 0 where there is no level; status, reason int8[room]; since int64[room], -1 before the first message
GridRows = namedtuple("GridRows", "time as_of update_id sequence px sz price_digits size_digits status reason since")

# One row a message after which the touch or the status was another: clock, ts, cts, update_id, sequence int64[room]; px, sz int64[2, room] (bid,
# ask); status, reason int8[room]; since int64[room]; fresh bool[room]: the touch does not follow from the one before
TouchRows = namedtuple("TouchRows", "clock ts cts update_id sequence px sz status reason since fresh")

# The clock of sample_kernels.py and one place more.
T_UPDATE_ID = CLOCK_SIZE  # of the last message in the book
DEPTH_CLOCK_SIZE = CLOCK_SIZE + 1

# last int64[LAST_SIZE]: px of bid and ask, sz of both, status, reason of the last touch row
LAST_SIZE = 6


@kernel
def depth_grid_until(clock, book, grid, windows, depth, end):
    """Write the grid rows with T < end from the book as it stands. Returns False when the buffer is full (call again after emptying it)."""
    while clock[T_NEXT] < end:
        time = clock[T_NEXT]
        w = clock[T_GRID_WINDOW]
        if time >= windows.end[w]:
            w += 1
            clock[T_GRID_WINDOW] = w
            clock[T_NEXT] = first_grid_time(windows.start[w], clock[T_INTERVAL]) if w < windows.end.shape[0] else NEVER
            continue
        g = clock[T_GRID]
        if g >= grid.time.shape[0]:
            return False
        copy_top(book, grid.px, grid.sz, grid.price_digits, grid.size_digits, g, depth)
        grid.time[g] = time
        grid.as_of[g] = clock[T_AS_OF]
        grid.update_id[g] = clock[T_UPDATE_ID]
        grid.sequence[g] = clock[T_SEQUENCE]
        if clock[T_STATUS] == VALID and clock[T_AS_OF] >= 0 and time - clock[T_AS_OF] > clock[T_STALE_AFTER]:
            grid.status[g] = STALE
            grid.reason[g] = R_SILENCE
            grid.since[g] = clock[T_AS_OF] + clock[T_STALE_AFTER]
        else:
            grid.status[g] = clock[T_STATUS]
            grid.reason[g] = clock[T_REASON]
            grid.since[g] = clock[T_SINCE]
        clock[T_GRID] = g + 1
        clock[T_NEXT] = time + clock[T_INTERVAL]
    return True


@inner
def show_status(clock, state):
    """The status of the book is the one that rows tell from T_NOW on."""
    if clock[T_STATUS] != state[STATUS] or clock[T_REASON] != state[REASON]:
        clock[T_STATUS] = state[STATUS]
        clock[T_REASON] = state[REASON]
        clock[T_SINCE] = clock[T_NOW]


@inner
def touch_of(book, side):
    """(price, size) of the best level, UNDEF_PRICE and 0 where there is none."""
    if book.state[COUNT + side] == 0:
        return UNDEF_PRICE, np.int64(0)
    place = book.state[BEST + side]
    return price_at(book, side, place), book.size[side, place]


@inner
def touch_row(clock, book, batch, i, fresh, last, rows):
    """Write a row when message i changed the touch or the status; the book holds it. There is room for it."""
    state = book.state
    bid_px, bid_sz = touch_of(book, 0)
    ask_px, ask_sz = touch_of(book, 1)
    if (
        last[0] == bid_px and last[1] == ask_px and last[2] == bid_sz and last[3] == ask_sz and last[4] == state[STATUS] and last[5] == state[REASON]
    ):  # fmt: skip
        return
    last[0], last[1], last[2], last[3], last[4], last[5] = bid_px, ask_px, bid_sz, ask_sz, state[STATUS], state[REASON]
    r = clock[T_BBO]
    rows.px[0, r], rows.px[1, r], rows.sz[0, r], rows.sz[1, r] = bid_px, ask_px, bid_sz, ask_sz
    rows.clock[r] = clock[T_NOW]
    rows.ts[r] = batch.ts[i]
    rows.cts[r] = batch.cts[i]
    rows.update_id[r] = batch.update_id[i]
    rows.sequence[r] = batch.sequence[i]
    rows.status[r] = state[STATUS]
    rows.reason[r] = state[REASON]
    rows.since[r] = clock[T_SINCE]
    rows.fresh[r] = fresh
    clock[T_BBO] = r + 1
