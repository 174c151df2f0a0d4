"""ITCH messages to events: bytes and arrays in, event columns out. Which event a message becomes, and why, is in `itch.py`.

Where messages stand is found in `itch_frame_kernels.py`; the orders that rest, which later messages only name, are in `itch_table_kernels.py`.
Offsets count from the type's byte, as in the specification. Twin: tests/oracles/naive_itch.py
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from tasks.kernels import inner, kernel
from tasks.scanning import itch_field_kernels as fields
from tasks.scanning.itch_field_kernels import big_16, big_32, big_64, side_of, stock_at, time_of
from tasks.scanning.itch_frame_kernels import OK, R_AT, R_NUMBER, R_STATUS, S_CODES, S_LIVE, S_NAMED, S_UNKNOWN, TYPE
from tasks.scanning.itch_table_kernels import erase, find, put, shift_of
from tasks.schemas import F_LAST, UNDEF_PRICE

# What can be wrong with a message; what can be wrong with its frame comes first, and is found in `itch_frame_kernels.py`.
TIME, STOCK, SIDE, PRINTABLE, STATE, SIZE, LOCATE = range(TYPE + 1, TYPE + 8)
REASONS = ("", "length", "message_type", "time_range", "stock", "side", "printable", "trading_state", "size_range", "locate")
MOST_EVENTS = 3  # of one message
ANONYMOUS = np.uint64(0)  # stock of a locate that no message has named

# Columns of the events, each [room]: as in EVENT_DTYPES; code int32 symbol; row int64 position in the rows
Events = namedtuple("Events", "ts_event instrument_id action side price size order_id flags sequence code row")
# By stock locate, each [65536]: code int32 symbol, -1 before the first; stock uint64, its 8 letters, 0 before any;
# met uint8, 1 after a message from which on the book may hold orders
Locates = namedtuple("Locates", "code stock met")
# Symbols given codes, each [rows]: locate int64, stock uint64 (ANONYMOUS when no message has named it)
Names = namedtuple("Names", "locate stock")
# Rows that cannot be events, each [rows]: event before which it stood, position in the rows, what is wrong, symbol or -1; all int64
Bad = namedtuple("Bad", "before row reason code")

_UNIT = 100_000  # 1e-4 in units of 1e-9
_DAY_NS = 86_400 * 1_000_000_000
_A, _B, _C, _F, _N, _R, _T = tuple(b"ABCFNRT")  # actions and sides of events


@inner
def _put(out, n, action, side, price, size, order_id, flags):
    """Write what is an event's own; time, stock and sequence are its message's. Returns the number of events."""
    at = np.uint64(n)
    out.action[at] = action
    out.side[at] = side
    out.price[at] = price
    out.size[at] = size
    out.order_id[at] = order_id
    out.flags[at] = flags
    return n + 1


@inner
def _name(data, p, locate, locates, names, state):
    """Give the locate the name at p (8 letters); returns OK, or STOCK for one that is blank or not printable."""
    stock = big_64(data, p)
    if stock == locates.stock[locate]:
        return OK
    for k in range(8):
        if data[p + k] < 32 or data[p + k] > 126 or data[p] == 32:
            return STOCK
    locates.stock[locate] = stock
    _new_code(locate, stock, locates, names, state)
    return OK


@inner
def _new_code(locate, stock, locates, names, state):
    names.locate[state[S_NAMED]] = locate
    names.stock[state[S_NAMED]] = stock
    locates.code[locate] = state[S_CODES]
    state[S_NAMED] += 1
    state[S_CODES] += 1


@inner
def _add(data, p, n, out, locate, orders, shift, state):
    side = side_of(data[p + 19])
    if side == 0:
        return n, SIDE
    reference, shares, price = big_64(data, p + 11), big_32(data, p + 20), big_32(data, p + 32)
    state[S_LIVE] += put(orders, reference, locate, side, price, shares, shift)
    return _put(out, n, _A, side, price * _UNIT, shares, reference, F_LAST), OK


@inner
def _take(orders, slot, shares, shift, state):
    """Take shares from an order; it goes at zero, or below: the book reports that more was taken than there is."""
    left = np.int64(orders[slot]["shares"]) - shares
    if left > 0:
        orders[slot]["shares"] = left
    else:
        erase(orders, slot, shift)
        state[S_LIVE] -= 1


@inner
def _unknown(out, n, reference, shares, state):
    """The cancel of an order that is not there."""
    state[S_UNKNOWN] += 1
    return _put(out, n, _C, _N, UNDEF_PRICE, shares, reference, F_LAST)


@inner
def _execute(data, p, n, out, locate, orders, shift, state):
    """Executed at the order's price (E), or at its own and perhaps not printable (C)."""
    reference, shares, match = big_64(data, p + 11), big_32(data, p + 19), big_64(data, p + 23)
    own = data[p] == fields.EXECUTED_PRICE
    if own and data[p + 31] not in (fields.YES, fields.NO):
        return n, PRINTABLE
    traded = big_32(data, p + 32) * _UNIT if own else 0
    printed = not own or data[p + 31] == fields.YES
    slot = find(orders, reference, shift)
    if slot < 0:
        if own and printed:
            n = _put(out, n, _T, _N, traded, shares, match, 0)
        return _unknown(out, n, reference, shares, state), OK
    if orders[slot]["locate"] != locate:
        return n, LOCATE
    side, price = orders[slot]["side"], np.int64(orders[slot]["price"]) * _UNIT
    if printed:
        n = _put(out, n, _T, _A if side == _B else _B, traded if own else price, shares, match, 0)
    n = _put(out, n, _F, side, price, shares, reference, 0)
    _take(orders, slot, shares, shift, state)
    return _put(out, n, _C, side, price, shares, reference, F_LAST), OK


