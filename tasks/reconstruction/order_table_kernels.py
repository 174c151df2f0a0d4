"""The hash of resting orders: ids to places in the order pool. 16-byte slots (id, reference + 1), multiplicative hash, linear probing.

Deleting shifts later entries back, so that no tombstones build up. `book.py` keeps the load under 1/8.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@inner
def shift_of(table):
    """Shift that leaves as many top bits of a hash as the table (a power of two) has slots; uint64."""
    bits = 0
    while (1 << bits) < table.shape[0]:
        bits += 1
    return np.uint64(64 - bits)


@inner
def find(table, order_id, shift):
    """Slot of an order, or -1. shift = 64 - log2(slots)."""
    mask = table.shape[0] - 1
    slot = np.int64((order_id * _MULTIPLIER) >> shift)
    while table[slot, 1] != 0:
        if table[slot, 0] == order_id:
            return slot
        slot = (slot + 1) & mask
    return -1


@inner
def insert(table, order_id, reference, shift):
    """Put an id that is not there."""
    mask = table.shape[0] - 1
    slot = np.int64((order_id * _MULTIPLIER) >> shift)
    while table[slot, 1] != 0:
        slot = (slot + 1) & mask
    table[slot, 0] = order_id
    table[slot, 1] = np.uint64(reference + 1)


@inner
def erase(table, slot, shift):
    """Empty a slot and move later entries of its run back, so that no tombstones build up."""
    mask = table.shape[0] - 1
    hole = slot
    probe = slot
    while True:
        probe = (probe + 1) & mask
        if table[probe, 1] == 0:
            break
        home = np.int64((table[probe, 0] * _MULTIPLIER) >> shift)
        if ((probe - home) & mask) >= ((probe - hole) & mask):
            table[hole, 0] = table[probe, 0]
            table[hole, 1] = table[probe, 1]
            hole = probe
    table[hole, 1] = np.uint64(0)


@kernel
def fill_slots(table, entries):
    """Insert entries uint64[n, 2] (id, reference + 1) into an empty, larger table."""
    shift = shift_of(table)
    for i in range(entries.shape[0]):
        insert(table, entries[i, 0], np.int64(entries[i, 1]) - 1, shift)
