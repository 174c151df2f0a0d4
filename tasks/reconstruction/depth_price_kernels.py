"""Level updates as written to one scale, and prices to ranks: a hash of the prices that a price-level book knows.

Nothing of the book's rules belongs here. Numbers only: `depth_book.py` keeps the list of known prices and turns a refused update into an error.
"""

from __future__ import annotations

from collections import namedtuple

from tasks.kernels import inner, kernel

# price, size int64[m] as written with price_digits, size_digits uint8[m] decimals
Written = namedtuple("Written", "price size price_digits size_digits")

# What a value with d decimals is multiplied with, and the largest that then fits, by d: int64[256] each.
# A d beyond the scale has the factor 1: its update is refused later on.
Scale = namedtuple("Scale", "price_factor price_limit size_factor size_limit")

UNKNOWN = -1


@inner
def slot_of(price, bits):
    """Where the search for a price starts in a table of 2^bits slots.

    Two rounds of multiplying: prices are multiples of a tick, and one round puts a tick of 0.1 at 1e-9 into a few runs (measured: 41 probes
    a price in a table a quarter full, and a replay three times slower; with two rounds at most 1.2 for 48 ticks). 32 bits, so that nothing wraps.
    """
    h = (((price ^ (price >> 31)) & 0xFFFFFFFF) * 0x4F1BBCDD) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    return h >> (32 - bits)


@inner
def bits_of(table):
    """log2 of the slots."""
    bits = 0
    while (1 << bits) < table.shape[0]:
        bits += 1
    return bits


@inner
def rank_of(table, price, bits):
    """Rank of a price, UNKNOWN when it is not in the table."""
    mask = table.shape[0] - 1
    slot = slot_of(price, bits)
    while table[slot, 1] != 0 and table[slot, 0] != price:
        slot = (slot + 1) & mask
    return table[slot, 1] - 1


@kernel
def fill_table(table, prices):
    """Put prices int64[n], ascending, into an empty table int64[slots, 2] (price, rank + 1); slots is a power of two, at least 2n."""
    mask = table.shape[0] - 1
    bits = bits_of(table)
    for rank in range(prices.shape[0]):
        slot = slot_of(prices[rank], bits)
        while table[slot, 1] != 0:
            slot = (slot + 1) & mask
        table[slot, 0] = prices[rank]
        table[slot, 1] = rank + 1


@kernel
def scale_updates(table, written, scale, rank, size):
    """Bring m updates to one scale: rank int32[m] of each price (UNKNOWN: not in the table) and size int64[m] written.

    Returns (how many prices are unknown, first update that does not fit or -1, most price digits, most size digits). Where an update does not
    fit, or has more digits than the scale, nothing that was written counts.
    """
    bits = bits_of(table)
    unknown = 0
    price_digits = 0
    size_digits = 0
    for u in range(rank.shape[0]):
        pd = written.price_digits[u]
        sd = written.size_digits[u]
        price = written.price[u]
        amount = written.size[u]
        price_digits = max(price_digits, pd)
        size_digits = max(size_digits, sd)
        limit = scale.price_limit[pd]
        if price > limit or price < -limit or amount < 0 or amount > scale.size_limit[sd]:
            return unknown, u, price_digits, size_digits
        r = rank_of(table, price * scale.price_factor[pd], bits)
        rank[u] = r
        unknown += r < 0
        size[u] = amount * scale.size_factor[sd]
    return unknown, -1, price_digits, size_digits


@kernel
def unknown_prices(written, scale, rank, out):
    """The prices of the updates with an UNKNOWN rank, in order, at the scale: out int64[unknown] written."""
    k = 0
    for u in range(rank.shape[0]):
        if rank[u] < 0:
            out[k] = written.price[u] * scale.price_factor[written.price_digits[u]]
            k += 1


@kernel
def places_in(prices, old, moved):
    """moved int32[n]: rank in `prices` of each of old int64[n], UNKNOWN where it is not there; both ascending."""
    at = 0
    for r in range(old.shape[0]):
        while at < prices.shape[0] and prices[at] < old[r]:
            at += 1
        moved[r] = at if at < prices.shape[0] and prices[at] == old[r] else UNKNOWN


@kernel
def move_ranks(table, written, scale, moved, rank):
    """Bring ranks up to date: a known one by moved int32[old prices] (UNKNOWN: forgotten), all others by looking into the new table."""
    bits = bits_of(table)
    for u in range(rank.shape[0]):
        r = rank[u]
        if r >= 0:
            r = moved[r]
        if r < 0:
            r = rank_of(table, written.price[u] * scale.price_factor[written.price_digits[u]], bits)
        rank[u] = r