@inner
def _reduce(data, p, n, out, locate, orders, shift, state):
    """Partial cancel (X), delete (D), replace (U)."""
    kind, reference = data[p], big_64(data, p + 11)
    slot = find(orders, reference, shift)
    if slot < 0:
        return _unknown(out, n, reference, big_32(data, p + 19) if kind == fields.CANCEL else 0, state), OK
    if orders[slot]["locate"] != locate:
        return n, LOCATE
    side, price = orders[slot]["side"], np.int64(orders[slot]["price"]) * _UNIT
    shares = big_32(data, p + 19) if kind == fields.CANCEL else np.int64(orders[slot]["shares"])
    _take(orders, slot, shares, shift, state)
    n = _put(out, n, _C, side, price, shares, reference, 0 if kind == fields.REPLACE else F_LAST)
    if kind == fields.REPLACE:
        reference, shares, price = big_64(data, p + 19), big_32(data, p + 27), big_32(data, p + 31)
        state[S_LIVE] += put(orders, reference, locate, side, price, shares, shift)
        n = _put(out, n, _A, side, price * _UNIT, shares, reference, F_LAST)
    return n, OK


@inner
def _other(data, p, n, out, locate, locates):
    """What no resting order is touched by: directory (R), trading action (H), trade (P), cross (Q), broken trade (B)."""
    kind = data[p]
    if kind == fields.DIRECTORY:
        action = _R if locates.met[locate] == 0 else _N
        locates.met[locate] = 1
        return _put(out, n, action, _N, UNDEF_PRICE, 0, 0, F_LAST), OK
    if kind == fields.ACTION:
        letter = data[p + 19]
        if letter not in (fields.HALTED, fields.PAUSED, fields.QUOTING, fields.TRADING):
            return n, STATE
        trading = 1 if letter == fields.TRADING else (0 if letter == fields.QUOTING else -1)
        return _put(out, n, _N, _N, trading * 1_000_000_000, 0, 0, F_LAST), OK
    if kind == fields.TRADE:
        if side_of(data[p + 19]) == 0:
            return n, SIDE
        return _put(out, n, _T, _N, big_32(data, p + 32) * _UNIT, big_32(data, p + 20), big_64(data, p + 36), F_LAST), OK
    if kind == fields.CROSS:
        if big_32(data, p + 11) != 0:
            return n, SIZE
        shares, price = big_32(data, p + 15), big_32(data, p + 27) * _UNIT
        crossed = shares > 0
        return _put(out, n, _T if crossed else _N, _N, price if crossed else UNDEF_PRICE, shares, big_64(data, p + 31), F_LAST), OK
    return _put(out, n, _N, _N, UNDEF_PRICE, 0, big_64(data, p + 11), F_LAST), OK


@inner
def _expand(data, p, n, out, locate, locates, names, orders, shift, state):
    """Events of one whole message of a known type -> (events so far, status)."""
    kind = data[p]
    reduces = kind in (fields.CANCEL, fields.DELETE, fields.REPLACE)
    executes = kind in (fields.EXECUTED, fields.EXECUTED_PRICE)
    adds = kind in (fields.ADD, fields.ADD_MPID)
    if adds or executes or reduces:
        locates.met[locate] = 1
    if time_of(data, p) >= _DAY_NS:
        return n, TIME
    offset = stock_at(kind)
    if offset > 0 and _name(data, p + offset, locate, locates, names, state) != OK:
        return n, STOCK
    if adds:
        return _add(data, p, n, out, locate, orders, shift, state)
    if executes:
        return _execute(data, p, n, out, locate, orders, shift, state)
    if reduces:
        return _reduce(data, p, n, out, locate, orders, shift, state)
    return _other(data, p, n, out, locate, locates)


@kernel
def messages_to_events(data, rows, low, high, midnight, out, bad, locates, names, orders, state):
    """rows[low:high] (as `find_messages` wrote them for `data`) to events, until there is no room for MOST_EVENTS more.

    midnight int64 ns UTC that times count from; out Events and bad Bad written; locates, names, orders (ORDER[2^k], with a free slot for each row)
    and state kept. Returns (first row not taken, events, bad rows). Twin: tests/oracles/naive_itch.py
    """
    shift = shift_of(orders)
    state[S_NAMED] = 0
    n, wrong, i = 0, 0, low
    while i < high and n + wrong + MOST_EVENTS <= out.price.shape[0]:
        first, code, status = n, np.int64(-1), rows[i, R_STATUS]
        if status == OK:
            p = rows[i, R_AT] + 2
            locate = big_16(data, p + 1)
            n, status = _expand(data, p, n, out, locate, locates, names, orders, shift, state)
            if status == OK and locates.code[locate] < 0:
                _new_code(locate, ANONYMOUS, locates, names, state)
            code = np.int64(locates.code[locate])
            time, number = midnight + time_of(data, p), rows[i, R_NUMBER] & 0xFFFFFFFF
            for event in range(first, n):
                k = np.uint64(event)
                out.ts_event[k] = time
                out.instrument_id[k] = locate
                out.sequence[k] = number
                out.code[k] = code
                out.row[k] = i
        if status != OK:
            bad.before[wrong], bad.row[wrong], bad.reason[wrong], bad.code[wrong] = n, i, status, code
            wrong += 1
        i += 1
    return i, n, wrong
