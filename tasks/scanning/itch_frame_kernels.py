"""ITCH frames: where the messages of a piece of a file stand. Bytes in, positions and counts out; what messages say is not looked at.

Two passes, this and `itch_kernels.py`, instead of one: most types make no event, and what is left fits arrays of known size.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import kernel
from tasks.scanning.itch_field_kernels import big_16
from tasks.scanning.itch_messages import BOOK_TYPES, HEADER_BYTES, LENGTHS, MAX_BYTES

LOST = 8  # frames in a row that cannot be messages, with which the framing counts as lost

# Status of a frame: a message of a known type and its length, one of another length, a type that is not known.
OK, LENGTH, TYPE = range(3)

# Places of `state` int64[STATE_SIZE], kept between calls: messages met, frames in a row that cannot be messages and the file offset of the first
# of them, orders in the table, messages of orders that are not there, symbol codes given, and those of them given in the last call
S_NUMBER, S_RUN, S_RUN_START, S_LIVE, S_UNKNOWN, S_CODES, S_NAMED = range(7)
STATE_SIZE = 7

# Places of a row: position of the length in the piece, 1-based number of the message in the file, status
R_AT, R_NUMBER, R_STATUS = range(3)

_LENGTH_OF, _IS_BOOK = np.zeros(256, np.int64), np.zeros(256, np.bool_)
for _type, _length in LENGTHS.items():
    _LENGTH_OF[ord(_type)] = _length
    _IS_BOOK[ord(_type)] = _type in BOOK_TYPES


@kernel
def find_messages(data, at, base, rows, counts, state):
    """Follow the lengths in `data` (uint8[n], whose first byte stands at `base` in the file) from `at`.

    rows int64[m, 3] written: messages that become events and frames that are none; counts int64[256] of messages by type and `state` are kept.
    Stops when `rows` is full, at a frame that is not whole, at a length of 0 in the last two bytes, which may be the end mark, and before the
    LOST-th frame in a row that cannot be a message. Returns (rows written, first byte not taken). Twin: tests/oracles/naive_itch.py
    """
    m = 0
    while m < rows.shape[0] and at + 2 <= data.shape[0]:
        length = big_16(data, at)
        end = at + 2 + length
        if end > data.shape[0] or (length == 0 and end == data.shape[0]):
            break
        kind = data[at + 2] if length > 0 else np.uint8(0)
        status = OK
        if length != 0 and _LENGTH_OF[kind] == length:
            counts[kind] += 1
            state[S_RUN] = 0
        else:
            status = LENGTH if length == 0 or _LENGTH_OF[kind] != 0 else TYPE
            letter = (kind >= 65 and kind <= 90) or (kind >= 97 and kind <= 122)
            if status == LENGTH or not letter or length < HEADER_BYTES or length > MAX_BYTES:
                if state[S_RUN] == 0:
                    state[S_RUN_START] = base + at
                state[S_RUN] += 1
                if state[S_RUN] == LOST:
                    break
        state[S_NUMBER] += 1
        if status != OK or _IS_BOOK[kind]:
            rows[m, R_AT] = at
            rows[m, R_NUMBER] = state[S_NUMBER]
            rows[m, R_STATUS] = status
            m += 1
        at = end
    return m, at
