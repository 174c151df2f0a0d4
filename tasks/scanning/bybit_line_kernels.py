"""Lines of Bybit's order-book archives to messages and level updates: bytes in, columns out.

Belongs here: the compiled parser of lines in the layout that Bybit writes. It knows the known keys in any order, white space between tokens,
levels of two or three decimal strings; of anything else (escapes, other keys, exponents, numbers of more than 18 digits, another topic) it says
only that it stops there, and `bybit_general.py` has the last word on that line.

What is true of buffers and positions is told in `bybit_field_kernels.py`. Twin: tests/oracles/naive_bybit.py
"""

from __future__ import annotations

import numpy as np

from tasks.depth_batches import ASK, BID, DELTA, NO_ID, NO_TIME, SNAPSHOT
from tasks.kernels import inner, kernel
from tasks.scanning.bybit_field_kernels import (
    CLOSE,
    CLOSE_LIST,
    COLON,
    COMMA,
    LF,
    MINUS,
    ONE,
    OPEN,
    OPEN_LIST,
    QUOTE,
    TWO,
    after,
    after_two,
    blank,
    decimal,
    last,
    matched,
    whole,
)

MAX_LINE = 1 << 20  # bytes of a line without its newline; a snapshot of 1,000 levels a side has 60,000
NS_PER_MS = 1_000_000
MAX_MS = int(np.iinfo(np.int64).max) // NS_PER_MS
LEVEL_BYTES = 10  # of the shortest level with its comma; bounds the updates that a text can hold
MESSAGE_BYTES = 64  # of a message without levels are more than this
MESSAGES, UPDATES, LINES, THIRDS, COUNTS = range(5)

_TOPIC, _TYPE, _TS, _DATA, _CTS = (tuple(word) for word in (b'topic"', b'type"', b'ts"', b'data"', b'cts"'))
_S, _B, _A, _U, _SEQ = (tuple(word) for word in (b's"', b'b"', b'a"', b'u"', b'seq"'))
_SNAPSHOT, _DELTA = tuple(b'snapshot"'), tuple(b'delta"')
# Bits of the keys seen, of a line and of its data.
_SEEN_TOPIC, _SEEN_TYPE, _SEEN_TS, _SEEN_DATA, _SEEN_CTS = 1, 2, 4, 8, 16
_SEEN_B, _SEEN_A, _SEEN_S, _SEEN_U, _SEEN_SEQ = 1, 2, 4, 8, 16
_REQUIRED, _LISTS = 15, 3
# Values of one message, int64[VALUES].
_KIND, _TS_MS, _CTS_MS, _UPDATE_ID, _SEQUENCE, _THIRD, VALUES = range(7)


@inner
def _usual_levels(buf, p, code, m, updates):
    """Levels in exactly the venue's layout -> (position of the first that is not, updates so far, whether the list ended).

    m is unsigned here for the same reason as positions: 23 ns a level instead of 28.
    """
    side, price, size, price_digits, size_digits = updates
    end, m, room = last(buf), np.uint64(m), np.uint64(len(price))
    while buf[p] == OPEN_LIST and buf[p + ONE] == QUOTE and m < room:
        q, px, px_digits = decimal(buf, p + TWO)
        if q == end or buf[q] != COMMA or buf[q + ONE] != QUOTE:
            break
        q, sz, sz_digits = decimal(buf, q + TWO)
        if q == end or buf[q] != CLOSE_LIST or (buf[q + ONE] != COMMA and buf[q + ONE] != CLOSE_LIST):
            break
        side[m], price[m], size[m], price_digits[m], size_digits[m] = code, px, sz, px_digits, sz_digits
        m += ONE
        p = q + TWO
        if buf[q + ONE] == CLOSE_LIST:
            return p, np.int64(m), True
    return p, np.int64(m), False


@inner
def _odd_level(buf, p, code, m, updates, values):
    """One level with white space, a sign, or a third field -> (position after, updates so far)."""
    side, price, size, price_digits, size_digits = updates
    end = last(buf)
    p = after_two(buf, p, OPEN_LIST, QUOTE)
    negative = buf[p] == MINUS
    p, px, px_digits = decimal(buf, p + ONE if negative else p)
    p, sz, sz_digits = decimal(buf, after_two(buf, p, COMMA, QUOTE))
    q = after(buf, p, CLOSE_LIST)
    if q == end:
        p, _, _ = decimal(buf, after_two(buf, p, COMMA, QUOTE))
        q = after(buf, p, CLOSE_LIST)
        values[_THIRD] += 1
    if q == end or m == len(price):
        return end, m
    side[m], price[m], size[m], price_digits[m], size_digits[m] = code, -px if negative else px, sz, px_digits, sz_digits
    return q, m + 1


@inner
def _levels(buf, p, code, m, updates, values):
    """A list of levels from its colon on -> (position after, updates so far). updates: see `parse_lines`."""
    end = last(buf)
    p = after_two(buf, p, COLON, OPEN_LIST)
    q = after(buf, p, CLOSE_LIST)
    if q != end:
        return q, m
    while True:
        p, m, ended = _usual_levels(buf, p, code, m, updates)
        if ended:
            return p, m
        p, m = _odd_level(buf, p, code, m, updates, values)
        if p == end:
            return end, m
        q = after(buf, p, COMMA)
        if q == end:
            return after(buf, p, CLOSE_LIST), m
        p = q


@inner
def _number(buf, p, values, place):
    """A whole number from its colon on, into values[place] -> position after."""
    p, values[place] = whole(buf, blank(buf, after(buf, p, COLON)))
    return p


