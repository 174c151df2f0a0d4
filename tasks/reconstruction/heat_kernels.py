"""Resting size by price bin, averaged over each column of the heatmap, while a book is replayed. Positions x count columns (float)."""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.reconstruction.book_kernels import A_CLEAR, ASK, BID, FREE, IN_SNAPSHOT, S_BID, USED, apply_record
from tasks.reconstruction.order_table_kernels import ask_ahead, find, reference_at, shift_of
from tasks.schemas import F_LAST, F_SNAPSHOT, F_TOB, UNDEF_PRICE


@inner
def settle(plane, held, since, side, row, x):
    """Add what the bin has held since it last changed: plane[side, row, c] += size * share of column c covered."""
    begin = max(since[side, row], 0.0)
    end = min(x, float(plane.shape[2]))
    since[side, row] = max(x, 0.0)
    size = held[side, row]
    if size == 0.0 or end <= begin:
        return
    column = int(begin)
    while column < end:
        plane[side, row, column] += size * (min(end, column + 1.0) - max(begin, float(column)))
        column += 1


@kernel
def settle_all(plane, held, since, x):
    """Settle every bin."""
    for side in range(2):
        for row in range(held.shape[1]):
            settle(plane, held, since, side, row, x)


@kernel
def price_rows(prices, low, step, rows, out):
    """Bin int32[width] of each price, -1 outside: a division for each change of a level would cost more than the change."""
    for rank in range(prices.shape[0]):
        row = (prices[rank] - low) // step
        out[rank] = row if 0 <= row < rows else -1


@kernel
def time_positions(clock, flags, first, scale, x):
    """x float64[n]: position of each record on an axis of time that begins at `first`, which is that of the event end that completes it."""
    end = -1
    for i in range(clock.shape[0] - 1, -1, -1):
        if flags[i] & F_LAST:
            end = i
        x[i] = (clock[end if end >= 0 else i] - first) * scale
    for i in range(1, clock.shape[0]):
        x[i] = max(x[i], x[i - 1])


@inner
def _change(plane, held, since, side, row, delta, x):
    if delta != 0 and row >= 0:
        settle(plane, held, since, side, row, x)
        held[side, row] += delta


@kernel
def accumulate(batch, start, n, x, book, plane, held, since, row_of):
    """Replay records start..n-1 and accumulate.

    batch: replay_kernels.Batch; x float64[n] position of each record; plane float64[2, rows, columns]; held, since float64[2, rows] the size in each
    bin and the position up to which it is settled; row_of int32[width]: bin of each rank, see price_rows. Returns the next record; less than n
    when the pool is full.
    Twin: tests/oracles/naive_heatmap.py
    """
    width = book.prices.shape[0]
    shift = shift_of(book.table)
    state = book.state
    for i in range(start, n):
        if state[FREE] < 0 and state[USED] >= book.orders.shape[0]:
            return i
        ask_ahead(book.table, book.orders, batch.order_id, i, n, shift)
        action = batch.action[i]
        flags = batch.flags[i]
        at = x[i]
        whole = action == A_CLEAR or (flags & F_TOB) != 0 or ((flags & F_SNAPSHOT) != 0 and state[IN_SNAPSHOT] != 1)
        side = BID if batch.side[i] == S_BID else ASK
        rank = batch.rank[i]
        level = rank if side == BID else width - 1 - rank
        old_side = -1
        old_level = -1
        new_size = np.int64(0)
        old_size = np.int64(0)
        if not whole:
            slot = find(book.table, book.orders, batch.order_id[i], shift)
            if slot >= 0:
                order = book.orders[reference_at(book.table, slot)]
                old_side = order["side"]
                old_level = order["level"]
                old_size = book.levels[old_side * width + old_level]["size"]
            if rank >= 0:
                new_size = book.levels[side * width + level]["size"]
        apply_record(book, width, shift, action, batch.side[i], rank, np.int64(batch.size[i]), batch.order_id[i], flags)
        if whole:
            refill(book, width, plane, held, since, at, row_of)
            continue
        if rank >= 0:
            delta = book.levels[side * width + level]["size"] - new_size
            _change(plane, held, since, side, row_of[rank], delta, at)
        if old_level >= 0 and not (rank >= 0 and old_side == side and old_level == level):
            delta = book.levels[old_side * width + old_level]["size"] - old_size
            _change(plane, held, since, old_side, row_of[old_level if old_side == BID else width - 1 - old_level], delta, at)
    return n


@kernel
def refill(book, width, plane, held, since, x, row_of):
    """Settle all and take the sizes from the book as it is now."""
    settle_all(plane, held, since, x)
    held[:] = 0.0
    for side in range(2):
        for index in range(width):
            size = book.levels[side * width + index]["size"]
            if size != 0:
                row = row_of[index if side == BID else width - 1 - index]
                if row >= 0:
                    held[side, row] += size


@inner
def _change_at(plane, held, since, side, price, delta, x, low, step):
    row = (price - low) // step if price != UNDEF_PRICE else -1
    _change(plane, held, since, side, row if row < held.shape[1] else -1, delta, x)


@kernel
def accumulate_rows(px, sz, x, before_px, before_sz, plane, held, since, low, step):
    """The same from mbp rows.

    px, sz int64[levels * 2, n] (level * 2 + side), x float64[n]; before_px, before_sz int64[levels * 2] the row before, changed in place.
    """
    levels = px.shape[0]
    for r in range(px.shape[1]):
        for k in range(levels):
            if before_px[k] == px[k, r] and before_sz[k] == sz[k, r]:
                continue
            _change_at(plane, held, since, k & 1, before_px[k], -before_sz[k], x[r], low, step)
            _change_at(plane, held, since, k & 1, px[k, r], sz[k, r], x[r], low, step)
            before_px[k] = px[k, r]
            before_sz[k] = sz[k, r]
