"""Tokens of Bybit's order-book lines: white space, words, whole numbers, decimals, and where lines end. Nothing here is a float.

Belongs here: compiled parsers of less than a level. Levels and lines are parsed in `bybit_line_kernels.py`.

buf uint8[n] ends with a newline, which no parser takes: none of them needs a bounds check. Positions are uint64, because an index that could be
negative costs more (the numbers of a level 24 ns with signed positions, 17 with these). A parser returns the position after what it took; where
the text does not fit it returns the position of that last newline, and nothing fits from there on. Callers ask for the usual bytes in a branch of
their own, and leave where they are not there: a position that is chosen by a comparison makes every byte wait for the one before (47 ns a level,
26 without). Twin: tests/oracles/naive_bybit.py
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel

LF, CR, SPACE, TAB, QUOTE, COMMA, MINUS, POINT, COLON = tuple(b'\n\r \t",-.:')
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = tuple(b"{}[]")
ONE, TWO = np.uint64(1), np.uint64(2)
_MOST_DIGITS = np.uint64(18)  # of any number: they fit an int64 whatever they are


@inner
def last(buf):
    """Position of the newline that ends buf: the position of what does not fit."""
    return np.uint64(len(buf)) - ONE


@inner
def blank(buf, p):
    """Position of the first byte at or after p that is no white space inside a line."""
    while buf[p] == SPACE or buf[p] == TAB or buf[p] == CR:
        p += ONE
    return p


@inner
def after(buf, p, char):
    """Position after `char`, which stands at p or after white space."""
    if buf[p] == char:
        return p + ONE
    p = blank(buf, p)
    return p + ONE if buf[p] == char else last(buf)


@inner
def after_two(buf, p, char, then):
    """Position after `char` and `then`, each of which may stand after white space."""
    if buf[p] == char and buf[p + ONE] == then:
        return p + TWO
    return after(buf, after(buf, p, char), then)


@inner
def matched(buf, p, word):
    """Position after the bytes of `word`, which stand at p."""
    for i in range(len(word)):
        if buf[p + np.uint64(i)] != word[i]:
            return last(buf)
    return p + np.uint64(len(word))


@inner
def _digits(buf, p, stop, value):
    """Digits at p, those at `stop` and after it left -> (position after, value continued with them)."""
    digit = np.int64(buf[p]) - 48
    while 0 <= digit <= 9 and p < stop:
        value = value * 10 + digit
        p += ONE
        digit = np.int64(buf[p]) - 48
    return p, value


@inner
def whole(buf, p):
    """Up to 18 digits without leading zeros -> (position after, value)."""
    q, value = _digits(buf, p, p + _MOST_DIGITS, np.int64(0))
    if q == p or (buf[p] == 48 and q > p + ONE) or 48 <= buf[q] <= 57:
        return last(buf), value
    return q, value


@inner
def decimal(buf, p):
    """A decimal without a sign, of up to 18 digits, and its closing quote -> (position after, value in units of 10^-digits, digits).

    One that begins with its point, and one with an exponent, does not fit.
    """
    q, value = _digits(buf, p, p + _MOST_DIGITS, np.int64(0))
    digits = np.int64(0)
    if q == p:
        return last(buf), value, digits
    if buf[q] == POINT:
        point, stop = q + ONE, p + _MOST_DIGITS + ONE
        q, value = _digits(buf, point, stop, value)
        digits = np.int64(q - point)
    if buf[q] != QUOTE:
        return last(buf), value, digits
    return q + ONE, value, digits


@kernel
def newline_after(buf, p):
    """Position of the first newline at or after p, int64; len(buf) when there is none. buf uint8[n], any."""
    while p < len(buf) and buf[p] != LF:
        p += 1
    return p


@kernel
def newline_before(buf, stop):
    """Position of the last newline before `stop`, int64; -1 when there is none. buf uint8[n], any."""
    p = stop - 1
    while p >= 0 and buf[p] != LF:
        p -= 1
    return p
