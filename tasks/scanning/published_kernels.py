"""Rows of published books to a matrix of integers: bytes in, columns and a status per bad line out. No files, no names of symbols.

Fields of text are parsed in csv_field_kernels.py, whose rules hold here: every buffer ends with a newline at `end - 1`, no field takes it.
Twins: tests/oracles/naive_published.py
"""

from __future__ import annotations

import numpy as np

from tasks.scanning.csv_field_kernels import (
    COLUMNS,
    COMMA,
    CR,
    LF,
    MALFORMED,
    MAX_LINE,
    OK,
    OVERFLOW,
    PRICE_NAN,
    QUOTE,
    QUOTE_MARK,
    ROW,
    field,
    kernel,
    parse_price,
    parse_time,
    parse_unsigned,
    text_end,
)
from tasks.scanning.csv_kernels import (
    END,
    FULL,
    NO_ROOM,
    SYMBOLS_FULL,
    code_of,
    judge_line,
    note_bad,
)
from tasks.scanning.csv_symbol_kernels import MAX_SYMBOL
from tasks.scanning.dbn_kernels import begins_stream
from tasks.scanning.published_batches import (
    ACTION,
    FLAGS,
    INSTRUMENT,
    LEVEL_ROWS,
    LEVELS,
    NO_TIME,
    PUBLISHER,
    SEQUENCE,
    TS_EVENT,
    TS_RECV,
)

# How a column of text is read. A time that may be absent is empty, or 2^64-1 where times are integers.
SKIP, UNSIGNED, DECIMAL, TIMESTAMP, MAYBE_TIME, CHAR, TEXT = range(7)

HEADER_WORDS = 4  # every DBN record begins with a 16-byte header; its length byte counts 4-byte words
LEVEL_BYTES, FIRST_LEVEL = 32, 48  # of mbp and bbo records

_I64_MAX, _U64_MAX = np.uint64(2**63 - 1), np.uint64(2**64 - 1)


@field
def _is_end(buf, p):
    """Whether the field at p is empty from here on."""
    return buf[p] == COMMA or buf[p] == LF or buf[p] == QUOTE_MARK or (buf[p] == CR and buf[p + 1] == LF)


@field
def _parse_field(buf, p, kind, limit, state):
    """One field of `kind` -> (status, int64 value, position after); unsigned ones are at most `limit`."""
    status, value, start = OK, np.int64(0), p
    if kind == DECIMAL:
        status, value, p = parse_price(buf, p, state)
        if status == PRICE_NAN:  # data frames write it for a level that is empty
            status = OK
    elif kind == UNSIGNED:
        status, big, p = parse_unsigned(buf, p)
        value = np.int64(big & _I64_MAX)
        if status == OK and (big > _I64_MAX or value > limit):
            status = OVERFLOW
    elif kind == TIMESTAMP or (kind == MAYBE_TIME and not _is_end(buf, p)):
        status, value, p = parse_time(buf, p, state)
        if status == OK and value < 0:
            status = MALFORMED
        elif status == OVERFLOW and kind == MAYBE_TIME:
            again, big, p = parse_unsigned(buf, start)
            if again == OK and big == _U64_MAX:
                status, value = OK, np.int64(NO_TIME)
    elif kind == MAYBE_TIME:
        value = np.int64(NO_TIME)
    else:
        p = text_end(buf, p)
        value = np.int64(buf[start])
        if (kind == CHAR and p != start + 1) or (kind == TEXT and p > start + MAX_SYMBOL):
            status = MALFORMED
    return status, value, p


@kernel
def _parse_line(buf, p, columns, limits, state, out, n):
    """One line into out[:, n] -> (status, column, symbol from, symbol to, position of the newline).

    status is the first field's that fails; `survey` has the last word on quotes and on the number of columns.
    """
    symbol_from, symbol_to = p, p
    last = len(columns) - 1
    for column in range(len(columns)):
        kind, target = columns[column, 0], columns[column, 1]
        quoted = buf[p] == QUOTE_MARK
        if quoted:
            p += 1
        start = p
        status, value, p = _parse_field(buf, p, kind, limits[column], state)
        stop = p
        if quoted and buf[p] == QUOTE_MARK:
            p += 1
        elif quoted:
            status = QUOTE
        if buf[p] == CR and buf[p + 1] == LF:
            p += 1
        # A malformed field stops anywhere; any other must stop where the field does.
        if status == MALFORMED or not (buf[p] == COMMA or buf[p] == LF):
            return columns[column, 2], column, symbol_from, symbol_to, p
        if status == OK and (buf[p] == LF) != (column == last):
            status = COLUMNS
        if status != OK:
            return status, column, symbol_from, symbol_to, p
        if kind == TEXT:
            symbol_from, symbol_to = start, stop
        elif kind != SKIP:
            out[target, n] = value
        p += 1
    return OK, -1, symbol_from, symbol_to, p - 1


