"""Records as the bytes of CSV lines. Oracle: the same lines made with Python's own formatting, in tests/unit/test_synthetic.py."""

from __future__ import annotations

import numpy as np

from tasks.scanning.synthetic_book_kernels import kernel
from tasks.schemas import F_LAST, UNDEF_PRICE

_TO_FRACTION = len("2025-10-22T13:30:00.")
LINE_BYTES = 256  # no line is longer, its symbol left out
_ZERO, _COMMA, _DASH, _COLON, _POINT, _T, _Z, _NEWLINE = 48, 44, 45, 58, 46, 84, 90, 10


@kernel
def _fixed(out, at, value, width):
    """Write `width` digits of value >= 0 with leading zeros; returns the place after them."""
    for i in range(at + width - 1, at - 1, -1):
        rest = value // 10
        out[i] = _ZERO + (value - 10 * rest)
        value = rest
    return at + width


@kernel
def _number(out, at, value):
    """Write an integer without leading zeros; returns the place after it."""
    if value < 0:
        out[at] = _DASH
        at, value = at + 1, -value
    width, power = 1, 10
    while width < 19 and value >= power:
        width, power = width + 1, power * 10
    return _fixed(out, at, value, width)


@kernel
def _time(out, at, ns, like):
    """Write 2025-10-22T13:30:00.000000001Z for ns since the epoch UTC; returns the place after it.

    like: place of a time in the same second, from which all but the fraction is copied (a third of a line's cost), or -1.
    """
    if like >= 0:
        for i in range(_TO_FRACTION):
            out[at + i] = out[like + i]
        at += _TO_FRACTION
    else:
        at = _second(out, at, ns // 1_000_000_000)
    at = _fixed(out, at, ns % 1_000_000_000, 9)
    out[at] = _Z
    return at + 1


@kernel
def _second(out, at, seconds):
    """Write 2025-10-22T13:30:00. for seconds since the epoch; returns the place after it. Gregorian days after H. Hinnant (2013)."""
    days = seconds // 86_400
    era_day = (days + 719_468) % 146_097
    era = (days + 719_468) // 146_097
    year_of_era = (era_day - era_day // 1_460 + era_day // 36_524 - era_day // 146_096) // 365
    day_of_year = era_day - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    year = year_of_era + 400 * era + (1 if month >= 10 else 0)
    at = _fixed(out, at, year, 4)
    out[at] = _DASH
    at = _fixed(out, at + 1, month + 3 if month < 10 else month - 9, 2)
    out[at] = _DASH
    at = _fixed(out, at + 1, day, 2)
    out[at] = _T
    at = _fixed(out, at + 1, seconds // 3_600 % 24, 2)
    out[at] = _COLON
    at = _fixed(out, at + 1, seconds // 60 % 60, 2)
    out[at] = _COLON
    at = _fixed(out, at + 1, seconds % 60, 2)
    out[at] = _POINT
    return at + 1


@kernel
def _price(out, at, price):
    """Write a price (1e-9) with nine decimals, nothing when undefined; returns the place after it."""
    if price == UNDEF_PRICE:
        return at
    if price < 0:
        out[at] = _DASH
        at, price = at + 1, -price
    whole = price // 1_000_000_000
    at = _number(out, at, whole)
    out[at] = _POINT
    return _fixed(out, at + 1, price - whole * 1_000_000_000, 9)


@kernel
def _field(out, at, value):
    """Write an integer and a comma; returns the place after them."""
    at = _number(out, at, value)
    out[at] = _COMMA
    return at + 1


@kernel
def mbo_lines(records, codes, names, ends, out):
    """Databento's CSV lines: ts_recv, ts_event, rtype, publisher_id, instrument_id, action, side, price, size, channel_id, order_id, flags,
    ts_in_delta, sequence, symbol.

    records MBO_RECORD[n]; codes int64[n]: symbol of each; names uint8: all symbols in a row, symbol c ends before ends[c], int64;
    out uint8[>= n * (LINE_BYTES + longest symbol)]. Returns the bytes written.
    """
    at, recv_like, event_like = 0, -1, -1
    recv_second, event_second = np.int64(-1), np.int64(-1)
    for i in range(len(records)):
        row = records[i]
        recv, event = np.int64(row["ts_recv"]), np.int64(row["ts_event"])
        place, at = at, _time(out, at, recv, recv_like if recv // 1_000_000_000 == recv_second else -1)
        recv_like, recv_second = place, recv // 1_000_000_000
        out[at] = _COMMA
        place, at = at + 1, _time(out, at + 1, event, event_like if event // 1_000_000_000 == event_second else -1)
        event_like, event_second = place, event // 1_000_000_000
        out[at] = _COMMA
        at = _field(out, at + 1, np.int64(row["rtype"]))
        at = _field(out, at, np.int64(row["publisher_id"]))
        at = _field(out, at, np.int64(row["instrument_id"]))
        at = _letters(out, at, row)
        at = _price(out, at, np.int64(row["price"]))
        out[at] = _COMMA
        at = _field(out, at + 1, np.int64(row["size"]))
        at = _field(out, at, np.int64(row["channel_id"]))
        at = _field(out, at, np.int64(row["order_id"]))
        at = _field(out, at, np.int64(row["flags"]))
        at = _field(out, at, np.int64(row["ts_in_delta"]))
        at = _field(out, at, np.int64(row["sequence"]))
        for j in range(ends[codes[i] - 1] if codes[i] > 0 else 0, ends[codes[i]]):
            out[at] = names[j]
            at += 1
        out[at] = _NEWLINE
        at += 1
    return at


@kernel
def _letters(out, at, row):
    """Write action and side, each with a comma; returns the place after them."""
    out[at] = row["action"]
    out[at + 1] = _COMMA
    out[at + 2] = row["side"]
    out[at + 3] = _COMMA
    return at + 4


@kernel
def seven_lines(records, out):
    """Lines of ts_event, action, side, price, size, order_id, is_last. records MBO_RECORD[n]; out uint8[>= n * LINE_BYTES]. Returns the bytes."""
    at, like, second = 0, -1, np.int64(-1)
    for i in range(len(records)):
        row = records[i]
        event = np.int64(row["ts_event"])
        place, at = at, _time(out, at, event, like if event // 1_000_000_000 == second else -1)
        like, second = place, event // 1_000_000_000
        out[at] = _COMMA
        at = _letters(out, at + 1, row)
        at = _price(out, at, np.int64(row["price"]))
        out[at] = _COMMA
        at = _field(out, at + 1, np.int64(row["size"]))
        at = _field(out, at, np.int64(row["order_id"]))
        out[at] = _ZERO + (1 if row["flags"] & F_LAST else 0)
        out[at + 1] = _NEWLINE
        at += 2
    return at
