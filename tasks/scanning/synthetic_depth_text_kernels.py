"""Messages of a generated depth archive as lines of Bybit's JSON. What changes in the book is decided in synthetic_depth_kernels.py."""

from __future__ import annotations

import numpy as np

from tasks.kernels import kernel
from tasks.scanning.synthetic_clock_kernels import draw, exponential
from tasks.scanning.synthetic_depth_kernels import next_message

LEVEL_BYTES = 56  # no level is longer
LINE_BYTES = 512  # no line is longer, its levels left out
RESTART, GAP, RESUME, NEXT_DAY, WRONG_NEXT_DAY = range(5)  # planned events
SLOT, KIND, LINE, EVENT_SIZE = range(4)
LOST = 3  # messages in a gap
# Texts of a line, in the order of `parts`.
TOPIC, TYPE_SNAPSHOT, TYPE_DELTA, TS, DATA, ASKS, UPDATE_ID, SEQUENCE, CTS, END = range(10)
_ZERO, _QUOTE, _COMMA, _POINT, _OPEN, _CLOSE = tuple(b'0",.[]')


@kernel
def _put(out, at, parts, ends, which):
    """Write one of the fixed texts; returns the place after it."""
    for i in range(ends[which], ends[which + 1]):
        out[at] = parts[i]
        at += 1
    return at


@kernel
def _put_decimal(out, at, value, digits, trimmed):
    """Write value * 10^-digits, without trailing zeros when `trimmed`; a plain 0 for nothing. Returns the place after it."""
    if value == 0:
        out[at] = _ZERO
        return at + 1
    while trimmed and digits > 0 and value % 10 == 0:
        value, digits = value // 10, digits - 1
    width, power = 1, 10
    while width < 18 and (value >= power or width <= digits):
        width, power = width + 1, power * 10
    stop = at + width + (1 if digits > 0 else 0)
    for i in range(width):
        if i == digits and digits > 0:
            out[stop - 1 - i] = _POINT
        out[stop - 1 - i - (1 if i >= digits > 0 else 0)] = _ZERO + value % 10
        value //= 10
    return stop


@kernel
def _put_levels(state, out, at, keys, sizes, n):
    """Write n levels of one side with their commas; returns the place after them."""
    for i in range(n):
        out[at], out[at + 1] = _OPEN, _QUOTE
        at = _put_decimal(out, at + 2, abs(keys[i]) * state["tick"], state["price_digits"], state["spot"])
        out[at], out[at + 1], out[at + 2] = _QUOTE, _COMMA, _QUOTE
        at = _put_decimal(out, at + 3, sizes[i], state["size_digits"], state["spot"])
        out[at], out[at + 1], out[at + 2] = _QUOTE, _CLOSE, _COMMA
        at += 3
    return at - 1 if n else at


@kernel
def _put_line(state, out, at, texts, is_snapshot, ms, levels, n_bids, n_asks):
    """Write one message of the first n levels of each side; returns the place after it."""
    parts, ends = texts
    at = _put(out, at, parts, ends, TOPIC)
    kind = TYPE_SNAPSHOT if is_snapshot else TYPE_DELTA
    for k in range(2):
        if k == state["spot"]:
            at = _put(out, at, parts, ends, kind)
        else:
            at = _put_decimal(out, _put(out, at, parts, ends, TS), ms, 0, 0)
    at = _put_levels(state, out, _put(out, at, parts, ends, DATA), levels.keys[0], levels.sizes[0], n_bids)
    at = _put_levels(state, out, _put(out, at, parts, ends, ASKS), levels.keys[1], levels.sizes[1], n_asks)
    at = _put_decimal(out, _put(out, at, parts, ends, UPDATE_ID), state["update_id"], 0, 0)
    at = _put_decimal(out, _put(out, at, parts, ends, SEQUENCE), state["sequence"], 0, 0)
    if state["cts"]:
        at = _put_decimal(out, _put(out, at, parts, ends, CTS), ms - 1 - np.int64(3.0 * exponential(state)), 0, 0)
    if state["lines"] == 0:
        state["first_ms"] = ms
    state["last_ms"] = ms
    state["lines"] += 1
    state["updates"] += n_bids + n_asks
    return _put(out, at, parts, ends, END)


@kernel
def _put_event(state, book, changes, event, out, at, texts, ms):
    """What was planned for this slot: messages that are lost, or a snapshot; returns the place after it."""
    event[LINE] = state["lines"]
    if event[KIND] == GAP:
        for _ in range(LOST):
            next_message(state, book, changes)
        return at
    depth = book.keys.shape[1]
    if event[KIND] == WRONG_NEXT_DAY:
        for i in range(0, depth, 1 + depth // 3):
            book.sizes[1, i] += 1
    state["sequence"] += 1
    state["update_id"] = 1 if event[KIND] == RESTART else state["update_id"] + 1
    at = _put_line(state, out, at, texts, True, ms, book, depth, depth)
    if event[KIND] == WRONG_NEXT_DAY:
        for i in range(0, depth, 1 + depth // 3):
            book.sizes[1, i] -= 1
    return at


@kernel
def put_day(state, book, changes, events, texts, out):
    """Write messages until the day is over or `out` has no room for a snapshot; returns the bytes, 0 at the end.

    state STATE[1] row, book, changes: as in synthetic_depth_kernels; events int64[n, EVENT_SIZE] by slot, a last one beyond the day, line filled in;
    texts: the fixed parts uint8 and their ends int64 with a 0 before; out uint8: written.
    """
    at, room = 0, 2 * max(book.keys.shape[1], changes.keys.shape[1]) * LEVEL_BYTES + LINE_BYTES
    while state["slot"] < state["slots"] and at + 2 * room <= len(out):
        slot = state["slot"]
        state["slot"] += 1
        # Times wander a little round the interval, as the real ones do.
        ms = state["start_ms"] + slot * state["interval_ms"] + np.int64(4.0 * draw(state))
        event = events[state["event"]]
        if event[SLOT] == slot:
            state["event"] += 1
            at = _put_event(state, book, changes, event, out, at, texts, ms)
            if event[KIND] != GAP:
                continue
        if state["outage_from"] <= slot < state["outage_to"] or (draw(state) < state["quiet"] and event[SLOT] != slot):
            continue
        next_message(state, book, changes)
        at = _put_line(state, out, at, texts, False, ms, changes, changes.filled[0], changes.filled[1])
    return at
