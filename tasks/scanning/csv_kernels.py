"""Lines of event files to event columns: bytes in, columns and a status per bad line out.

Belongs here: compiled parsers of whole lines (Databento's and the seven-column layout), and the shape of a bad line. A single field is parsed in
`csv_field_kernels.py`, LOBSTER's lines in `lobster_kernels.py`; names get their codes in `csv_symbol_kernels.py`; streams, headers and errors are
in `csv_lines.py` and `csv_source.py`.

Every buffer ends with a newline at `end - 1`, which no parser of a field takes. Twins: tests/oracles/naive_csv.py
"""

from __future__ import annotations

import numpy as np

from tasks.scanning.csv_field_kernels import (
    COLUMNS,
    COMMA,
    CR,
    LF,
    LINE_TOO_LONG,
    MALFORMED,
    MAX_LINE,
    MINUS,
    OK,
    OVERFLOW,
    PRICE_NAN,
    QUOTE,
    QUOTE_MARK,
    ROW,
    SIZE_NEGATIVE,
    field,
    kernel,
    parse_bool,
    parse_price,
    parse_signed,
    parse_time,
    parse_unsigned,
    text_end,
)
from tasks.scanning.csv_symbol_kernels import MAX_SYMBOL, intern
from tasks.schemas import F_LAST

# How a column is read.
SKIP, UNSIGNED, SIGNED, DECIMAL, TIMESTAMP, CHAR, BOOL, TEXT = range(8)

# Where a column goes: the position in `tasks.schemas.EVENT_DTYPES`, and three that are no event column.
(
    TS_EVENT, TS_RECV, PUBLISHER, INSTRUMENT, ACTION_AT, SIDE_AT, PRICE_AT, SIZE_AT, ORDER_AT, FLAGS, CHANNEL, DELTA, SEQUENCE,
    LAST_AT, SYMBOL_AT, NOWHERE,
) = range(16)  # fmt: skip

# Why `parse_rows` came back.
END, FULL, SYMBOLS_FULL = 0, 1, 2
NO_ROOM = -2  # for another symbol

BAD_BEFORE, BAD_ROW, BAD_START, BAD_LENGTH, BAD_STATUS, BAD_COLUMN, BAD_SYMBOL, BAD_SIZE = range(8)

_I64_MAX = np.uint64(np.iinfo(np.int64).max)
_A, _M, _T, _F = tuple(b"AMTF")  # which mean nothing without a price


@field
def _parse_field(buf, p, kind, target, limits, state):
    """One field of `kind` -> (status, int64 value, uint64 magnitude of an unsigned one, position after)."""
    big = np.uint64(0)
    if kind == TIMESTAMP:
        status, value, p = parse_time(buf, p, state)
    elif kind == DECIMAL:
        status, value, p = parse_price(buf, p, state)
    elif kind == UNSIGNED and not (target == SIZE_AT and buf[p] == MINUS):
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
        start, p = p, text_end(buf, p)
        value = np.int64(buf[start])
        status = OK
        if (kind == CHAR and p != start + 1) or (kind == TEXT and p > start + MAX_SYMBOL):
            status = MALFORMED
    return status, value, big, p


@kernel
def _parse_row(buf, p, columns, limits, state, values):
    """One line into values int64[16] by target -> (status, column, order id, symbol from, symbol to, position of the newline).

    status is the first field's that fails; `survey` has the last word on quotes and on the number of columns.
    """
    order, symbol_from, symbol_to, price_nan = np.uint64(0), p, p, False
    last = len(columns) - 1
    for column in range(len(columns)):
        target = columns[column, 1]
        quoted = buf[p] == QUOTE_MARK
        if quoted:
            p += 1
        start = p
        status, value, big, p = _parse_field(buf, p, columns[column, 0], target, limits, state)
        if status == PRICE_NAN:
            status, price_nan = OK, True
        stop = p
        if quoted and buf[p] == QUOTE_MARK:
            p += 1
        elif quoted:
            status = QUOTE
        if buf[p] == CR and buf[p + 1] == LF:
            p += 1
        # A malformed field stops anywhere; any other must stop where the field does.
        if status == MALFORMED or not (buf[p] == COMMA or buf[p] == LF):
            return columns[column, 2], column, order, symbol_from, symbol_to, p
        if status == OK and (buf[p] == LF) != (column == last):
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
    if price_nan and action in (_A, _M, _T, _F):
        for column in range(len(columns)):
            if columns[column, 1] == PRICE_AT:
                return PRICE_NAN, column, order, symbol_from, symbol_to, p - 1
    return OK, -1, order, symbol_from, symbol_to, p - 1


@kernel
def survey(buf, start, symbol_column):
    """The shape of a bad line -> (length without line end, position of the newline, fields, quotes well-formed, symbol from, symbol to)."""
    p, field, clean, symbol_from, symbol_to = start, 0, True, -1, -1
    while True:
        quoted = buf[p] == QUOTE_MARK
        first = p + 1 if quoted else p
        p = text_end(buf, first)
        stop = p
        if quoted and buf[p] == QUOTE_MARK:
            p += 1
            quoted = False
        if quoted or not (buf[p] == COMMA or buf[p] == LF or buf[p] == CR):
            clean = False
        while buf[p] != COMMA and buf[p] != LF:
            p += 1
        if field == symbol_column:
            symbol_from, symbol_to = first, stop
        field += 1
        if buf[p] == LF:
            break
        p += 1
    length = p - start
    if length > 0 and buf[p - 1] == CR:
        length -= 1
    return length, p, field, clean, symbol_from, symbol_to


