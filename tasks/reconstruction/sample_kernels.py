"""Sampling of any book: rows at event ends, touch changes, and the time grid, without look-ahead. Shared by all replay kernels.

The cached top (`Top`) holds the book as of the last complete event. A grid row at T is written when the first event that ends after T
arrives, before that event is looked at; so it can hold only complete events with time <= T. Buffers are column-major: one row of px, sz, ct
per (level, side), level * 2 + side, so that a Parquet column is one contiguous slice.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.book_rows import PACKED_WORDS
from tasks.kernels import big_endian, inner, kernel
from tasks.schemas import REASONS, STALE, VALID

# Top of the book after the last complete event: px, sz, ct int64[2, depth]; the same packed int64[PACKED_WORDS * depth], see tasks/book_rows.py;
# rank int64[2, depth] index of each level among those of its side, -1 none (kept by books that know such a thing); last: see LAST_SIZE
Top = namedtuple("Top", "px sz ct packed rank last")

# Rows at event ends, packed: levels int64[room, PACKED_WORDS * depth]; the rest as below
Packed = namedtuple("Packed", "levels at status reason since")

# px, sz int64[2 * depth, room]; ct uint32[2 * depth, room]; at int64[room] record (or -1 in a grid); status, reason int8[room];
# since int64[room] clock time from which on they have been so, -1 not known
Rows = namedtuple("Rows", "px sz ct at status reason since")

# Grid rows carry their own times: time, as_of int64[room]; sequence uint32[room]
Grid = namedtuple("Grid", "rows time as_of sequence")

# at int64[room]; touch int64[4, room]: bid px, ask px, bid sz, ask sz before the trade's event; status, reason int8[room]; since int64[room]
Trades = namedtuple("Trades", "at touch status reason since")

# half-open spans of clock time in which rows are wanted: start, end int64[k], ascending
Windows = namedtuple("Windows", "start end")

# Windows of the rows at events, and of the grid
Spans = namedtuple("Spans", "rows grid")

# clock int64[CLOCK_SIZE]
T_NOW = 0  # running maximum of the clock
T_AS_OF = 1  # time of the last complete event, -1 before the first
T_NEXT = 2  # next grid time, NEVER when there is none
T_WINDOW = 3  # window that T_NOW is in or before
T_GRID_WINDOW = 4  # window that T_NEXT is in
T_SEQUENCE = 5  # sequence of the last complete event
T_STATUS = 6  # status and reason after the last complete event
T_REASON = 7
T_ROWS, T_BBO, T_GRID, T_TRADES = 8, 9, 10, 11  # rows in the buffers
T_INTERVAL = 12
T_SINCE = 13  # clock time since which T_STATUS and T_REASON hold, -1 before the first record
T_STALE_AFTER = 14  # ns without a complete event after which a grid row is stale, NEVER for none
CLOCK_SIZE = 16
NEVER = np.iinfo(np.int64).max

# top.last int64[2 * 3 + 2]: px, sz, ct of bid and ask, status, reason of the last bbo row
LAST_SIZE = 8
R_SILENCE = REASONS.index("silence")


@kernel
def first_grid_time(start, interval):
    """First multiple of interval that is not before start (both ns, start >= 0)."""
    return -(-start // interval) * interval


@kernel
def run_on(clock, now, running):
    """Running maximum int64[n] of a clock that stood at `now`; NumPy's takes five times as long."""
    for i in range(clock.shape[0]):
        now = max(now, clock[i])
        running[i] = now


@inner
def put_level(top, side, k, depth, px, sz, ct):
    """Set level k of a side in the cached top."""
    top.px[side, k] = px
    top.sz[side, k] = sz
    top.ct[side, k] = ct
    place = 2 * k + side
    top.packed[place] = big_endian(px)
    top.packed[2 * depth + place] = big_endian(sz)
    top.packed[4 * depth + k] = big_endian((max(top.ct[0, k], 0) << 32) | max(top.ct[1, k], 0))


@inner
def copy_levels(rows, r, top, depth):
    """Write the cached levels as row r of a buffer."""
    for level in range(depth):
        for side in range(2):
            k = 2 * level + side
            rows.px[k, r] = top.px[side, level]
            rows.sz[k, r] = top.sz[side, level]
            rows.ct[k, r] = top.ct[side, level]


