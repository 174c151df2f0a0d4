"""Row rules of market-by-order events, one pass over the columns. What happens to a bad row is decided in decode.py.

`REASONS` is the vocabulary of the decode stage's quarantine for rows that could be read but cannot be true; the rules of the book itself
(unknown ids, over-cancels) need the book and belong to reconstruction. Times out of order are no fault of a row: they are counted.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import njit
from tasks.schemas import ACTIONS, F_TOB, SIDES, UNDEF_PRICE, char_index

# name -> what is wrong with the row; the code of a reason is its position here, 0 is a good row.
REASON_TEXT = {
    "": "nothing",
    "action": f"action is not one of {', '.join(ACTIONS)}",
    "side": f"side is not one of {', '.join(SIDES)}",
    "time_range": "ts_event or ts_recv is not set or lies before 1970 or after 2262",
    "price_undefined": "an add, modify, trade or fill without a price, and not a top-of-book record",
    "side_none": "an add without a side, and not a top-of-book record",
    "size_zero": "an add (not a top-of-book record) or a trade of size 0",
    "size_range": "size above 2^31-1",
}
REASONS = tuple(REASON_TEXT)
GOOD, BAD_ACTION, BAD_SIDE, BAD_TIME, BAD_PRICE, BAD_NO_SIDE, BAD_ZERO, BAD_SIZE = range(8)

_IS_ACTION, _IS_SIDE = char_index(ACTIONS), char_index(SIDES)
_ADD, _CANCEL, _NONE, _CLEAR, _TRADE, _NO_SIDE = ord("A"), ord("C"), ord("N"), ord("R"), ord("T"), ord("N")
# An order is cancelled by its id: a feed need not repeat its price.
_UNPRICED = (_CANCEL, _CLEAR, _NONE)
_MAX_SIZE = 2**31 - 1


@njit(nogil=True, cache=True)
def check_rows(
    ts_event: np.ndarray,
    ts_recv: np.ndarray,
    action: np.ndarray,
    side: np.ndarray,
    price: np.ndarray,
    size: np.ndarray,
    flags: np.ndarray,
    reason: np.ndarray,
) -> int:
    """Write for each row the first rule it breaks, in the order of REASONS; returns how many rows are bad.

    ts_event, ts_recv, price int64[n]; action, side, flags uint8[n]; size uint32[n]; reason uint8[n] written.
    A price <= 0 is allowed: spreads and some futures trade there. Twin: tests/oracles/naive_filter.py
    """
    bad = 0
    for i in range(len(action)):
        act, top = action[i], (flags[i] & F_TOB) != 0
        code = GOOD
        if _IS_ACTION[act] < 0:
            code = BAD_ACTION
        elif _IS_SIDE[side[i]] < 0:
            code = BAD_SIDE
        elif ts_event[i] < 0 or ts_recv[i] < 0:
            code = BAD_TIME
        elif price[i] == UNDEF_PRICE and not top and act not in _UNPRICED:
            code = BAD_PRICE
        elif act == _ADD and side[i] == _NO_SIDE and not top:
            code = BAD_NO_SIDE
        elif size[i] == 0 and ((act == _ADD and not top) or act == _TRADE):
            code = BAD_ZERO
        elif size[i] > _MAX_SIZE:
            code = BAD_SIZE
        reason[i] = code
        bad += code != GOOD
    return bad
