"""Fields of Tardis files: microseconds, decimals with exponents, words. Nothing here is a float.

Belongs here: compiled parsers of a single field that `csv_field_kernels.py` does not have. Whole rows are parsed in `tardis_row_kernels.py`.

buf uint8[n] ends with a newline, which no parser takes: none of them needs a bounds check. p: where the field starts. Each returns
(status, value, ..., position after). Twin: tests/oracles/naive_tardis.py
"""

from __future__ import annotations

import numpy as np

from tasks.depth_batches import ASK, BID, MAX_DIGITS
from tasks.kernels import inner, kernel
from tasks.scanning.csv_field_kernels import COMMA, CR, LF, MALFORMED, MINUS, OK, OVERFLOW, QUOTE_MARK
from tasks.scanning.csv_field_kernels import REASONS as _CSV_REASONS

# Why a line is bad: position = status code, as in csv_field_kernels.py and two more.
REASONS = (*_CSV_REASONS, "is_snapshot", "digits")
IS_SNAPSHOT, DIGITS = len(_CSV_REASONS), len(_CSV_REASONS) + 1

# 2^63-1 is kept for "not there" (UNDEF_PRICE).
EMPTY = int(np.iinfo(np.int64).max)
LARGEST = EMPTY - 1
MAX_MICROS = EMPTY // 1_000
FAST_DIGITS = 18  # fit an int64 whatever they are
_TENTH = LARGEST // 10
_FAR = 1_000_000  # an exponent beyond is as good as this one
_POINT, _PLUS, _E = tuple(b".+e")
_BID_WORD, _ASK_WORD, _BUY_WORD, _SELL_WORD, _UNKNOWN_WORD = (tuple(word) for word in (b"bid", b"ask", b"buy", b"sell", b"unknown"))
_BOUGHT, _SOLD, _NOT_TOLD = tuple(b"BAN")


@inner
def ends(buf, p):
    """Whether a field may end at p: a comma, a line end or a closing quote."""
    return buf[p] == COMMA or buf[p] == LF or buf[p] == QUOTE_MARK or (buf[p] == CR and buf[p + 1] == LF)


@inner
def micros(buf, p):
    """Microseconds since the epoch, digits -> (status, int64 ns, position after); OVERFLOW beyond 2^63-1 ns."""
    first, value, status = p, np.int64(0), OK
    digit = np.int64(buf[p]) - 48
    while 0 <= digit <= 9:
        value = value * 10 + digit
        if value > MAX_MICROS:
            status, value = OVERFLOW, np.int64(0)
        p += 1
        digit = np.int64(buf[p]) - 48
    if p == first:
        status = MALFORMED
    return status, value * 1_000, p


@kernel
def _exponent(buf, p):
    """What follows an e: an optional sign and digits -> (OK or MALFORMED, value, at most about _FAR, position after)."""
    negative = buf[p] == MINUS
    if negative or buf[p] == _PLUS:
        p += 1
    first, value = p, np.int64(0)
    while 48 <= buf[p] <= 57:
        if value < _FAR:
            value = value * 10 + (np.int64(buf[p]) - 48)
        p += 1
    return (OK if p > first else MALFORMED), -value if negative else value, p


@kernel
def _long_decimal(buf, p):
    """An unsigned decimal of any length, with or without exponent -> (status, value, digits, position after); see `decimal`."""
    value, zeros, written, seen, fraction, large = np.int64(0), 0, 0, False, False, False
    while 48 <= buf[p] <= 57 or (buf[p] == _POINT and not fraction):
        digit = np.int64(buf[p]) - 48
        p += 1
        if digit < 0:
            fraction = True
            continue
        # zeros: places that the value must move up before the next digit; those at the end of the text never count.
        seen, written, zeros = True, written + fraction, zeros + int(value > 0)
        if digit > 0:
            while zeros > 0 and not large:
                large = bool(value > _TENTH)
                value, zeros = value if large else value * 10, zeros - 1
            large = large or bool(value > LARGEST - digit)
            value, zeros = value if large else value + digit, 0
    status, power = OK, np.int64(0)
    if buf[p] | 32 == _E and seen:
        status, power, p = _exponent(buf, p + 1)
    if status != OK or not seen:
        return MALFORMED, value, np.int64(0), p
    # The number is value * 10^(power - written + zeros), written with max(written - power, 0) decimals.
    least, most = max(written - int(power) - zeros, 0), min(max(written - int(power), 0), MAX_DIGITS)
    if value == 0:
        return OK, value, most, p
    if large or least > MAX_DIGITS:
        return OVERFLOW if large else DIGITS, value, np.int64(0), p
    steps = least + int(power) - written + zeros
    while steps > 0 and value <= _TENTH:
        value, steps = value * 10, steps - 1
    if steps > 0:
        return OVERFLOW, value, np.int64(0), p
    while least < most and value <= _TENTH:
        value, least = value * 10, least + 1
    return OK, value, least, p


@inner
def decimal(buf, p):
    """A decimal number -> (status, int64 value in units of 10^-digits, digits, position after). Exact, or not OK.

    digits: decimals as written (after the exponent is applied), fewer only where trailing zeros do not fit: at most MAX_DIGITS, and the value within
    +-LARGEST. DIGITS: more decimals than MAX_DIGITS; OVERFLOW: too large, or more significant digits than an int64 holds. A minus is allowed, a
    plus is not.
    """
    negative = buf[p] == MINUS
    if negative:
        p += 1
    first, value, digits, status = p, np.int64(0), np.int64(0), OK
    stop = p + FAST_DIGITS
    digit = np.int64(buf[p]) - 48
    while 0 <= digit <= 9 and p < stop:
        value = value * 10 + digit
        p += 1
        digit = np.int64(buf[p]) - 48
    count = p - first
    if buf[p] == _POINT:
        p += 1
        after = p
        digit = np.int64(buf[p]) - 48
        while 0 <= digit <= 9 and p <= stop:
            value = value * 10 + digit
            p += 1
            digit = np.int64(buf[p]) - 48
        digits = p - after
    if count + digits == 0 or 0 <= digit <= 9 or buf[p] | 32 == _E:
        status, value, digits, p = _long_decimal(buf, first)
    return status, -value if negative else value, digits, p


@inner
def _is_word(buf, p, word):
    """Whether `word` (codes) stands at p."""
    k = 0
    while k < len(word) and buf[p + k] == word[k]:
        k += 1
    return k == len(word)


@inner
def book_side(buf, p):
    """bid or ask -> (status, BID or ASK, position after)."""
    if _is_word(buf, p, _BID_WORD):
        return OK, np.int64(BID), p + 3
    if _is_word(buf, p, _ASK_WORD):
        return OK, np.int64(ASK), p + 3
    return MALFORMED, np.int64(BID), p


@inner
def trade_side(buf, p):
    """The aggressor: buy, sell, unknown or nothing -> (status, ASCII code of B, A or N, position after)."""
    if _is_word(buf, p, _BUY_WORD):
        return OK, np.int64(_BOUGHT), p + 3
    if _is_word(buf, p, _SELL_WORD):
        return OK, np.int64(_SOLD), p + 4
    if _is_word(buf, p, _UNKNOWN_WORD):
        return OK, np.int64(_NOT_TOLD), p + 7
    return (OK if ends(buf, p) else MALFORMED), np.int64(_NOT_TOLD), p