@kernel
def grid_until(clock, top, grid, windows, depth, end):
    """Write the grid rows with T < end from the cached top. Returns False when the buffer is full (call again after emptying it)."""
    while clock[T_NEXT] < end:
        w = clock[T_GRID_WINDOW]
        if clock[T_NEXT] >= windows.end[w]:
            w += 1
            clock[T_GRID_WINDOW] = w
            if w >= windows.end.shape[0]:
                clock[T_NEXT] = NEVER
            else:
                clock[T_NEXT] = first_grid_time(windows.start[w], clock[T_INTERVAL])
            continue
        g = clock[T_GRID]
        if g >= grid.time.shape[0]:
            return False
        copy_levels(grid.rows, g, top, depth)
        grid.time[g] = clock[T_NEXT]
        grid.as_of[g] = clock[T_AS_OF]
        grid.sequence[g] = np.uint32(clock[T_SEQUENCE])
        grid.rows.at[g] = -1
        if clock[T_STATUS] == VALID and clock[T_AS_OF] >= 0 and clock[T_NEXT] - clock[T_AS_OF] > clock[T_STALE_AFTER]:
            grid.rows.status[g] = STALE
            grid.rows.reason[g] = R_SILENCE
            grid.rows.since[g] = clock[T_AS_OF] + clock[T_STALE_AFTER]
        else:
            grid.rows.status[g] = clock[T_STATUS]
            grid.rows.reason[g] = clock[T_REASON]
            grid.rows.since[g] = clock[T_SINCE]
        clock[T_GRID] = g + 1
        clock[T_NEXT] += clock[T_INTERVAL]
    return True


@inner
def wanted(clock, windows, now):
    """Whether `now` lies in a window, and the time from which on that may be otherwise; moves on past windows that have ended."""
    w = clock[T_WINDOW]
    while w < windows.end.shape[0] and now >= windows.end[w]:
        w += 1
    clock[T_WINDOW] = w
    if w >= windows.end.shape[0]:
        return False, NEVER
    return (True, windows.end[w]) if now >= windows.start[w] else (False, windows.start[w])


@inner
def trade_row(clock, top, trades, i):
    """Note the trade at record i with the touch before its event."""
    r = clock[T_TRADES]
    trades.at[r] = i
    for side in range(2):
        trades.touch[side, r] = top.px[side, 0]
        trades.touch[2 + side, r] = top.sz[side, 0]
    trades.status[r] = clock[T_STATUS]
    trades.reason[r] = clock[T_REASON]
    trades.since[r] = clock[T_SINCE]
    clock[T_TRADES] = r + 1


@inner
def event_end(clock, top, rows, bbo, depth, i, now, status, reason, is_wanted):
    """The event that ends with record i, at clock time now, is in the cached top: write its mbp row, and a bbo row when the touch
    changed. The caller notes T_AS_OF and T_SEQUENCE."""
    if clock[T_STATUS] != status or clock[T_REASON] != reason:
        clock[T_STATUS] = status
        clock[T_REASON] = reason
        clock[T_SINCE] = now
    if not is_wanted:
        return
    r = clock[T_ROWS]
    for word in range(PACKED_WORDS * depth):
        rows.levels[r, word] = top.packed[word]
    rows.at[r] = i
    rows.status[r] = status
    rows.reason[r] = reason
    rows.since[r] = clock[T_SINCE]
    clock[T_ROWS] = r + 1
    last = top.last
    changed = last[6] != status or last[7] != reason
    for side in range(2):
        if last[side] != top.px[side, 0] or last[2 + side] != top.sz[side, 0] or last[4 + side] != top.ct[side, 0]:
            changed = True
    if changed:
        b = clock[T_BBO]
        copy_levels(bbo, b, top, 1)
        bbo.at[b] = i
        bbo.status[b] = status
        bbo.reason[b] = reason
        bbo.since[b] = clock[T_SINCE]
        clock[T_BBO] = b + 1
        for side in range(2):
            last[side] = top.px[side, 0]
            last[2 + side] = top.sz[side, 0]
            last[4 + side] = top.ct[side, 0]
        last[6] = status
        last[7] = reason
