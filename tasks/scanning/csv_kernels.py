"""Text to integers: lines of bytes in, event columns and a status per bad line out. Nothing here is a float.

Belongs here: compiled parsers of fields, of event rows (Databento, seven-column) and of LOBSTER messages and levels. Streams, headers and
errors live in `csv_source.py` and `lobster.py`.

Every buffer ends with a newline at `end - 1`. A field parser stops at the first byte that it does not take, and never takes a newline, so
none of them needs a bounds check. It returns (status, value, position after). Twins: tests/oracles/naive_csv.py
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Without reference counts on arrays (no kernel here makes one): a counted argument costs two atomic additions per call of a field parser,
# 1,230 ns a row against 360, and 280 with the field parsers inlined.
_kernel = njit(nogil=True, cache=True, _nrt=False)  # type: ignore[call-overload]
_field = njit(nogil=True, cache=True, _nrt=False, forceinline=True)  # type: ignore[call-overload]

# Why a line is bad: position = status code. MALFORMED is replaced by the column's own word before it leaves the kernel.
REASONS = (
    "", "malformed", "columns", "integer", "price", "time", "action", "side", "is_last", "symbol", "size_negative", "price_nan",
    "overflow", "quote", "line_too_long", "message_type", "direction", "orderbook",
)  # fmt: skip
(
    OK, MALFORMED, COLUMNS, INTEGER, PRICE, TIME, ACTION, SIDE, IS_LAST, SYMBOL, SIZE_NEGATIVE, PRICE_NAN,
    OVERFLOW, QUOTE, LINE_TOO_LONG, MESSAGE_TYPE, DIRECTION, ORDERBOOK,
) = range(18)  # fmt: skip

# How a column is read.
SKIP, UNSIGNED, SIGNED, DECIMAL, TIMESTAMP, CHAR, BOOL, TEXT = range(8)

# Where a column goes: the position in `tasks.schemas.EVENT_DTYPES`, and three that are no event column.
(
    TS_EVENT, TS_RECV, PUBLISHER, INSTRUMENT, ACTION_AT, SIDE_AT, PRICE_AT, SIZE_AT, ORDER_AT, FLAGS, CHANNEL, DELTA, SEQUENCE,
    LAST_AT, SYMBOL_AT, NOWHERE,
) = range(16)  # fmt: skip

# What a parse carries from one call to the next: int64[STATE_SIZE].
ROW, PRICE_MODE, DATE_KEY, DATE_NS, SYMBOL_COUNT, STATE_SIZE = 0, 1, 2, 3, 4, 5
DECIMAL_PRICES, INTEGER_PRICES, UNDECIDED_PRICES = 0, 1, 2
INTEGER_PRICE_FLOOR = 1_000_000  # below it (0.001 in units of 1e-9) a price without a point is a decimal whose zeros were dropped

# Why `parse_rows` came back.
END, FULL, SYMBOLS_FULL = 0, 1, 2

MAX_LINE = 1 << 20  # bytes of a line without its end; a longer one is one bad row
MAX_SYMBOL = 256  # bytes
BAD_BEFORE, BAD_ROW, BAD_START, BAD_LENGTH, BAD_STATUS, BAD_COLUMN, BAD_SYMBOL, BAD_SIZE = range(8)

_UNDEF_PRICE = np.iinfo(np.int64).max
_LAST = 128
_TEN = np.uint64(10)
_U64_TENTH, _U64_REST = np.uint64(np.iinfo(np.uint64).max // 10), np.iinfo(np.uint64).max % 10
_I64_MAX = np.uint64(np.iinfo(np.int64).max)
_WHOLE_MAX, _FRACTION_MAX = 9_223_372_036, 854_775_807  # 2^63-1 in units of 1e-9
_TRUE, _FALSE = tuple(b"true"), tuple(b"false")
_POWERS = tuple(10**k for k in range(10))
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAY_NS = 86_400_000_000_000
_EMPTY_LEVEL = 9_999_999_999  # LOBSTER's price of a level that is not there
_LOBSTER_UNIT = 100_000  # 1e-4 in units of 1e-9
_LF, _CR, _QUOTE, _COMMA, _MINUS, _POINT, _COLON = 10, 13, 34, 44, 45, 46, 58
_A, _B, _C, _F, _M, _N, _T = 65, 66, 67, 70, 77, 78, 84


@_field
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


@_field
def parse_signed(buf, p):
    """Digits with an optional minus -> int64 in +-(2^63-1)."""
    negative = buf[p] == _MINUS
    status, big, p = parse_unsigned(buf, p + 1 if negative else p)
    if status == OK and big > _I64_MAX:
        status = OVERFLOW
    value = np.int64(big & _I64_MAX)
    return status, -value if negative else value, p


@_field
def parse_decimal(buf, p, exact):
    """Decimal number -> int64 in units of 1e-9. A tenth decimal must be 0, as must all after it; no exponent, no plus sign.

    Not `exact`: the tenth decimal rounds, half up, and the rest is dropped. Only LOBSTER's seconds are read so: real files have a few that went
    through a float ("43002.632812672004"), whose error is far below half a nanosecond.
    """
    negative = buf[p] == _MINUS
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


@_field
def parse_price(buf, p, state):
    """Price of an event -> int64 1e-9; empty is UNDEF_PRICE; PRICE_NAN for "nan" in any case.

    state[PRICE_MODE]: decimal text, or integers that are in 1e-9 already; undecided, the first price of the file decides (it is an integer when it
    has no point and at least INTEGER_PRICE_FLOOR). In an integer file a point is malformed: nothing is rescaled silently.
    """
    byte = buf[p]
    if byte in (_COMMA, _LF, _QUOTE) or (byte == _CR and buf[p + 1] == _LF):
        return OK, _UNDEF_PRICE, p
    if byte | 32 == 110 and buf[p + 1] | 32 == 97 and buf[p + 2] | 32 == 110:
        return PRICE_NAN, _UNDEF_PRICE, p + 3
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


@_field
def _digits(buf, p, count):
    """Exactly `count` digits from p, else -1."""
    value = np.int64(0)
    for k in range(p, p + count):
        if not 48 <= buf[k] <= 57:
            return np.int64(-1)
        value = value * 10 + (np.int64(buf[k]) - 48)
    return value


@_kernel
def _date_ns(year, month, day):
    """ns from the epoch to 00:00 UTC of a Gregorian date of 1678 to 2261, else -2^63."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not (1678 <= year <= 2261 and 1 <= month <= 12 and day >= 1) or day > _DAYS[month - 1] + (leap and month == 2):
        return np.int64(-1 << 63)
    # Days since 0000-03-01 (H. Hinnant, chrono-compatible low-level date algorithms, days_from_civil).
    y = year - (month <= 2)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return np.int64((365 * y + y // 4 - y // 100 + y // 400 + day_of_year - 719_468) * _DAY_NS)


@_field
def parse_time(buf, p, state):
    """ns since the epoch as an integer, or ISO 8601 "YYYY-MM-DD[T ]HH:MM:SS[.1 to 9 decimals][Z|+00:00]" (UTC without a zone) -> int64 ns.

    Decimals beyond the ninth must be 0. No leap seconds, no other zones. state caches the last date (DATE_KEY, DATE_NS).
    """
    year = _digits(buf, p, 4)
    if year < 0 or buf[p + 4] != _MINUS:
        status, big, p = parse_unsigned(buf, p)
        if status == OK and big > _I64_MAX:
            status = OVERFLOW
        return status, np.int64(big & _I64_MAX), p
    month = _digits(buf, p + 5, 2)
    if month < 0 or buf[p + 7] != _MINUS:
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
    if buf[stop] == 90:  # Z
        stop += 1
    elif buf[stop] == 43:  # +00:00
        if _digits(buf, stop + 1, 2) != 0 or buf[stop + 3] != _COLON or _digits(buf, stop + 4, 2) != 0:
            return MALFORMED, np.int64(0), p
        stop += 6
    return OK, state[DATE_NS] + (hour * 60 + minute) * 60_000_000_000 + ns, stop


@_kernel
def _word(buf, p, word):
    """Position after `word` (lower-case codes) at p in any case, else -1."""
    for k in range(len(word)):
        if buf[p + k] | 32 != word[k]:
            return -1
    return p + len(word)


@_kernel
def parse_bool(buf, p):
    """0, 1, true or false in any case -> int64 0 or 1."""
    if buf[p] == 48 or buf[p] == 49:
        return OK, np.int64(buf[p]) - 48, p + 1
    yes = _word(buf, p, _TRUE)
    stop = yes if yes >= 0 else _word(buf, p, _FALSE)
    return (OK if stop >= 0 else MALFORMED), np.int64(yes >= 0), max(stop, p)


@_field
def _text_end(buf, p):
    """First delimiter, quote or line end from p."""
    while not (buf[p] == _COMMA or buf[p] == _LF or buf[p] == _QUOTE or (buf[p] == _CR and buf[p + 1] == _LF)):
        p += 1
    return p


@_field
def _parse_field(buf, p, kind, target, limits, state):
    """One field of `kind` -> (status, int64 value, uint64 magnitude of an unsigned one, position after)."""
    big = np.uint64(0)
    if kind == TIMESTAMP:
        status, value, p = parse_time(buf, p, state)
    elif kind == DECIMAL:
        status, value, p = parse_price(buf, p, state)
    elif kind == UNSIGNED and not (target == SIZE_AT and buf[p] == _MINUS):
        status, big, p = parse_unsigned(buf, p)
        value = np.int64(big & _I64_MAX)
        if target != ORDER_AT and status == OK and big > np.uint64(limits[target]):
            status = OVERFLOW
    elif kind in (UNSIGNED, SIGNED):
        status, value, p = parse_signed(buf, p)
        if kind == UNSIGNED:
            status = MALFORMED if status == MALFORMED else SIZE_NEGATIVE
        elif status == OK and not -limits[target] - 1 <= value <= limits[target]:
            status = OVERFLOW
    elif kind == BOOL:
        status, value, p = parse_bool(buf, p)
    else:
        start, p = p, _text_end(buf, p)
        value = np.int64(buf[start])
        status = OK
        if (kind == CHAR and p != start + 1) or (kind == TEXT and p > start + MAX_SYMBOL):
            status = MALFORMED
    return status, value, big, p


@_kernel
def _parse_row(buf, p, columns, limits, state, values):
    """One line into values int64[16] by target -> (status, column, order id, symbol from, symbol to, position of the newline).

    status is the first field's that fails; `_survey` has the last word on quotes and on the number of columns.
    """
    order, symbol_from, symbol_to, price_nan = np.uint64(0), p, p, False
    last = len(columns) - 1
    for column in range(len(columns)):
        target = columns[column, 1]
        quoted = buf[p] == _QUOTE
        if quoted:
            p += 1
        start = p
        status, value, big, p = _parse_field(buf, p, columns[column, 0], target, limits, state)
        if status == PRICE_NAN:
            status, price_nan = OK, True
        stop = p
        if quoted and buf[p] == _QUOTE:
            p += 1
        elif quoted:
            status = QUOTE
        if buf[p] == _CR and buf[p + 1] == _LF:
            p += 1
        # A malformed field stops anywhere; any other must stop where the field does.
        if status == MALFORMED or not (buf[p] == _COMMA or buf[p] == _LF):
            return columns[column, 2], column, order, symbol_from, symbol_to, p
        if status == OK and (buf[p] == _LF) != (column == last):
            status = COLUMNS
        if status != OK:
            return status, column, order, symbol_from, symbol_to, p
        values[target] = value
        if target == ORDER_AT:
            order = big
        elif target == SYMBOL_AT:
            symbol_from, symbol_to = start, stop
        p += 1
    action = values[ACTION_AT]
    if price_nan and action in (_A, _C, _M, _T, _F):
        for column in range(len(columns)):
            if columns[column, 1] == PRICE_AT:
                return PRICE_NAN, column, order, symbol_from, symbol_to, p - 1
    return OK, -1, order, symbol_from, symbol_to, p - 1


@_kernel
def _survey(buf, start, symbol_column):
    """The shape of a bad line -> (length without line end, position of the newline, fields, quotes well-formed, symbol from, symbol to)."""
    p, field, clean, symbol_from, symbol_to = start, 0, True, -1, -1
    while True:
        quoted = buf[p] == _QUOTE
        first = p + 1 if quoted else p
        p = _text_end(buf, first)
        stop = p
        if quoted and buf[p] == _QUOTE:
            p += 1
            quoted = False
        if quoted or not (buf[p] == _COMMA or buf[p] == _LF or buf[p] == _CR):
            clean = False
        while buf[p] != _COMMA and buf[p] != _LF:
            p += 1
        if field == symbol_column:
            symbol_from, symbol_to = first, stop
        field += 1
        if buf[p] == _LF:
            break
        p += 1
    length = p - start
    if length > 0 and buf[p - 1] == _CR:
        length -= 1
    return length, p, field, clean, symbol_from, symbol_to


@_kernel
def _hash(buf, start, stop, mask):
    value = np.int64(0)
    for k in range(start, stop):
        value = (value * 31 + np.int64(buf[k])) & 0x3FFFFFFFFFFFFF
    return (value ^ (value >> 17)) & mask


@_kernel
def index_symbols(slots, starts, arena, count):
    """Fill slots int32[2^k] (-1 free) with the codes 0..count-1 of the names arena[starts[c]:starts[c + 1]]."""
    slots[:] = -1
    for code in range(count):
        slot = _hash(arena, starts[code], starts[code + 1], len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = code


@_field
def _intern(buf, start, stop, slots, starts, arena, state):
    """Code of the name buf[start:stop], a new one if need be; -1 when the table is full (see `csv_source.SymbolTable`)."""
    count, size, mask = state[SYMBOL_COUNT], stop - start, len(slots) - 1
    slot = _hash(buf, start, stop, mask)
    while slots[slot] >= 0:
        at = starts[slots[slot]]
        same = starts[slots[slot] + 1] - at == size
        k = 0
        while same and k < size:
            same = arena[at + k] == buf[start + k]
            k += 1
        if same:
            return np.int64(slots[slot])
        slot = (slot + 1) & mask
    if 2 * (count + 1) > len(slots) or starts[count] + size > len(arena):
        return np.int64(-1)
    slots[slot] = count
    for k in range(size):
        arena[starts[count] + k] = buf[start + k]
    starts[count + 1] = starts[count] + size
    state[SYMBOL_COUNT] = count + 1
    return count


@_kernel
def parse_rows(buf, p, end, columns, limits, state, symbols, out, line_start, source_row, symbol_code, bad, values):
    """Parse the lines of buf[p:end] until it ends or an output is full.

    buf uint8[n], buf[end - 1] a newline; columns int64[c, 3]: kind, target, reason when malformed, per column of the header;
    limits int64[13]: largest value per target; state int64[STATE_SIZE]; symbols: (slots int32[2^k], starts int64[k + 1], arena uint8[m]), changed;
    out: the 13 arrays of EVENT_DTYPES, written; line_start, source_row int64[n], symbol_code int32[n] written; bad int64[b, BAD_SIZE] written;
    values int64[16]: scratch, 0 where no column goes.
    Blank lines are no rows. Returns (END, FULL or SYMBOLS_FULL, position of the first line not taken, rows, bad rows).
    Twin: tests/oracles/naive_csv.py
    """
    slots, starts, arena = symbols
    ts_event, ts_recv, publisher, instrument, actions, sides, price, size, order_id, flags, channel, delta, sequence = out
    has_recv, symbol_column = False, -1
    for column in range(len(columns)):
        has_recv = has_recv or columns[column, 1] == TS_RECV
        if columns[column, 1] == SYMBOL_AT:
            symbol_column = column
    n, n_bad = 0, 0
    while p < end:
        if buf[p] == _LF or (buf[p] == _CR and buf[p + 1] == _LF):
            p += 1 if buf[p] == _LF else 2
            continue
        if n == len(line_start) or n_bad == len(bad):
            return FULL, p, n, n_bad
        status, column, order, symbol_from, symbol_to, stop = _parse_row(buf, p, columns, limits, state, values)
        length = stop - p
        if status != OK or length > MAX_LINE:
            length, stop, fields, clean, symbol_from, symbol_to = _survey(buf, p, symbol_column)
            if length > MAX_LINE:
                status, column = LINE_TOO_LONG, -1
            elif not clean:
                status = QUOTE
            elif fields != len(columns):
                status, column = COLUMNS, fields
            if length > MAX_LINE or not clean or fields != len(columns) or symbol_to > symbol_from + MAX_SYMBOL:
                symbol_from = -1
        code = np.int64(-1)
        if symbol_column < 0:
            code = np.int64(0)
        elif symbol_from >= 0:
            code = _intern(buf, symbol_from, symbol_to, slots, starts, arena, state)
            if code < 0:
                return SYMBOLS_FULL, p, n, n_bad
        if status != OK:
            bad[n_bad, BAD_BEFORE], bad[n_bad, BAD_ROW], bad[n_bad, BAD_START] = n, state[ROW], p
            bad[n_bad, BAD_LENGTH], bad[n_bad, BAD_STATUS], bad[n_bad, BAD_COLUMN], bad[n_bad, BAD_SYMBOL] = length, status, column, code
            n_bad += 1
        else:
            ts_event[n], ts_recv[n] = values[TS_EVENT], values[TS_RECV if has_recv else TS_EVENT]
            publisher[n], instrument[n], actions[n], sides[n] = values[PUBLISHER], values[INSTRUMENT], values[ACTION_AT], values[SIDE_AT]
            price[n], size[n], order_id[n] = values[PRICE_AT], values[SIZE_AT], order
            flags[n] = values[FLAGS] | (values[LAST_AT] * _LAST)
            channel[n], delta[n], sequence[n] = values[CHANNEL], values[DELTA], values[SEQUENCE]
            line_start[n], source_row[n], symbol_code[n] = p, state[ROW], code
            n += 1
        state[ROW] += 1
        p = stop + 1
    return END, p, n, n_bad


@_kernel
def _parse_message(buf, p, message):
    """One LOBSTER line into message int64[6]: ns after midnight, type, order id, size, price, direction -> (status, column, position after).

    A seventh column (the participant of attributed files) and what follows is not read.
    """
    for column in range(6):
        if column == 0:
            status, value, p = parse_decimal(buf, p, False)
            if status == OVERFLOW or (status == OK and not 0 <= value < _DAY_NS):
                status = MALFORMED
        else:
            status, value, p = parse_signed(buf, p)
        if buf[p] == _CR and buf[p + 1] == _LF:
            p += 1
        if status == MALFORMED or not (buf[p] == _COMMA or buf[p] == _LF):
            return TIME if column == 0 else INTEGER, column, p
        if buf[p] == _LF and column < 5:
            status = COLUMNS
        if status != OK:
            return status, column, p
        message[column] = value
        p += 1
    kind, order, size, price, direction = message[1], message[2], message[3], message[4], message[5]
    if not 1 <= kind <= 7:
        return MESSAGE_TYPE, 1, p - 1
    if order < 0 and kind <= 4:
        return INTEGER, 2, p - 1
    if size < 0:
        return SIZE_NEGATIVE, 3, p - 1
    if size > 0xFFFFFFFF:
        return OVERFLOW, 3, p - 1
    if kind == 7 and not -1 <= price <= 1:
        return PRICE, 4, p - 1
    if abs(price) >= _UNDEF_PRICE // _LOBSTER_UNIT:
        return OVERFLOW, 4, p - 1
    if kind <= 5 and abs(direction) != 1:
        return DIRECTION, 5, p - 1
    return OK, -1, p - 1


@_kernel
def parse_messages(buf, p, end, messages, lines):
    """Parse LOBSTER messages from buf[p:end] until it ends or `messages` is full.

    buf uint8[n], buf[end - 1] a newline; messages int64[m, 6] written, see `_parse_message`; lines int64[m, 4] written: status, column (for COLUMNS
    the fields found), start and length of the line without its end. Returns (position of the first line not taken, messages).
    Twin: tests/oracles/naive_csv.py
    """
    m = 0
    while p < end and m < len(messages):
        if buf[p] == _LF or (buf[p] == _CR and buf[p + 1] == _LF):
            p += 1 if buf[p] == _LF else 2
            continue
        status, column, _ = _parse_message(buf, p, messages[m])
        length, stop, fields, _, _, _ = _survey(buf, p, -1)
        if length > MAX_LINE:
            status, column = LINE_TOO_LONG, -1
        elif fields < 6 or fields > 7:
            status, column = COLUMNS, fields
        lines[m, 0], lines[m, 1], lines[m, 2], lines[m, 3] = status, column, p, length
        p = stop + 1
        m += 1
    return p, m


@_kernel
def parse_levels(buf, p, end, first, last, truth, status):
    """Parse LOBSTER order book rows from buf[p:end] into truth[first:last].

    truth int64[m, depth, 4] written: ask price, ask size, bid price, bid size (prices 1e-9; UNDEF_PRICE and 0 where the level is empty);
    status int64[m] written: OK, or ORDERBOOK for a row that is not 4 * depth integers. Returns (position of the first line not taken, next row).
    Twin: tests/oracles/naive_csv.py
    """
    depth, row = truth.shape[1], first
    while p < end and row < last:
        if buf[p] == _LF or (buf[p] == _CR and buf[p + 1] == _LF):
            p += 1 if buf[p] == _LF else 2
            continue
        good, cells = True, 0
        while good:
            fault, value, p = parse_signed(buf, p)
            if buf[p] == _CR and buf[p + 1] == _LF:
                p += 1
            good = fault == OK and cells < 4 * depth and (buf[p] == _COMMA or buf[p] == _LF)
            price = cells % 2 == 0
            empty = price and abs(value) == _EMPTY_LEVEL
            if not good or (price and not empty and abs(value) >= _UNDEF_PRICE // _LOBSTER_UNIT):
                good = False
                break
            truth[row, cells // 4, cells % 4] = _UNDEF_PRICE if empty else value * _LOBSTER_UNIT if price else value
            if not price and truth[row, cells // 4, cells % 4 - 1] == _UNDEF_PRICE:
                truth[row, cells // 4, cells % 4] = 0
            cells += 1
            if buf[p] == _LF:
                break
            p += 1
        status[row] = OK if good and cells == 4 * depth else ORDERBOOK
        while buf[p] != _LF:
            p += 1
        p += 1
        row += 1
    return p, row


@_kernel
def expand_messages(messages, status, midnight, first_row, out, message_of):
    """LOBSTER messages -> events; the rules are in `lobster.py`.

    messages int64[m, 6] and status int64[m] as `parse_messages` wrote them (only OK ones become events); midnight int64 ns UTC; first_row: number of
    messages[0] in the file; out: ts_event, action, side, price, size, order_id, flags, sequence, each [2 * m], written; message_of int64[2 * m]
    written: the message of each event. Returns events made.
    """
    ts, action, side, price, size, order_id, flags, sequence = out
    n = 0
    for i in range(len(messages)):
        if status[i] != OK:
            continue
        kind, direction = messages[i, 1], messages[i, 5]
        resting, aggressor = (_B, _A) if direction == 1 else (_A, _B)
        events = 2 if kind == 4 else 1
        for k in range(events):
            last = k == events - 1
            ts[n], size[n], message_of[n] = midnight + messages[i, 0], messages[i, 3], i
            sequence[n] = (first_row + i) & 0xFFFFFFFF
            price[n] = messages[i, 4] * (1_000_000_000 if kind == 7 else _LOBSTER_UNIT)
            order_id[n] = messages[i, 2] if kind <= 4 else 0
            flags[n] = _LAST if last else 0
            if kind == 1:
                action[n], side[n] = _A, resting
            elif kind <= 3 or (kind == 4 and last):
                action[n], side[n] = _C, resting
            elif kind <= 5:
                action[n], side[n] = _T, aggressor
            else:
                action[n], side[n] = (_T if kind == 6 and messages[i, 3] > 0 else _N), _N
            n += 1
    return n
