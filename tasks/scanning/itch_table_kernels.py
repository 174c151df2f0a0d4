"""The orders that rest while an ITCH file is read: reference to stock, side, price and shares in an open-addressing hash.

Eight references in a row share a place: the home of an order is the hash of reference // 8, and within it reference % 8. References count up through
the day and most orders live for milliseconds, so the orders in use stay together in the cache, which a hash of the whole reference would scatter
(measured on 3M messages, places of 1, 4, 8 and 16 references: 94, 78, 66 and 64 ns a message with 20,000 orders, 125, 113, 95 and 120 with 1.5M).
Deleting shifts later entries back, so that no tombstones build up. The reader keeps the load at 1/2 or below.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel

# price in 1e-4 as in the message; side "B" or "A", 0 in an empty slot
ORDER = np.dtype([("reference", "u8"), ("price", "u4"), ("shares", "u4"), ("locate", "u2"), ("side", "u1")], align=True)
MIN_SLOTS = 16

_NEIGHBOURS = np.uint64(3)  # log2 of the references that share a place
_WITHIN = np.uint64(7)
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)
_MULTIPLIER = np.uint64(0x9E3779B1)  # 2^32 / golden ratio; products of 32-bit numbers do not wrap


@inner
def shift_of(orders):
    """Shift that leaves as many top bits of a 32-bit hash as the table (a power of two, MIN_SLOTS or more) has places; uint64."""
    bits = 0
    while (8 << bits) < orders.shape[0]:
        bits += 1
    return np.uint64(32 - bits)


@inner
def _home(reference, shift):
    block = reference >> _NEIGHBOURS
    mixed = (((block ^ (block >> _HALF)) & _LOW) * _MULTIPLIER) & _LOW
    return np.int64(((mixed >> shift) << _NEIGHBOURS) | (reference & _WITHIN))


@inner
def find(orders, reference, shift):
    """Slot of an order (reference uint64), or -1."""
    mask = orders.shape[0] - 1
    slot = _home(reference, shift)
    while orders[slot]["side"] != 0:
        if orders[slot]["reference"] == reference:
            return slot
        slot = (slot + 1) & mask
    return -1


@inner
def put(orders, reference, locate, side, price, shares, shift):
    """Write an order, over the one with its reference where there is one; returns the orders gained: 1 or 0."""
    mask = orders.shape[0] - 1
    slot = _home(reference, shift)
    while orders[slot]["side"] != 0 and orders[slot]["reference"] != reference:
        slot = (slot + 1) & mask
    order = orders[slot]
    gained = 1 if order["side"] == 0 else 0
    order["reference"] = reference
    order["price"] = price
    order["shares"] = shares
    order["locate"] = locate
    order["side"] = side
    return gained


@inner
def erase(orders, slot, shift):
    """Empty a slot and move later entries of its run back."""
    mask = orders.shape[0] - 1
    hole = slot
    probe = slot
    while True:
        probe = (probe + 1) & mask
        order = orders[probe]
        if order["side"] == 0:
            break
        home = _home(order["reference"], shift)
        if ((probe - home) & mask) >= ((probe - hole) & mask):
            free = orders[hole]
            free["reference"] = order["reference"]
            free["price"] = order["price"]
            free["shares"] = order["shares"]
            free["locate"] = order["locate"]
            free["side"] = order["side"]
            hole = probe
    orders[hole]["side"] = 0


@kernel
def move_orders(orders, larger):
    """Put all of `orders` into `larger` (both ORDER[2^k]), which is empty. Twin: the dict of tests/oracles/naive_itch.py"""
    shift = shift_of(larger)
    for slot in range(orders.shape[0]):
        order = orders[slot]
        if order["side"] != 0:
            put(larger, order["reference"], order["locate"], order["side"], order["price"], order["shares"], shift)