@inner
def _text(buf, p, text, start):
    """The string text[start:] from its colon on -> position after; no text fits where none is known yet."""
    if len(text) == 0:
        return last(buf)
    p = after_two(buf, p, COLON, QUOTE)
    for i in range(start, len(text)):
        if buf[p] != text[i]:
            return last(buf)
        p += ONE
    return p + ONE if buf[p] == QUOTE else last(buf)


@inner
def _data(buf, p, topic, symbol_at, m, updates, values):
    """The object `data` from its colon on -> (position after, updates so far)."""
    seen, key, end = 0, 0, last(buf)
    p = after_two(buf, p, COLON, OPEN)
    while True:
        p = after(buf, p, QUOTE)
        if buf[p] == _B[0] or buf[p] == _A[0]:
            is_bid = buf[p] == _B[0]
            key = _SEEN_B if is_bid else _SEEN_A
            p, m = _levels(buf, matched(buf, p + ONE, _B[1:]), BID if is_bid else ASK, m, updates, values)
        elif buf[p] == _U[0]:
            key = _SEEN_U
            p = _number(buf, matched(buf, p, _U), values, _UPDATE_ID)
        elif matched(buf, p, _S) != end:
            key = _SEEN_S
            p = _text(buf, matched(buf, p, _S), topic, symbol_at)
        else:
            key = _SEEN_SEQ
            p = _number(buf, matched(buf, p, _SEQ), values, _SEQUENCE)
        if p == end or seen & key:
            return end, m
        seen |= key
        q = after(buf, p, COMMA)
        if q == end:
            return after(buf, p, CLOSE) if seen & _LISTS == _LISTS else end, m
        p = q


@inner
def _kind(buf, p, values):
    """The value of `type` from its colon on, into values -> position after."""
    p = after_two(buf, p, COLON, QUOTE)
    values[_KIND] = SNAPSHOT if buf[p] == _SNAPSHOT[0] else DELTA
    return matched(buf, p, _SNAPSHOT) if values[_KIND] == SNAPSHOT else matched(buf, p, _DELTA)


@inner
def _message(buf, p, topic, symbol_at, m, updates, values):
    """One line -> (position after its newline, or p where it does not fit, updates so far)."""
    seen, key, end, start = 0, 0, last(buf), p
    values[_CTS_MS], values[_UPDATE_ID], values[_SEQUENCE], values[_THIRD] = NO_TIME, NO_ID, NO_ID, 0
    p = after(buf, p, OPEN)
    while True:
        p = after(buf, p, QUOTE)
        if matched(buf, p, _TS) != end:
            key = _SEEN_TS
            p = _number(buf, matched(buf, p, _TS), values, _TS_MS)
        elif matched(buf, p, _TYPE) != end:
            key = _SEEN_TYPE
            p = _kind(buf, matched(buf, p, _TYPE), values)
        elif matched(buf, p, _TOPIC) != end:
            key = _SEEN_TOPIC
            p = _text(buf, matched(buf, p, _TOPIC), topic, 0)
        elif matched(buf, p, _DATA) != end:
            key = _SEEN_DATA
            p, m = _data(buf, matched(buf, p, _DATA), topic, symbol_at, m, updates, values)
        else:
            key = _SEEN_CTS
            p = _number(buf, matched(buf, p, _CTS), values, _CTS_MS)
        if p == end or seen & key:
            return start, m
        seen |= key
        q = after(buf, p, COMMA)
        if q == end:
            break
        p = q
    p = blank(buf, p)
    q = blank(buf, p + ONE) if buf[p] == CLOSE else p
    if q == p or buf[q] != LF or seen & _REQUIRED != _REQUIRED or values[_TS_MS] > MAX_MS or values[_CTS_MS] > MAX_MS:
        return start, m
    return q + ONE, m


@kernel
def parse_lines(buf, p, topic, symbol_at, at, messages, updates, counts, values):
    """Parse the lines of buf[p:] up to the end, or to the first that is not in the layout; returns the position of that line, int64.

    buf uint8[b], buf[-1] a newline; topic uint8[t]: of every line, topic[symbol_at:] the symbol, empty while not known; at: offset of buf[0] in
    the stream; messages: kind uint8[k], ts, cts, update_id, sequence, line, offset, first int64[k] (first one longer), written; updates: side
    uint8[u], price, size int64[u], price_digits, size_digits uint8[u], written; counts int64[COUNTS], changed: messages, updates, lines, levels
    with a third field; values int64[VALUES]: scratch. Blank lines are no lines. Twin: tests/oracles/naive_bybit.py
    """
    kind, ts, cts, update_id, sequence, line, offset, first = messages
    n, m = counts[MESSAGES], counts[UPDATES]
    p = np.uint64(p)
    while p < len(buf):
        start = blank(buf, p)
        if np.int64(start - p) > MAX_LINE:
            break
        if buf[start] == LF:
            p = start + ONE
            continue
        q, reached = _message(buf, p, topic, symbol_at, m, updates, values)
        if q == p or np.int64(q - p) > MAX_LINE + 1 or n == len(kind):
            break
        kind[n], ts[n], update_id[n], sequence[n] = values[_KIND], values[_TS_MS] * NS_PER_MS, values[_UPDATE_ID], values[_SEQUENCE]
        cts[n] = values[_CTS_MS] * NS_PER_MS if values[_CTS_MS] != NO_TIME else NO_TIME
        line[n], offset[n], first[n], first[n + 1] = counts[LINES], at + np.int64(p), m, reached
        n, m, p = n + 1, reached, q
        counts[MESSAGES], counts[UPDATES], counts[LINES], counts[THIRDS] = n, m, counts[LINES] + 1, counts[THIRDS] + values[_THIRD]
    return np.int64(p)
