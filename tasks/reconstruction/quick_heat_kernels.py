"""Resting size by time and price in one replay, when neither the end of time nor the range of prices is known before. Shapes are in `Canvas`.

Only whole events are seen. A column's integral (size times ns) is kept as if nothing more changed until the column ends, so that a change costs two
additions however long its level rested; whole columns are written when their end is passed. Columns lie one after another in time, because the
rows near the touch then share cache lines.
Twin: tests/oracles/naive_heatmap.py
"""

from __future__ import annotations

from collections import namedtuple

from tasks.kernels import inner, kernel
from tasks.reconstruction.book_kernels import (
    A_CLEAR,
    A_NONE,
    A_TRADE,
    BEST,
    C_QUARANTINED,
    FREE,
    HALTED_STATE,
    IN_SNAPSHOT,
    R_HALT,
    REASON,
    STATUS,
    TOUCHED,
    TOUCHED_ROOM,
    USED,
    apply_record,
    set_aside,
)
from tasks.reconstruction.order_table_kernels import ask_ahead, shift_of
from tasks.reconstruction.record_check_kernels import note_halt
from tasks.schemas import F_LAST, F_SNAPSHOT, F_TOB, HALTED, UNDEF_PRICE, VALID

# Columns of one batch, length n, of any stride: action, side, flags uint8; rank int32 (-1 undefined); size uint32; order_id uint64;
# clock, snapshot_clock int64 ns, the latter for records of a snapshot; marks int64[m]: records before which a bad row stood, ascending
Rows = namedtuple("Rows", "action side flags rank size order_id clock snapshot_clock marks")

# plane float32[columns, 2, bins] mean size, written column by column; integral float64[2, bins] size ns of the present column; held int64[2, bins]
# size now; seen int64[2 * width] the size of each level that is in `held`; bin_of int32[2 * width] bin of each level, BELOW or ABOVE outside;
# edges int64[columns + 1] ns; touch int64[columns, 2] bid and ask at the end of each column; rested float64[2, bins] ns that the touch stood in
# each bin, what is outside in the first and last; spans int64[room, 3] start ns, status, reason, from each change on; trades int32[n];
# notes int64[NOTES], see below
Canvas = namedtuple("Canvas", "plane integral held seen bin_of edges touch rested spans trades notes")

COLUMN = 0  # present column
NOW = 1  # running clock ns
LAST_END = 2  # clock of the last event end, -1 before the first
WHOLE = 3  # 1 when every level has to be looked at, at the next event end
SEEN_STATUS, SEEN_REASON = 4, 5  # as of the last event end, -1 before the first
SPANS = 6  # used of spans
TRADES = 7  # used of trades
TOUCH = 8  # 8, 9: bid and ask price at the last event end
PLACE = 10  # 10, 11: their levels, -1 none
SINCE = 12  # 12, 13: clock since when
LOWEST, HIGHEST = 14, 15  # bins ever used
NOTES = 16

BELOW, ABOVE = -1, -2
ALL_DONE, NO_COLUMNS, POOL_FULL, SPANS_FULL = range(4)


@inner
def _next_column(canvas):
    """Write the present column and begin the next one."""
    notes = canvas.notes
    column = notes[COLUMN]
    length = canvas.edges[column + 1] - canvas.edges[column]
    share = 1.0 / length
    follows = float(canvas.edges[column + 2] - canvas.edges[column + 1]) if column + 2 < canvas.edges.shape[0] else 0.0
    for side in range(2):
        canvas.touch[column, side] = notes[TOUCH + side]
        for row in range(notes[LOWEST], notes[HIGHEST] + 1):
            canvas.plane[column, side, row] = canvas.integral[side, row] * share
            canvas.integral[side, row] = canvas.held[side, row] * follows
    notes[COLUMN] = column + 1


@inner
def _level_now(canvas, width, place, size, rest):
    """Take a level's size over; rest: ns until the present column ends."""
    delta = size - canvas.seen[place]
    if delta != 0:
        canvas.seen[place] = size
        row = canvas.bin_of[place]
        if row >= 0:
            side = 1 if place >= width else 0
            canvas.held[side, row] += delta
            canvas.integral[side, row] += float(delta) * rest
            if row < canvas.notes[LOWEST]:
                canvas.notes[LOWEST] = row
            if row > canvas.notes[HIGHEST]:
                canvas.notes[HIGHEST] = row


