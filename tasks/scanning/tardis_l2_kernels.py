"""Rows of incremental_book_L2 to messages and level updates: the snapshot rules, and which message a bad row belongs to.

Belongs here: the compiled parser of this one layout. Rows are parsed in `tardis_row_kernels.py`, the rules are told in `tardis_l2.py`.
"""

from __future__ import annotations

from tasks.depth_batches import DELTA, NO_TIME, SNAPSHOT
from tasks.kernels import inner, kernel
from tasks.scanning.tardis_row_kernels import BAD_BEFORE, BAD_TIME, BADS, CAPTURED, FIRST_OWN, FULL, GOOD, ROWS, STATE_SIZE, next_row

# Targets of the columns beside CAPTURED.
MADE, IS_SNAPSHOT_AT, SIDE_AT, PRICE_AT, AMOUNT_AT, TARGETS = range(FIRST_OWN, FIRST_OWN + 6)

# State beside the rows': whole messages and updates in the arrays; whether message number MESSAGES is open; first bad row that has no place yet;
# bad rows before which a row of the open message stood; local time and flag of the last good row; whether a snapshot was met; rows skipped
# before it; rows of a message that a snapshot within it discards.
MESSAGES, UPDATES, OPEN, OPEN_BAD, SURE_BAD, LAST_TIME, LAST_FLAG, STARTED, SKIPPED, DISCARDED, L2_STATE_SIZE = range(STATE_SIZE, STATE_SIZE + 11)


@kernel
def close_message(state, kind, ts, bad, next_time, next_resets):
    """Close the open message, if there is one, and give the bad rows around it their places.

    A bad row spoils the message whose rows it stands among, or whose local time it has; where its time cannot be read, the next one if that is a
    snapshot, else the open one. Before a delta it makes the book suspect from that delta on; a snapshot would wipe that out, so that the bad row
    is put after it. Bad rows of the message to come (next_time int64 ns, next_resets) stay without a place.
    """
    n, k = state[MESSAGES], state[OPEN_BAD]
    if state[OPEN]:
        after = n + 1 if kind[n] == SNAPSHOT else n
        while k < state[BADS] and (k < state[SURE_BAD] or bad[k, BAD_TIME] == ts[n] or (bad[k, BAD_TIME] == NO_TIME and not next_resets)):
            bad[k, BAD_BEFORE] = after
            k += 1
        state[MESSAGES], state[OPEN] = n + 1, 0
    while k < state[BADS] and bad[k, BAD_TIME] != next_time and not (bad[k, BAD_TIME] == NO_TIME and next_resets):
        bad[k, BAD_BEFORE] = state[MESSAGES]
        k += 1
    state[OPEN_BAD] = k


@inner
def _open_message(state, kind, ts, line, offset, first, time, resets, at):
    n = state[MESSAGES]
    kind[n], ts[n], line[n], offset[n], first[n] = SNAPSHOT if resets else DELTA, time, state[ROWS] - 1, at, state[UPDATES]
    state[OPEN] = 1


@kernel
def parse_l2(buf, p, end, base, plan, row, state, messages, updates, bad):
    """Parse the rows of buf[p:end] until it ends or an output is full.

    base: offset of buf[0] in the stream; plan, row, bad: as in `next_row`; state int64[L2_STATE_SIZE], changed; messages: kind uint8[k], ts, cts,
    line, offset int64[k], first int64[k + 1], written; updates: side uint8[u], price, size int64[u], price_digits, size_digits uint8[u], written.
    The message at position state[MESSAGES] may be open: it is whole when a row of another local time follows, or the file ends.
    Returns (END, FULL or MIXED, position of the first row not taken). Twin: tests/oracles/naive_tardis.py
    """
    kind, ts, cts, line, offset, first = messages
    side, price, size, price_digits, size_digits = updates
    values, digits, _ = row
    while True:
        if state[MESSAGES] + 1 >= len(kind) or state[UPDATES] == len(side):
            return FULL, p
        code, start, p = next_row(buf, p, end, plan, row, state, bad, -1)
        if code != GOOD:
            return code, p
        time, flag = values[CAPTURED], values[IS_SNAPSHOT_AT]
        if not state[STARTED] and not flag:
            state[SKIPPED] += 1
            continue
        resets = flag and (not state[LAST_FLAG] or time != state[LAST_TIME])
        state[STARTED], state[LAST_FLAG], state[LAST_TIME] = 1, flag, time
        n = state[MESSAGES]
        if not state[OPEN] or time != ts[n]:
            close_message(state, kind, ts, bad, time, resets)
            n = state[MESSAGES]
            _open_message(state, kind, ts, line, offset, first, time, resets, base + start)
        elif resets:
            kind[n] = SNAPSHOT
            state[DISCARDED] += state[UPDATES] - first[n]
            state[UPDATES] = first[n]
        state[SURE_BAD] = state[BADS]
        m = state[UPDATES]
        side[m], price[m], size[m] = values[SIDE_AT], values[PRICE_AT], values[AMOUNT_AT]
        price_digits[m], size_digits[m] = digits[PRICE_AT], digits[AMOUNT_AT]
        cts[n], first[n + 1], state[UPDATES] = values[MADE], m + 1, m + 1