@field
def judge_line(buf, p, n_columns, symbol_column, status, column):
    """What is wrong with the line at p as a whole, where its parser stopped with `status` at `column`, or the line is longer than MAX_LINE.

    Returns (status, column, length, position of its end, symbol_from, symbol_to); symbol_from -1 where the symbol cannot be read or is empty:
    what a row without one would be called says nothing of a bad one.
    """
    length, stop, fields, clean, symbol_from, symbol_to = survey(buf, p, symbol_column)
    if length > MAX_LINE:
        status, column = LINE_TOO_LONG, -1
    elif not clean:
        status = QUOTE
    elif fields != n_columns:
        status, column = COLUMNS, fields
    if length > MAX_LINE or not clean or fields != n_columns or symbol_to == symbol_from or symbol_to > symbol_from + MAX_SYMBOL:
        symbol_from = -1
    return status, column, length, stop, symbol_from, symbol_to


@field
def code_of(buf, symbol_from, symbol_to, symbol_column, symbols, state):
    """Code of the symbol buf[symbol_from:symbol_to]; 0 in a file without symbols, -1 where it cannot be read, NO_ROOM when the table is full."""
    if symbol_column < 0:
        return np.int64(0)
    if symbol_from < 0:
        return np.int64(-1)
    slots, starts, arena = symbols
    code = intern(buf, symbol_from, symbol_to, slots, starts, arena, state)
    return code if code >= 0 else np.int64(NO_ROOM)


@field
def note_bad(bad, n_bad, before, row, start, length, status, column, code):
    """Write entry n_bad of bad int64[b, BAD_SIZE]."""
    bad[n_bad, BAD_BEFORE], bad[n_bad, BAD_ROW], bad[n_bad, BAD_START] = before, row, start
    bad[n_bad, BAD_LENGTH], bad[n_bad, BAD_STATUS], bad[n_bad, BAD_COLUMN], bad[n_bad, BAD_SYMBOL] = length, status, column, code


@kernel
def parse_rows(buf, p, end, columns, limits, state, symbols, out, line_start, source_row, symbol_code, bad, values):
    """Parse the lines of buf[p:end] until it ends or an output is full.

    buf uint8[n], buf[end - 1] a newline; columns int64[c, 3]: kind, target, reason when malformed, per column of the header;
    limits int64[13]: largest value per target; state int64[STATE_SIZE]; symbols: (slots int32[2^k], starts int64[k + 1], arena uint8[m]), changed;
    out: the 13 arrays of EVENT_DTYPES, written; line_start, source_row int64[n], symbol_code int32[n] written; bad int64[b, BAD_SIZE] written;
    values int64[16]: scratch, 0 where no column goes.
    Blank lines are no rows. Returns (END, FULL or SYMBOLS_FULL, position of the first line not taken, rows, bad rows).
    Twin: tests/oracles/naive_csv.py
    """
    ts_event, ts_recv, publisher, instrument, actions, sides, price, size, order_id, flags, channel, delta, sequence = out
    has_recv, symbol_column = False, -1
    for column in range(len(columns)):
        has_recv = has_recv or columns[column, 1] == TS_RECV
        if columns[column, 1] == SYMBOL_AT:
            symbol_column = column
    n, n_bad = 0, 0
    while p < end:
        if buf[p] == LF or (buf[p] == CR and buf[p + 1] == LF):
            p += 1 if buf[p] == LF else 2
            continue
        if n == len(line_start) or n_bad == len(bad):
            return FULL, p, n, n_bad
        status, column, order, symbol_from, symbol_to, stop = _parse_row(buf, p, columns, limits, state, values)
        length = stop - p
        if status != OK or length > MAX_LINE:
            status, column, length, stop, symbol_from, symbol_to = judge_line(buf, p, len(columns), symbol_column, status, column)
        code = code_of(buf, symbol_from, symbol_to, symbol_column, symbols, state)
        if code == NO_ROOM:
            return SYMBOLS_FULL, p, n, n_bad
        if status != OK:
            note_bad(bad, n_bad, n, state[ROW], p, length, status, column, code)
            n_bad += 1
        else:
            ts_event[n], ts_recv[n] = values[TS_EVENT], values[TS_RECV if has_recv else TS_EVENT]
            publisher[n], instrument[n], actions[n], sides[n] = values[PUBLISHER], values[INSTRUMENT], values[ACTION_AT], values[SIDE_AT]
            price[n], size[n], order_id[n] = values[PRICE_AT], values[SIZE_AT], order
            flags[n] = values[FLAGS] | (values[LAST_AT] * F_LAST)
            channel[n], delta[n], sequence[n] = values[CHANNEL], values[DELTA], values[SEQUENCE]
            line_start[n], source_row[n], symbol_code[n] = p, state[ROW], code
            n += 1
        state[ROW] += 1
        p = stop + 1
    return END, p, n, n_bad