@kernel
def look_at_all(book, canvas, rest):
    """Take the size of every level over."""
    width = book.prices.shape[0]
    for place in range(2 * width):
        book.levels[place]["noted"] = 0
        _level_now(canvas, width, place, book.levels[place]["size"], rest)
    book.state[TOUCHED] = 0
    canvas.notes[WHOLE] = 0


@inner
def _note_touch(book, canvas, width, side, time):
    """The touch of a side moved: book the time it stood where it was."""
    notes = canvas.notes
    level = book.state[BEST + side]
    place = notes[PLACE + side]
    if place >= 0:
        row = canvas.bin_of[place]
        if row < 0:
            row = 0 if row == BELOW else canvas.rested.shape[1] - 1
        canvas.rested[side, row] += time - notes[SINCE + side]
    notes[SINCE + side] = time
    notes[PLACE + side] = side * width + level if level >= 0 else -1
    notes[TOUCH + side] = UNDEF_PRICE if level < 0 else book.prices[level if side == 0 else width - 1 - level]


@inner
def _note_status(canvas, time, status, reason):
    """Begin a span."""
    notes = canvas.notes
    at = notes[SPANS]
    canvas.spans[at, 0] = time
    canvas.spans[at, 1] = status
    canvas.spans[at, 2] = reason
    notes[SPANS] = at + 1
    notes[SEEN_STATUS] = status
    notes[SEEN_REASON] = reason


