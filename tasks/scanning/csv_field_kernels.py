"""One field of text to an integer, and what every parser of lines agrees on: status codes, limits, line ends. Nothing here is a float.

Belongs here: compiled parsers of a single field. Rows of event files are parsed in `csv_kernels.py`, LOBSTER's in `lobster_kernels.py`; streams,
headers and errors are in `csv_lines.py`, `csv_source.py` and `lobster.py`.

Every buffer ends with a newline. A field parser stops at the first byte that it does not take, and never takes a newline, so none of them needs
a bounds check. It returns (status, value, position after). buf uint8[n]; p where the field starts. Twins: tests/oracles/naive_csv.py
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import njit
from tasks.schemas import UNDEF_PRICE

# Without reference counts on arrays (no kernel here makes one): a counted argument costs two atomic additions per call of a field parser,
# 1,230 ns a row against 360, and 280 with the field parsers inlined. They are inlined into the kernels of other modules too.
kernel = njit(nogil=True, cache=True, _nrt=False)  # type: ignore[call-overload]
field = njit(nogil=True, cache=True, _nrt=False, forceinline=True)  # type: ignore[call-overload]

# Why a line is bad: position = status code. MALFORMED is replaced by the column's own word before it leaves the kernel.
REASONS = (
    "", "malformed", "columns", "integer", "price", "time", "action", "side", "is_last", "symbol", "size_negative", "price_nan",
    "overflow", "quote", "line_too_long", "message_type", "direction", "orderbook",
)  # fmt: skip
(
    OK, MALFORMED, COLUMNS, INTEGER, PRICE, TIME, ACTION, SIDE, IS_LAST, SYMBOL, SIZE_NEGATIVE, PRICE_NAN,
    OVERFLOW, QUOTE, LINE_TOO_LONG, MESSAGE_TYPE, DIRECTION, ORDERBOOK,
) = range(18)  # fmt: skip

# What a parse carries from one call to the next: int64[STATE_SIZE].
ROW, PRICE_MODE, DATE_KEY, DATE_NS, SYMBOL_COUNT, STATE_SIZE = 0, 1, 2, 3, 4, 5
DECIMAL_PRICES, INTEGER_PRICES, UNDECIDED_PRICES = 0, 1, 2
INTEGER_PRICE_FLOOR = 1_000_000  # below it (0.001 in units of 1e-9) a price without a point is a decimal whose zeros were dropped

MAX_LINE = 1 << 20  # bytes of a line without its end; a longer one is one bad row
DAY_NS = 86_400_000_000_000
LF, CR, QUOTE_MARK, COMMA, MINUS = 10, 13, 34, 44, 45

_TEN = np.uint64(10)
_U64_TENTH, _U64_REST = np.uint64(np.iinfo(np.uint64).max // 10), np.iinfo(np.uint64).max % 10
_I64_MAX = np.uint64(np.iinfo(np.int64).max)
_WHOLE_MAX, _FRACTION_MAX = 9_223_372_036, 854_775_807  # 2^63-1 in units of 1e-9
_TRUE, _FALSE = tuple(b"true"), tuple(b"false")
_POWERS = tuple(10**k for k in range(10))
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PLUS, _POINT, _COLON = 43, 46, 58


@field
def parse_unsigned(buf, p):
    """Digits -> uint64 (OVERFLOW above 2^64-1). buf uint8[n]; p where the field starts."""
    first, fast, value = p, p + 18, np.int64(0)
    while p < fast and 48 <= buf[p] <= 57:  # 18 digits fit an int64
        value = value * 10 + (np.int64(buf[p]) - 48)
        p += 1
    status, big = MALFORMED if p == first else OK, np.uint64(value)
    while 48 <= buf[p] <= 57:
        digit = np.int64(buf[p]) - 48
        if big > _U64_TENTH or (big == _U64_TENTH and digit > _U64_REST):
            status = OVERFLOW
        else:
            big = big * _TEN + np.uint64(digit)
        p += 1
    return status, big, p


@field
def parse_signed(buf, p):
    """Digits with an optional minus -> int64 in +-(2^63-1)."""
    negative = buf[p] == MINUS
    status, big, p = parse_unsigned(buf, p + 1 if negative else p)
    if status == OK and big > _I64_MAX:
        status = OVERFLOW
    value = np.int64(big & _I64_MAX)
    return status, -value if negative else value, p


@field
def parse_decimal(buf, p, exact):
    """Decimal number -> int64 in units of 1e-9. A tenth decimal must be 0, as must all after it; no exponent, no plus sign.

    Not `exact`: the tenth decimal rounds, half up, and the rest is dropped. Only LOBSTER's seconds are read so: real files have a few that went
    through a float ("43002.632812672004"), whose error is far below half a nanosecond.
    """
    negative = buf[p] == MINUS
    if negative:
        p += 1
    first, whole, fraction, decimals, status = p, np.int64(0), np.int64(0), 0, OK
    while 48 <= buf[p] <= 57:
        if whole <= _WHOLE_MAX:  # beyond, the value is too large whatever follows
            whole = whole * 10 + (np.int64(buf[p]) - 48)
        p += 1
    digits = p - first
    if buf[p] == _POINT:
        p += 1
        while 48 <= buf[p] <= 57:
            if decimals < 9:
                fraction = fraction * 10 + (np.int64(buf[p]) - 48)
            elif exact and buf[p] != 48:
                status = MALFORMED
            elif decimals == 9 and buf[p] >= 53:
                fraction += 1
            decimals += 1
            p += 1
    if decimals < 9:
        fraction *= _POWERS[9 - decimals]
    if digits + decimals == 0:
        status = MALFORMED
    if status == OK and (whole > _WHOLE_MAX or (whole == _WHOLE_MAX and fraction > _FRACTION_MAX)):
        status = OVERFLOW
    value = np.int64(0) if status != OK else whole * 1_000_000_000 + fraction
    return status, -value if negative else value, p


@field
def parse_price(buf, p, state):
    """Price of an event -> int64 1e-9; empty is UNDEF_PRICE; PRICE_NAN for "nan" in any case.

    state[PRICE_MODE]: decimal text, or integers that are in 1e-9 already; undecided, the first price of the file decides (it is an integer when it
    has no point and at least INTEGER_PRICE_FLOOR). In an integer file a point is malformed: nothing is rescaled silently.
    """
    byte = buf[p]
    if byte in (COMMA, LF, QUOTE_MARK) or (byte == CR and buf[p + 1] == LF):
        return OK, UNDEF_PRICE, p
    if byte | 32 == 110 and buf[p + 1] | 32 == 97 and buf[p + 2] | 32 == 110:
        return PRICE_NAN, UNDEF_PRICE, p + 3
    if state[PRICE_MODE] == DECIMAL_PRICES:
        return parse_decimal(buf, p, True)
    status, value, stop = parse_signed(buf, p)
    if state[PRICE_MODE] == UNDECIDED_PRICES:
        whole = status == OK and buf[stop] != _POINT and abs(value) >= INTEGER_PRICE_FLOOR
        if not whole:
            status, value, stop = parse_decimal(buf, p, True)
        if value != 0:
            state[PRICE_MODE] = INTEGER_PRICES if whole else DECIMAL_PRICES
    return status, value, stop


@field
def _digits(buf, p, count):
    """Exactly `count` digits from p, else -1."""
    value = np.int64(0)
    for k in range(p, p + count):
        if not 48 <= buf[k] <= 57:
            return np.int64(-1)
        value = value * 10 + (np.int64(buf[k]) - 48)
    return value


@kernel
def _date_ns(year, month, day):
    """ns from the epoch to 00:00 UTC of a Gregorian date of 1678 to 2261, else -2^63."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not (1678 <= year <= 2261 and 1 <= month <= 12 and day >= 1) or day > _DAYS[month - 1] + (leap and month == 2):
        return np.int64(-1 << 63)
    # Days since 0000-03-01 (H. Hinnant, chrono-compatible low-level date algorithms, days_from_civil).
    y = year - (month <= 2)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return np.int64((365 * y + y // 4 - y // 100 + y // 400 + day_of_year - 719_468) * DAY_NS)


@field
def _offset(buf, p):
    """(OK or MALFORMED, minutes east of UTC, position after) of Z, +HH, +HHMM or +HH:MM (or minus), 0 where none of them stands at p."""
    sign = 1 if buf[p] == _PLUS else -1
    if buf[p] != _PLUS and buf[p] != MINUS:
        return OK, np.int64(0), p + (buf[p] == 90)  # Z
    hours, minutes, p = _digits(buf, p + 1, 2), np.int64(0), p + 3
    if hours >= 0 and (buf[p] == _COLON or 48 <= buf[p] <= 57):
        p += buf[p] == _COLON
        minutes, p = _digits(buf, p, 2), p + 2
    ok = 0 <= hours <= 23 and 0 <= minutes <= 59
    return (OK if ok else MALFORMED), sign * (hours * 60 + minutes), p


@field
def parse_time(buf, p, state):
    """ns since the epoch as an integer, or ISO 8601 "YYYY-MM-DD[T ]HH:MM:SS[.1 to 9 decimals][Z|+HH|+HHMM|+HH:MM]" -> int64 ns.

    UTC without a zone. Decimals beyond the ninth must be 0. No leap seconds. state caches the last date (DATE_KEY, DATE_NS).
    """
    year = _digits(buf, p, 4)
    if year < 0 or buf[p + 4] != MINUS:
        status, big, p = parse_unsigned(buf, p)
        if status == OK and big > _I64_MAX:
            status = OVERFLOW
        return status, np.int64(big & _I64_MAX), p
    month = _digits(buf, p + 5, 2)
    if month < 0 or buf[p + 7] != MINUS:
        return MALFORMED, np.int64(0), p
    day = _digits(buf, p + 8, 2)
    if day < 0 or (buf[p + 10] != 84 and buf[p + 10] != 32):  # T or blank
        return MALFORMED, np.int64(0), p
    key = (year * 100 + month) * 100 + day
    if key != state[DATE_KEY]:
        start = _date_ns(year, month, day)
        if start == np.int64(-1 << 63):
            return MALFORMED, np.int64(0), p
        state[DATE_KEY], state[DATE_NS] = key, start
    p += 11
    hour = _digits(buf, p, 2)
    if not 0 <= hour <= 23 or buf[p + 2] != _COLON:
        return MALFORMED, np.int64(0), p
    minute = _digits(buf, p + 3, 2)
    if not 0 <= minute <= 59 or buf[p + 5] != _COLON:
        return MALFORMED, np.int64(0), p
    # Seconds with their decimals, "SS[.fffffffff]": two digits and then what a decimal may have.
    second = _digits(buf, p + 6, 2)
    if not 0 <= second <= 59:
        return MALFORMED, np.int64(0), p
    status, ns, stop = parse_decimal(buf, p + 6, True)
    if status != OK or buf[stop - 1] == _POINT or (stop > p + 8 and buf[p + 8] != _POINT):
        return MALFORMED, np.int64(0), p
    status, east, stop = _offset(buf, stop)
    if status != OK:
        return MALFORMED, np.int64(0), p
    return OK, state[DATE_NS] + (hour * 60 + minute - east) * 60_000_000_000 + ns, stop


@kernel
def _word(buf, p, word):
    """Position after `word` (lower-case codes) at p in any case, else -1."""
    for k in range(len(word)):
        if buf[p + k] | 32 != word[k]:
            return -1
    return p + len(word)


@kernel
def parse_bool(buf, p):
    """0, 1, true or false in any case -> int64 0 or 1."""
    if buf[p] == 48 or buf[p] == 49:
        return OK, np.int64(buf[p]) - 48, p + 1
    yes = _word(buf, p, _TRUE)
    stop = yes if yes >= 0 else _word(buf, p, _FALSE)
    return (OK if stop >= 0 else MALFORMED), np.int64(yes >= 0), max(stop, p)


@field
def text_end(buf, p):
    """First delimiter, quote or line end from p."""
    while not (buf[p] == COMMA or buf[p] == LF or buf[p] == QUOTE_MARK or (buf[p] == CR and buf[p + 1] == LF)):
        p += 1
    return p
