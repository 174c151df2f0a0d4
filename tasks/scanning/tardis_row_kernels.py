"""Rows of Tardis files to numbers, whatever their columns: one good row at a time, and where the bad ones stand.

Belongs here: what the parsers of all Tardis layouts share. What becomes of a row is in `tardis_l2_kernels.py` and `tardis_table_kernels.py`; a
single field is parsed in `tardis_field_kernels.py`.

buf uint8[n] ends with a newline, which no parser of a field takes. Twin: tests/oracles/naive_tardis.py
"""

from __future__ import annotations

import numpy as np

from tasks.depth_batches import NO_TIME
from tasks.kernels import inner, kernel
from tasks.scanning.csv_field_kernels import (
    COLUMNS,
    COMMA,
    CR,
    LF,
    LINE_TOO_LONG,
    MALFORMED,
    MAX_LINE,
    OK,
    QUOTE,
    QUOTE_MARK,
    SIZE_NEGATIVE,
    parse_bool,
    text_end,
)
from tasks.scanning.csv_kernels import survey
from tasks.scanning.tardis_field_kernels import EMPTY, book_side, decimal, ends, micros, trade_side

# How a column is read. MAYBE_PRICE and MAYBE_AMOUNT may be empty.
SKIP, TEXT, SYMBOL, MICROS, FLAG, BOOK_SIDE, TRADE_SIDE, PRICE, AMOUNT, MAYBE_PRICE, MAYBE_AMOUNT = range(11)
# Where a column goes: these two are the same in every layout, NOWHERE is scratch.
NOWHERE, CAPTURED, FIRST_OWN = 0, 1, 2
# Status of a row of another symbol, and of a header among the rows: where files were joined end to end.
FOREIGN, HEADER = -1, -2
HEADER_CELL = np.frombuffer(b"symbol", np.uint8)

# What a parse carries from one call to the next: rows met, rows of other symbols, bad rows in `bad`, whether another symbol ends the parse, headers
# among the rows.
ROWS, OTHERS, BADS, ONE_SYMBOL, HEADERS, STATE_SIZE = range(6)
# Why a parse came back.
GOOD, END, FULL, MIXED = range(4)
BAD_BEFORE, BAD_ROW, BAD_START, BAD_LENGTH, BAD_STATUS, BAD_COLUMN, BAD_TIME, BAD_SIZE = range(8)


@inner
def _symbol(buf, p, wanted):
    """A name -> (OK or FOREIGN, position after)."""
    k = 0
    while k < len(wanted) and buf[p + k] == wanted[k]:
        k += 1
    if k == len(wanted) and ends(buf, p + k):
        return OK, p + k
    return FOREIGN, text_end(buf, p + k)


@inner
def _parse_field(buf, p, kind, wanted):
    """One field -> (status, value, digits, position after)."""
    value, digits = np.int64(0), np.int64(0)
    if kind <= TEXT:
        status, p = OK, text_end(buf, p)
    elif kind == SYMBOL:
        status, p = _symbol(buf, p, wanted)
    elif kind == MICROS:
        status, value, p = micros(buf, p)
    elif kind == FLAG:
        status, value, p = parse_bool(buf, p)
    elif kind == BOOK_SIDE:
        status, value, p = book_side(buf, p)
    elif kind == TRADE_SIDE:
        status, value, p = trade_side(buf, p)
    elif kind >= MAYBE_PRICE and ends(buf, p):
        status, value = OK, np.int64(EMPTY)
    else:
        status, value, digits, p = decimal(buf, p)
        if status == OK and value < 0 and kind != PRICE and kind != MAYBE_PRICE:
            status = SIZE_NEGATIVE
    return status, value, digits, p


@inner
def _parse_row(buf, p, columns, wanted, values, digits, spans):
    """One line into values and digits int64[targets] -> (status, column, position of the newline, or where the row failed).

    columns int64[c, 3]: kind, target, reason when malformed; wanted uint8[s]: the symbol; spans int64[2], written: where the text of a TEXT column
    starts and stops. status is the first failing field's; `judge` has the last word on quotes and on the number of columns.
    """
    last = len(columns) - 1
    for column in range(len(columns)):
        quoted = buf[p] == QUOTE_MARK
        if quoted:
            p += 1
        start = p
        kind, target = columns[column, 0], columns[column, 1]
        status, value, decimals, p = _parse_field(buf, p, kind, wanted)
        if kind == TEXT:
            spans[0], spans[1] = start, p
        if quoted and buf[p] == QUOTE_MARK:
            p += 1
        elif quoted:
            status = QUOTE
        if buf[p] == CR and buf[p + 1] == LF:
            p += 1
        # A malformed field stops anywhere; any other must stop where the field does.
        if status == MALFORMED or not (buf[p] == COMMA or buf[p] == LF):
            return columns[column, 2], column, p
        if status == OK and (buf[p] == LF) != (column == last):
            status = COLUMNS
        if status != OK:
            return status, column, p
        values[target], digits[target] = value, decimals
        p += 1
    return OK, -1, p - 1