@kernel
def paint(rows, start, n, book, canvas, halts):
    """Replay records start..n-1 of a batch and paint them; halts: N records with a price tell the trading state.

    Returns (code, next record, not applied yet): ALL_DONE; NO_COLUMNS (the event that ends there lies beyond the last edge: make columns longer,
    or say with COLUMN = columns that no more are wanted); POOL_FULL (give the book room); SPANS_FULL (give the spans room).
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    notes = canvas.notes
    columns = canvas.plane.shape[0]
    mark = 0
    while mark < rows.marks.shape[0] and rows.marks[mark] < start:
        mark += 1
    marked = rows.marks[mark] if mark < rows.marks.shape[0] else n
    # What is looked at for every event is kept in registers.
    now, last_end = notes[NOW], notes[LAST_END]
    best_bid = notes[PLACE]
    best_ask = notes[PLACE + 1] - width if notes[PLACE + 1] >= 0 else -1
    column_ends = canvas.edges[notes[COLUMN] + 1] if notes[COLUMN] < columns else UNDEF_PRICE
    begins = canvas.edges[0]
    code, at = ALL_DONE, n
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            code, at = POOL_FULL, i
            break
        ask_ahead(book.table, book.orders, rows.order_id, i, n, shift)
        flags = rows.flags[i]
        action = rows.action[i]
        time = max(now, rows.snapshot_clock[i] if flags & F_SNAPSHOT else rows.clock[i])
        ends = (flags & F_LAST) != 0
        if ends and time >= column_ends:
            if time >= canvas.edges[columns]:
                code, at = NO_COLUMNS, i
                break
            while time >= column_ends:
                _next_column(canvas)
                column_ends = canvas.edges[notes[COLUMN] + 1]
        now = time
        while marked == i:
            book.counters[C_QUARANTINED] += 1
            set_aside(state)
            mark += 1
            marked = rows.marks[mark] if mark < rows.marks.shape[0] else n
        if action == A_TRADE:
            canvas.trades[notes[TRADES]] = i
            notes[TRADES] += 1
        if action == A_CLEAR or (flags & F_TOB) != 0 or ((flags & F_SNAPSHOT) != 0 and state[IN_SNAPSHOT] != 1):
            notes[WHOLE] = 1
        if halts and action == A_NONE and rows.rank[i] >= 0:
            note_halt(book, rows.rank[i])
        apply_record(book, width, shift, action, rows.side[i], rows.rank[i], int(rows.size[i]), rows.order_id[i], flags)
        if not ends:
            continue
        last_end = time
        rest = float(column_ends - max(time, begins)) if column_ends != UNDEF_PRICE else 0.0
        touched = state[TOUCHED]
        if notes[WHOLE] != 0 or touched > TOUCHED_ROOM:
            look_at_all(book, canvas, rest)
        else:
            for k in range(touched):
                place = book.touched[k]
                level = book.levels[place]
                level["noted"] = 0
                _level_now(canvas, width, place, level["size"], rest)
            state[TOUCHED] = 0
        if state[BEST] != best_bid:
            best_bid = state[BEST]
            _note_touch(book, canvas, width, 0, time)
        if state[BEST + 1] != best_ask:
            best_ask = state[BEST + 1]
            _note_touch(book, canvas, width, 1, time)
        status, reason = state[STATUS], state[REASON]
        if state[HALTED_STATE] != 0 and status == VALID:
            status, reason = HALTED, R_HALT
        if status != notes[SEEN_STATUS] or reason != notes[SEEN_REASON]:
            _note_status(canvas, time, status, reason)
            if notes[SPANS] == canvas.spans.shape[0]:
                code, at = SPANS_FULL, i + 1
                break
    notes[NOW] = now
    notes[LAST_END] = last_end
    return code, at


@kernel
def write_columns(canvas, until):
    """Write the present column and those after it, so long as they are before `until`."""
    while canvas.notes[COLUMN] < until:
        _next_column(canvas)


@kernel
def move_bins(plane, columns, offset, per_bin, scratch):
    """Bin r of the first `columns` columns becomes (r + offset) // per_bin; what then lies outside is dropped. scratch float32[bins]."""
    bins = plane.shape[2]
    for c in range(columns):
        for side in range(2):
            scratch[:] = 0.0
            for row in range(max(-offset, 0), min(bins, bins * per_bin - offset)):
                scratch[(row + offset) // per_bin] += plane[c, side, row]
            for row in range(bins):
                plane[c, side, row] = scratch[row]


@kernel
def place_levels(prices, low, step, bins, bin_of):
    """bin_of int32[2 * width] written: the bin of each level of an ask and bid ladder of prices int64[width], BELOW or ABOVE outside."""
    width = prices.shape[0]
    for rank in range(width):
        row = (prices[rank] - low) // step
        row = BELOW if row < 0 else (ABOVE if row >= bins else row)
        bin_of[rank] = row
        bin_of[2 * width - 1 - rank] = row


@kernel
def merge_columns(plane, touch, columns, low, high):
    """Join `columns` (even) columns in pairs, in place: bins low..high-1 of plane to their mean, the touch to that at the end of the second.

    What follows the joined ones is not cleared: it is written before it is read.
    """
    for c in range(columns // 2):
        for side in range(2):
            touch[c, side] = touch[2 * c + 1, side]
            for row in range(low, high):
                plane[c, side, row] = (plane[2 * c, side, row] + plane[2 * c + 1, side, row]) * plane.dtype.type(0.5)


@kernel
def resample(plane, edges, wanted, low, per_bin, out):
    """Area-weighted means of the columns of plane (edges int64[columns + 1]) over those of `wanted` int64[width + 1], joined per_bin bins each.

    out float32[width, 2, bins] written from bin `low` of the plane on; outside of the plane nothing rests.
    """
    columns, _, bins = plane.shape
    c = 0
    for j in range(out.shape[0]):
        begin, end = wanted[j], wanted[j + 1]
        out[j] = 0.0
        while c > 0 and edges[c] > begin:
            c -= 1
        while c < columns and edges[c + 1] <= begin:
            c += 1
        while c < columns and edges[c] < end:
            share = out.dtype.type((min(end, edges[c + 1]) - max(begin, edges[c])) / max(end - begin, 1))
            for side in range(2):
                if per_bin == 1 and low >= 0 and low + out.shape[2] <= bins:
                    for row in range(out.shape[2]):
                        out[j, side, row] += share * plane[c, side, low + row]
                else:
                    for row in range(max(-low, 0), min(out.shape[2] * per_bin, bins - low)):
                        out[j, side, row // per_bin] += share * plane[c, side, low + row]
            c += 1
        c = max(c - 1, 0)
