"""The hash of resting orders: ids to places in the order pool. Multiplicative hash, linear probing; deleting shifts later entries back.

A slot is one word: the upper half of the id's hash, and the reference + 1 below it, 0 for none. The id itself stands in the order, which
whoever asks is about to touch anyway; so the table is half as large as one with ids, and a miss is told by the upper half alone but once in 2^32.
`book.py` keeps the load under 1/8.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel, prefetch

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_UPPER = np.uint64(0xFFFFFFFF00000000)
_LOWER = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_NONE = np.uint64(0)

# Records between asking for something and using it.
SLOT_AHEAD, ORDER_AHEAD = 16, 8


@inner
def shift_of(table):
    """Shift that leaves as many top bits of a hash as the table (a power of two, at most 2^32) has slots; uint64."""
    bits = 0
    while (1 << bits) < table.shape[0]:
        bits += 1
    return np.uint64(64 - bits)


@inner
def find(table, orders, order_id, shift):
    """Slot of an order, or -1. shift = 64 - log2(slots)."""
    mask = np.uint64(table.shape[0] - 1)
    mixed = order_id * _MULTIPLIER
    slot = mixed >> shift
    entry = table[slot]
    while entry != _NONE:
        if ((entry ^ mixed) & _UPPER) == _NONE and orders[(entry & _LOWER) - _ONE]["id"] == order_id:
            return np.int64(slot)
        slot = (slot + _ONE) & mask
        entry = table[slot]
    return np.int64(-1)


@inner
def reference_at(table, slot):
    """Place in the pool of the order in a slot."""
    return np.int64(table[slot] & _LOWER) - 1


@inner
def insert(table, order_id, reference, shift):
    """Put an id that is not there."""
    mask = np.uint64(table.shape[0] - 1)
    mixed = order_id * _MULTIPLIER
    slot = mixed >> shift
    while table[slot] != _NONE:
        slot = (slot + _ONE) & mask
    table[slot] = (mixed & _UPPER) | np.uint64(reference + 1)


@inner
def erase(table, slot, shift):
    """Empty a slot and move later entries of its run back, so that no tombstones build up."""
    mask = np.uint64(table.shape[0] - 1)
    hole = np.uint64(slot)
    probe = hole
    while True:
        probe = (probe + _ONE) & mask
        entry = table[probe]
        if entry == _NONE:
            break
        # The upper half of the hash holds all bits that a slot is made of.
        home = entry >> shift
        if ((probe - home) & mask) >= ((probe - hole) & mask):
            table[hole] = entry
            hole = probe
    table[hole] = _NONE


@inner
def ask_ahead(table, orders, order_id, i, n, shift):
    """Have near what the records after i of n are going to look up: the slot of one, and the order whose slot was asked for before.

    A table of a megabyte or more is read in no order at all, and a miss costs 90 ns (measured).
    """
    if i + SLOT_AHEAD < n:
        prefetch(table, (order_id[i + SLOT_AHEAD] * _MULTIPLIER) >> shift)
        entry = table[(order_id[i + ORDER_AHEAD] * _MULTIPLIER) >> shift]
        prefetch(orders, np.int64(entry & _LOWER) - 1)


@kernel
def fill_slots(table, orders, references):
    """Insert the orders at references int64[n] of the pool into an empty table."""
    shift = shift_of(table)
    for k in range(references.shape[0]):
        insert(table, orders[references[k]]["id"], references[k], shift)
