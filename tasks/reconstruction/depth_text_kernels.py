"""Snapshots as CSV text: integers with their decimals as they were written, into a byte buffer.

Belongs here: compiled writers of text; headers and files are depth_csv.py's matter. Twin: the plain Python of tests/unit/test_depth_csv.py
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.schemas import UNDEF_PRICE

COMMA, POINT, ZERO, MINUS, LF, SPACE, DASH, COLON = tuple(b",.0-\n -:")
CELL_BYTES = 42  # of a price and a size with their commas: a sign, 19 digits and a point at most each


@inner
def put_int(out, p, value, width):
    """The digits of value >= 0, with leading zeros up to `width`; returns the position after."""
    count, rest = 1, value
    while rest >= 10:
        rest //= 10
        count += 1
    stop = p + max(count, width)
    for q in range(stop - 1, p - 1, -1):
        out[q] = ZERO + value % 10
        value //= 10
    return stop


@inner
def put_decimal(out, p, value, scale, digits, power):
    """value, in units of 10^-scale, with `digits` decimals (digits <= scale; the rest are zeros); returns the position after."""
    if value < 0:
        out[p] = MINUS
        p += 1
        value = -value
    value //= power[scale - digits]
    whole = value // power[digits]
    p = put_int(out, p, whole, 1)
    if digits:
        out[p] = POINT
        p = put_int(out, p + 1, value - whole * power[digits], digits)
    return p


@inner
def put_moment(out, p, civil, k):
    """YYYY-MM-DD HH:MM:SS of civil[:, k]; returns the position after."""
    for i in range(6):
        p = put_int(out, p, civil[i, k], 4 if i == 0 else 2)
        if i < 5:
            out[p] = SPACE if i == 2 else DASH if i < 2 else COLON
            p += 1
    return p


@kernel
def put_rows(out, times, civil, px, sz, price_digits, size_digits, scales, power, n, depth):
    """Write n lines: [moment,]time,bid price,bid size,... best first,ask price,ask size,... and a newline; empty levels are empty cells.

    out uint8[b], large enough, written; times int64[n] ms; civil int64[6, n] year to second, or [6, 0] for no moment; px, sz int64[2 * D, n] and
    price_digits, size_digits uint8[2 * D, n]: row 2 * level + side (0 bid, 1 ask), decimals as written; scales int64[2]: decimals of px and sz;
    power int64[19]: powers of ten. Returns the bytes written.
    """
    p = 0
    for k in range(n):
        if civil.shape[1]:
            p = put_moment(out, p, civil, k)
            out[p] = COMMA
            p += 1
        p = put_int(out, p, times[k], 1)
        for side in range(2):
            for level in range(depth):
                r = 2 * level + side
                out[p] = COMMA
                p += 1
                if px[r, k] != UNDEF_PRICE:
                    p = put_decimal(out, p, px[r, k], scales[0], np.int64(price_digits[r, k]), power)
                out[p] = COMMA
                p += 1
                if px[r, k] != UNDEF_PRICE:
                    p = put_decimal(out, p, sz[r, k], scales[1], np.int64(size_digits[r, k]), power)
        out[p] = LF
        p += 1
    return p
