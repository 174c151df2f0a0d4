"""Names of symbols to codes, in order of first appearance: a hash table over the bytes of the names.

Belongs here: looking a name up in a line, and indexing the names again when the table has grown. The arrays belong to `csv_source.SymbolTable`.

The table: slots int32[2^k], a code or -1 (linear probing); starts int64[k + 1]; arena uint8[m], where name c is arena[starts[c]:starts[c + 1]].
"""

from __future__ import annotations

import numpy as np

from tasks.scanning.csv_field_kernels import SYMBOL_COUNT, field, kernel

MAX_SYMBOL = 256  # bytes


@kernel
def _hash(buf, start, stop, mask):
    value = np.int64(0)
    for k in range(start, stop):
        value = (value * 31 + np.int64(buf[k])) & 0x3FFFFFFFFFFFFF
    return (value ^ (value >> 17)) & mask


@kernel
def index_symbols(slots, starts, arena, count):
    """Fill slots int32[2^k] (-1 free) with the codes 0..count-1 of the names arena[starts[c]:starts[c + 1]]."""
    slots[:] = -1
    for code in range(count):
        slot = _hash(arena, starts[code], starts[code + 1], len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = code


@field
def intern(buf, start, stop, slots, starts, arena, state):
    """Code of the name buf[start:stop], a new one if need be; -1 when the table is full (see `csv_source.SymbolTable`)."""
    count, size, mask = state[SYMBOL_COUNT], stop - start, len(slots) - 1
    slot = _hash(buf, start, stop, mask)
    while slots[slot] >= 0:
        at = starts[slots[slot]]
        same = starts[slots[slot] + 1] - at == size
        k = 0
        while same and k < size:
            same = arena[at + k] == buf[start + k]
            k += 1
        if same:
            return np.int64(slots[slot])
        slot = (slot + 1) & mask
    if 2 * (count + 1) > len(slots) or starts[count] + size > len(arena):
        return np.int64(-1)
    slots[slot] = count
    for k in range(size):
        arena[starts[count] + k] = buf[start + k]
    starts[count + 1] = starts[count] + size
    state[SYMBOL_COUNT] = count + 1
    return count
