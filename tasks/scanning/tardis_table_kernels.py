"""Rows of Tardis's book snapshots, trades and quotes to columns: each row stands for itself.

Belongs here: the compiled parsers of these layouts. Rows are parsed in `tardis_row_kernels.py`. Parameters that all have in common are those of
`tardis_row_kernels.next_row`; each returns (END, FULL or MIXED, position of the first row not taken). Twin: tests/oracles/naive_tardis.py
"""

from __future__ import annotations

from tasks.depth_batches import ASK, BID, SNAPSHOT
from tasks.kernels import inner, kernel
from tasks.scanning.csv_field_kernels import ORDERBOOK
from tasks.scanning.tardis_field_kernels import EMPTY
from tasks.scanning.tardis_row_kernels import BADS, CAPTURED, FIRST_OWN, FULL, GOOD, ROWS, STATE_SIZE, next_row, note_bad

MADE = FIRST_OWN
# Book snapshots: price and amount of bid and ask, level by level, from here on.
LEVELS_AT, PER_LEVEL = FIRST_OWN + 1, 4
# Trades and quotes.
SIDE_AT, PRICE_AT, AMOUNT_AT, TRADE_TARGETS = range(FIRST_OWN + 1, FIRST_OWN + 5)
BID_PRICE_AT, BID_AMOUNT_AT, ASK_PRICE_AT, ASK_AMOUNT_AT, QUOTE_TARGETS = range(FIRST_OWN + 1, FIRST_OWN + 6)
# State beside the rows': rows and, of book snapshots, levels in the arrays; of trades, bytes of ids.
TAKEN, FILLED, TABLE_STATE_SIZE = range(STATE_SIZE, STATE_SIZE + 3)


@inner
def _half(values, first, count):
    """Target of the first price from `first` on that stands without an amount, or whose amount stands without a price; else -1."""
    for at in range(first, first + 2 * count, 2):
        price, amount = values[at], values[at + 1]
        if (price == EMPTY and amount != EMPTY and amount > 0) or (price != EMPTY and amount == EMPTY):
            return at
    return -1


@kernel
def _reject(columns, target, start, stop, state, bad, time):
    """Note the good row at start as a bad one, for what stands at `target`."""
    found = -1
    for column in range(len(columns)):
        found = column if columns[column, 1] == target else found
    state[ROWS] -= 1
    note_bad(bad, state, state[TAKEN], start, stop - start - 1, ORDERBOOK, found, time)
    state[ROWS] += 1


@inner
def _next_whole(buf, p, end, plan, row, state, bad, sides):
    """`next_row`, but a row with half a level is a bad one. sides: target of the first price and how many prices follow, each with its amount."""
    while True:
        code, start, p = next_row(buf, p, end, plan, row, state, bad, state[TAKEN])
        half = _half(row[0], sides[0], sides[1]) if code == GOOD else -1
        if half < 0:
            return code, start, p
        if state[BADS] == len(bad):
            state[ROWS] -= 1
            return FULL, start, start
        _reject(plan[0], half, start, p, state, bad, row[0][CAPTURED])


@kernel
def parse_books(buf, p, end, base, plan, row, depth, state, messages, updates, bad):
    """Parse book snapshots of `depth` levels a side: each row a message that replaces the book, bids from the best on, then asks.

    base: offset of buf[0] in the stream; messages: kind uint8[k], ts, cts, line, offset int64[k], first int64[k + 1], written; updates: side
    uint8[u], price, size int64[u], price_digits, size_digits uint8[u], written, with room for 2 * depth updates a row. Levels that are empty or
    have the amount 0 are left out; half a level makes the row a bad one.
    """
    kind, ts, cts, line, offset, first = messages
    side, price, size, price_digits, size_digits = updates
    values, digits, _ = row
    first[0] = 0
    while True:
        n, m = state[TAKEN], state[FILLED]
        if n == len(kind):
            return FULL, p
        code, start, p = _next_whole(buf, p, end, plan, row, state, bad, (LEVELS_AT, 2 * depth))
        if code != GOOD:
            return code, p
        kind[n], ts[n], cts[n], line[n], offset[n] = SNAPSHOT, values[CAPTURED], values[MADE], state[ROWS] - 1, base + start
        for code in (BID, ASK):
            for level in range(depth):
                at = LEVELS_AT + PER_LEVEL * level + (0 if code == BID else 2)
                if values[at] != EMPTY and values[at + 1] != EMPTY and values[at + 1] > 0:
                    side[m], price[m], size[m], price_digits[m], size_digits[m] = code, values[at], values[at + 1], digits[at], digits[at + 1]
                    m += 1
        state[TAKEN], state[FILLED], first[n + 1] = n + 1, m, m


@kernel
def parse_trades(buf, p, end, base, plan, row, state, out, ids, bad):
    """Parse trades. out: ts, cts int64[n], side uint8[n], price, amount int64[n], price_digits, amount_digits uint8[n], line, offset int64[n],
    written; ids: (text uint8[t], first int64[n + 1]), written, with room for all of buf."""
    ts, cts, side, price, amount, price_digits, amount_digits, line, offset = out
    values, digits, spans = row
    text, first = ids
    first[0] = 0
    while True:
        n, filled = state[TAKEN], state[FILLED]
        if n == len(ts):
            return FULL, p
        spans[0] = spans[1] = 0
        code, start, p = next_row(buf, p, end, plan, row, state, bad, n)
        if code != GOOD:
            return code, p
        ts[n], cts[n], side[n], price[n], amount[n] = values[CAPTURED], values[MADE], values[SIDE_AT], values[PRICE_AT], values[AMOUNT_AT]
        price_digits[n], amount_digits[n], line[n], offset[n] = digits[PRICE_AT], digits[AMOUNT_AT], state[ROWS] - 1, base + start
        for k in range(spans[0], spans[1]):
            text[filled] = buf[k]
            filled += 1
        state[TAKEN], state[FILLED], first[n + 1] = n + 1, filled, filled


@kernel
def parse_quotes(buf, p, end, base, plan, row, state, out, bad):
    """Parse quotes. out: ts, cts, line, offset int64[n], then price, amount int64[4, n] and digits uint8[4, n] in the order bid price, bid amount,
    ask price, ask amount, written; price EMPTY and amount 0 where a side is empty. Half a side makes the row a bad one."""
    ts, cts, line, offset, numbers, decimals = out
    values, digits, _ = row
    while True:
        n = state[TAKEN]
        if n == len(ts):
            return FULL, p
        code, start, p = _next_whole(buf, p, end, plan, row, state, bad, (BID_PRICE_AT, 2))
        if code != GOOD:
            return code, p
        ts[n], cts[n], line[n], offset[n] = values[CAPTURED], values[MADE], state[ROWS] - 1, base + start
        for k in range(4):
            at = BID_PRICE_AT + k
            there = k % 2 == 0 or (values[at] != EMPTY and values[at - 1] != EMPTY)
            numbers[k, n], decimals[k, n] = values[at] if there else 0, digits[at] if there else 0
        state[TAKEN] = n + 1
