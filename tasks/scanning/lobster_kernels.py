"""LOBSTER's lines to integers, and messages to events: bytes and arrays in, arrays and a status per line out.

Belongs here: compiled parsers of messages and order book rows, and the expansion of messages. Which event a message becomes and why, and the
reader, are in `lobster.py`; a single field is parsed in `csv_field_kernels.py`.

Every buffer ends with a newline at `end - 1`, which no parser of a field takes. Twins: tests/oracles/naive_csv.py
"""

from __future__ import annotations

from tasks.scanning.csv_field_kernels import (
    COLUMNS,
    COMMA,
    CR,
    DAY_NS,
    DIRECTION,
    INTEGER,
    LF,
    LINE_TOO_LONG,
    MALFORMED,
    MAX_LINE,
    MESSAGE_TYPE,
    OK,
    ORDERBOOK,
    OVERFLOW,
    PRICE,
    SIZE_NEGATIVE,
    TIME,
    kernel,
    parse_decimal,
    parse_signed,
)
from tasks.scanning.csv_kernels import survey
from tasks.schemas import F_LAST, UNDEF_PRICE

_EMPTY_LEVEL = 9_999_999_999  # LOBSTER's price of a level that is not there
_LOBSTER_UNIT = 100_000  # 1e-4 in units of 1e-9
_A, _B, _C, _N, _T = tuple(b"ABCNT")


@kernel
def _parse_message(buf, p, message):
    """One LOBSTER line into message int64[6]: ns after midnight, type, order id, size, price, direction -> (status, column, position after).

    A seventh column (the participant of attributed files) and what follows is not read.
    """
    for column in range(6):
        if column == 0:
            status, value, p = parse_decimal(buf, p, False)
            if status == OVERFLOW or (status == OK and not 0 <= value < DAY_NS):
                status = MALFORMED
        else:
            status, value, p = parse_signed(buf, p)
        if buf[p] == CR and buf[p + 1] == LF:
            p += 1
        if status == MALFORMED or not (buf[p] == COMMA or buf[p] == LF):
            return TIME if column == 0 else INTEGER, column, p
        if buf[p] == LF and column < 5:
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
    if abs(price) >= UNDEF_PRICE // _LOBSTER_UNIT:
        return OVERFLOW, 4, p - 1
    if kind <= 5 and abs(direction) != 1:
        return DIRECTION, 5, p - 1
    return OK, -1, p - 1


@kernel
def parse_messages(buf, p, end, messages, lines):
    """Parse LOBSTER messages from buf[p:end] until it ends or `messages` is full.

    buf uint8[n], buf[end - 1] a newline; messages int64[m, 6] written, see `_parse_message`; lines int64[m, 4] written: status, column (for COLUMNS
    the fields found), start and length of the line without its end. Returns (position of the first line not taken, messages).
    Twin: tests/oracles/naive_csv.py
    """
    m = 0
    while p < end and m < len(messages):
        if buf[p] == LF or (buf[p] == CR and buf[p + 1] == LF):
            p += 1 if buf[p] == LF else 2
            continue
        status, column, _ = _parse_message(buf, p, messages[m])
        length, stop, fields, _, _, _ = survey(buf, p, -1)
        if length > MAX_LINE:
            status, column = LINE_TOO_LONG, -1
        elif fields < 6 or fields > 7:
            status, column = COLUMNS, fields
        lines[m, 0], lines[m, 1], lines[m, 2], lines[m, 3] = status, column, p, length
        p = stop + 1
        m += 1
    return p, m


@kernel
def parse_levels(buf, p, end, first, last, truth, status):
    """Parse LOBSTER order book rows from buf[p:end] into truth[first:last].

    truth int64[m, depth, 4] written: ask price, ask size, bid price, bid size (prices 1e-9; UNDEF_PRICE and 0 where the level is empty);
    status int64[m] written: OK, or ORDERBOOK for a row that is not 4 * depth integers. Returns (position of the first line not taken, next row).
    Twin: tests/oracles/naive_csv.py
    """
    depth, row = truth.shape[1], first
    while p < end and row < last:
        if buf[p] == LF or (buf[p] == CR and buf[p + 1] == LF):
            p += 1 if buf[p] == LF else 2
            continue
        good, cells = True, 0
        while good:
            fault, value, p = parse_signed(buf, p)
            if buf[p] == CR and buf[p + 1] == LF:
                p += 1
            good = fault == OK and cells < 4 * depth and (buf[p] == COMMA or buf[p] == LF)
            price = cells % 2 == 0
            empty = price and abs(value) == _EMPTY_LEVEL
            if not good or (price and not empty and abs(value) >= UNDEF_PRICE // _LOBSTER_UNIT):
                good = False
                break
            truth[row, cells // 4, cells % 4] = UNDEF_PRICE if empty else value * _LOBSTER_UNIT if price else value
            if not price and truth[row, cells // 4, cells % 4 - 1] == UNDEF_PRICE:
                truth[row, cells // 4, cells % 4] = 0
            cells += 1
            if buf[p] == LF:
                break
            p += 1
        status[row] = OK if good and cells == 4 * depth else ORDERBOOK
        while buf[p] != LF:
            p += 1
        p += 1
        row += 1
    return p, row


@kernel
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
            flags[n] = F_LAST if last else 0
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
