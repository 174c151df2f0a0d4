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
from tasks.reconstruction.order_table_kernels import find
from tasks.schemas import F_SNAPSHOT, UNDEF_PRICE

GOOD_FILL, BAD_FILL, NO_FILL = 1, 0, -1


@inner
def check_fill(book, width, shift, side_code, rank, size, order_id, difference):
    """Whether a fill names an order that rests on that side: GOOD_FILL, BAD_FILL, or NO_FILL when it proves nothing.

    Price and size differ with good reason and are only counted: an order is filled at its new price before the feed says that it moved, in an
    auction at the auction's, and an iceberg for more than it shows (of 6,371 real fills 133 and 28). An auction, which names no side, also
    fills orders that never rested. difference: written, see proof_kernels.py.
    """
    slot = find(book.table, order_id, shift)
    price = book.prices[rank] if rank >= 0 else UNDEF_PRICE
    difference[0] = ASK if side_code == S_ASK else BID
    difference[1] = -1
    difference[2] = price
    difference[3] = size
    difference[4] = 1
    difference[5] = UNDEF_PRICE
    difference[6] = 0
    difference[7] = 0
    if slot < 0:
        if side_code in (S_ASK, S_BID):
            return BAD_FILL
        book.counters[C_FILLS_UNRESTING] += 1
        return NO_FILL
    order = book.orders[np.int64(book.table[slot, 1]) - 1]
    side = order["side"]
    difference[5] = book.prices[order["level"] if side == BID else width - 1 - order["level"]]
    difference[6] = order["size"]
    difference[7] = 1
    if order["size"] < size:
        book.counters[C_FILLS_BEYOND] += 1
    if difference[5] != price:
        book.counters[C_FILLS_ELSEWHERE] += 1
    return GOOD_FILL if side_code not in (S_ASK, S_BID) or side == difference[0] else BAD_FILL


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
