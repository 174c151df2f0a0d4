"""What a record says besides changing the book: whether a fill fits, whether numbers are missing, whether trading is halted."""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner
from tasks.reconstruction.book_kernels import (
    ASK,
    BID,
    C_FILLS_BEYOND,
    C_FILLS_ELSEWHERE,
    C_FILLS_UNRESTING,
    C_GAP,
    C_HALTS,
    HALTED_STATE,
    LAST_SEQUENCE,
    R_GAP,
    S_ASK,
    S_BID,
    doubt,
)
from tasks.reconstruction.order_table_kernels import find, reference_at
from tasks.schemas import F_SNAPSHOT, UNDEF_PRICE

GOOD_FILL, BAD_FILL, NO_FILL = 1, 0, -1


@inner
def check_fill(book, width, shift, side_code, rank, size, order_id, difference):
    """Whether a fill names an order that rests on that side: GOOD_FILL, BAD_FILL, or NO_FILL when it proves nothing.

    Price and size differ with good reason and are only counted: an order is filled at its new price before the feed says that it moved, in an
    auction at the auction's, and an iceberg for more than it shows (of 6,371 real fills 133 and 28). An auction, which names no side, also
    fills orders that never rested. difference: written, see proof_kernels.py.
    """
    slot = find(book.table, book.orders, order_id, shift)
    sided = side_code in (S_ASK, S_BID)
    named = ASK if side_code == S_ASK else BID
    if slot < 0 and not sided:
        book.counters[C_FILLS_UNRESTING] += 1
        return NO_FILL
    found, resting = UNDEF_PRICE, np.int64(0)
    if slot >= 0:
        order = book.orders[reference_at(book.table, slot)]
        side = order["side"]
        level = order["level"] if side == BID else width - 1 - order["level"]
        resting = order["size"]
        if resting < size:
            book.counters[C_FILLS_BEYOND] += 1
        if level != rank:
            book.counters[C_FILLS_ELSEWHERE] += 1
        if not sided or side == named:
            return GOOD_FILL
        found = book.prices[level]
    difference[0] = named
    difference[1] = -1
    difference[2] = book.prices[rank] if rank >= 0 else UNDEF_PRICE
    difference[3] = size
    difference[4] = 1
    difference[5] = found
    difference[6] = resting
    difference[7] = 1 if slot >= 0 else 0
    return BAD_FILL


@inner
def check_sequence(book, sequence, flags):
    """In a source that has every message: a number that is neither the last one nor the next is a gap (or a repetition). Snapshots are older."""
    if flags & F_SNAPSHOT:
        return
    last = book.state[LAST_SEQUENCE]
    if last >= 0 and sequence != last and sequence != last + 1:
        doubt(book, C_GAP, R_GAP)
    book.state[LAST_SEQUENCE] = sequence


@inner
def note_halt(book, rank):
    """A record of the trading state: price -1 halted, 0 quoting only, 1 trading."""
    book.counters[C_HALTS] += 1
    price = book.prices[rank]
    book.state[HALTED_STATE] = 1 if price < 0 else (2 if price == 0 else 0)