@kernel
def parse_published(buf, p, end, columns, limits, state, symbols, out, line_start, source_row, symbol_code, bad):
    """Parse the lines of buf[p:end] until it ends or an output is full.

    buf uint8[m], buf[end - 1] a newline; columns int64[c, 3]: kind, row of `out`, reason when malformed, per column of the header; limits
    int64[c]: largest unsigned value; state int64[STATE_SIZE] and symbols as in csv_kernels.py, changed; out int64[t, n] written
    (published_batches.py; rows no column goes to are left alone); line_start, source_row int64[n], symbol_code int32[n] written; bad
    int64[b, BAD_SIZE] written. Blank lines are no rows.
    Returns (END, FULL or SYMBOLS_FULL, position of the first line not taken, rows, bad rows). Twin: tests/oracles/naive_published.py
    """
    symbol_column = -1
    for column in range(len(columns)):
        if columns[column, 0] == TEXT:
            symbol_column = column
    n, n_bad = 0, 0
    while p < end:
        if buf[p] == LF or (buf[p] == CR and buf[p + 1] == LF):
            p += 1 if buf[p] == LF else 2
            continue
        if n == len(line_start) or n_bad == len(bad):
            return FULL, p, n, n_bad
        status, column, symbol_from, symbol_to, stop = _parse_line(buf, p, columns, limits, state, out, n)
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
            line_start[n], source_row[n], symbol_code[n] = p, state[ROW], code
            n += 1
        state[ROW] += 1
        p = stop + 1
    return END, p, n, n_bad


@kernel
def walk_published(data, start, record_bytes, rtype, starts, wanted):
    """Follow the length bytes of records in data (uint8[n]) from `start`, as many as `starts` takes.

    starts int64[limit], wanted bool[limit] written: where each record begins, and whether it is of type `rtype`.
    Returns (broken, records, end): broken 1 when the record at `end` has an impossible length (shorter than a header, or of type `rtype`
    and not `record_bytes` long) or is the beginning of another stream, else 0; `end` is the first byte not consumed.
    """
    at, count = start, 0
    while count < len(starts) and at + 2 <= len(data):
        length = 4 * np.int64(data[at])
        ours = data[at + 1] == rtype
        if length < 4 * HEADER_WORDS or (ours and length != record_bytes) or (not ours and begins_stream(data, at)):
            return 1, count, at
        if at + length > len(data):
            break
        starts[count], wanted[count] = at, ours
        count += 1
        at += length
    return 0, count, at


@kernel
def split_published(octets, halves, words, depth, by_row, out):
    """DBN records of mbp-1, mbp-10, tbbo (by_row) or bbo into the matrix of a batch.

    octets uint8[n, b], halves uint32[n, b / 4], words int64[n, b / 8]: three views of the same n records of b bytes; out int64[t, n] written.
    A time of 2^64-1 becomes NO_TIME, one past 2^63-1 another negative. One pass instead of a strided copy a column.
    """
    for i in range(len(octets)):
        out[TS_EVENT, i] = words[i, 1]
        out[TS_RECV, i] = words[i, 4]
        out[PUBLISHER, i] = np.int64(octets[i, 2]) + 256 * np.int64(octets[i, 3])
        out[INSTRUMENT, i] = halves[i, 1]
        out[SEQUENCE, i] = halves[i, 11]
        out[ACTION, i] = octets[i, 28] if by_row else 0
        out[FLAGS, i] = octets[i, 30]
        for level in range(depth):
            at, to = FIRST_LEVEL + level * LEVEL_BYTES, LEVELS + level * LEVEL_ROWS
            out[to, i], out[to + 1, i] = words[i, at // 8], words[i, at // 8 + 1]
            for k in range(4):
                out[to + 2 + k, i] = halves[i, at // 4 + 4 + k]