@kernel
def _time_of(buf, start, column):
    """Local time of a bad line whose fields can be told apart, NO_TIME where it has none."""
    _, _, _, _, first, stop = survey(buf, start, column)
    status, value, after = micros(buf, first)
    return value if status == OK and after == stop else np.int64(NO_TIME)


@kernel
def judge(buf, start, status, column, columns, wanted):
    """What is wrong with a line that is not OK -> (status, column, length without line end, position of the newline, its local time in ns).

    FOREIGN where it can be told that the line is of another symbol, HEADER where it is the header once more. COLUMNS: column is the number of fields.
    Time: NO_TIME where not readable.
    """
    symbol_column, time_column = -1, -1
    for k in range(len(columns)):
        symbol_column = k if columns[k, 0] == SYMBOL else symbol_column
        time_column = k if columns[k, 1] == CAPTURED else time_column
    length, stop, fields, clean, symbol_from, symbol_to = survey(buf, start, symbol_column)
    if length > MAX_LINE:
        return LINE_TOO_LONG, -1, length, stop, np.int64(NO_TIME)
    if not clean:
        return QUOTE, column, length, stop, np.int64(NO_TIME)
    if fields != len(columns):
        return COLUMNS, fields, length, stop, np.int64(NO_TIME)
    found, after = _symbol(buf, symbol_from, wanted)
    if found == FOREIGN or after != symbol_to:
        found, after = _symbol(buf, symbol_from, HEADER_CELL)
        return HEADER if found == OK and after == symbol_to else FOREIGN, symbol_column, length, stop, np.int64(NO_TIME)
    return status, column, length, stop, _time_of(buf, start, time_column)


@inner
def note_bad(bad, state, before, start, length, status, column, time):
    """Add a row to `bad`, which has room for it; state[ROWS] is its number."""
    entry = bad[state[BADS]]
    entry[BAD_BEFORE], entry[BAD_ROW], entry[BAD_START], entry[BAD_LENGTH] = before, state[ROWS], start, length
    entry[BAD_STATUS], entry[BAD_COLUMN], entry[BAD_TIME] = status, column, time
    state[BADS] += 1


# Not inlined: it is compiled once for all layouts (inlined, the four parsers take 20 s to compile and are no faster).
@kernel
def next_row(buf, p, end, plan, row, state, bad, before):
    """Go on to the next good row of buf[p:end]; bad rows on the way are noted -> (GOOD, END, FULL or MIXED, start of the row, position after).

    plan: (columns int64[c, 3], wanted uint8[s]); row: (values, digits int64[targets], spans int64[2]), written; state int64[STATE_SIZE or more],
    changed; bad int64[b, BAD_SIZE], written from state[BADS] on; before: what BAD_BEFORE is set to. Blank lines are no rows, and not counted; the
    header once more is passed over and counted.
    FULL: no room for another bad row; MIXED: the row at `start` is of another symbol.
    """
    columns, wanted = plan
    values, digits, spans = row
    while p < end:
        if buf[p] == LF or (buf[p] == CR and buf[p + 1] == LF):
            p += 1 if buf[p] == LF else 2
            continue
        status, column, stop = _parse_row(buf, p, columns, wanted, values, digits, spans)
        if status == OK and stop - p <= MAX_LINE:
            state[ROWS] += 1
            return GOOD, p, stop + 1
        if state[BADS] == len(bad):
            return FULL, p, p
        status, column, length, stop, time = judge(buf, p, status, column, columns, wanted)
        if status == FOREIGN:
            if state[ONE_SYMBOL]:
                return MIXED, p, p
            state[OTHERS] += 1
        elif status == HEADER:
            state[HEADERS] += 1
        else:
            note_bad(bad, state, before, p, length, status, column, time)
        state[ROWS] += 1
        p = stop + 1
    return END, p, p
