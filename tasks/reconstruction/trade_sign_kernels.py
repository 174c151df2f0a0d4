"""Who was the aggressor of each trade: the feed's word, else the quote rule, else the tick rule. Arrays in, arrays out; no book is kept here."""

import numpy as np

from tasks.kernels import njit

SOLD, BOUGHT, NOT_KNOWN = 65, 66, 78  # ASCII A, B, N
NONE, FEED, QUOTE, TICK = 0, 1, 2, 3  # positions in tasks.schemas.SIDE_METHODS

_UNDEF = np.int64(2**63 - 1)


def new_carry() -> np.ndarray:
    """int64[2] state before the first trade: last price (UNDEF_PRICE: none) and direction of its last change (+1, -1, 0: none)."""
    return np.array([_UNDEF, 0], dtype=np.int64)


@njit(nogil=True, cache=True)
def sign_trades(side, price, bid, ask, carry):
    """Sign trades as Lee and Ready (1991) do, where the feed does not.

    side uint8[n] ASCII A (sold), B (bought), else not known; price, bid, ask int64[n] 1e-9: the trade and the touch before its event, 2^63-1 where
    not set; carry int64[2] from `new_carry`, changed in place, so that a stream can be cut anywhere.
    - The feed's side stands. - Quote rule, where both sides of the touch are set: above the mid bought, below it sold, compared exactly.
    - Tick rule, at the mid or without a touch: above the last different price bought, below it sold. - Else N, method none.
    Every trade with a price moves the tick rule's memory, however it was signed.
    Returns (side uint8[n], method int8[n] position in SIDE_METHODS). Twin: tests/oracles/naive_features.py
    """
    out = np.empty(len(side), np.uint8)
    method = np.empty(len(side), np.int8)
    for i in range(len(side)):
        if price[i] != _UNDEF:
            if carry[0] != _UNDEF and price[i] != carry[0]:
                carry[1] = 1 if price[i] > carry[0] else -1
            carry[0] = price[i]
        if side[i] == SOLD or side[i] == BOUGHT:
            out[i] = side[i]
            method[i] = FEED
            continue
        direction = np.int64(0)
        method[i] = NONE
        if price[i] != _UNDEF:
            if bid[i] != _UNDEF and ask[i] != _UNDEF:
                # Floor of the mid without the sum, which could overflow; half a unit above it where the sum is odd.
                mid = (bid[i] >> 1) + (ask[i] >> 1) + (bid[i] & ask[i] & 1)
                if price[i] > mid:
                    direction = np.int64(1)
                elif price[i] < mid or ((bid[i] ^ ask[i]) & 1) == 1:
                    direction = np.int64(-1)
            if direction != 0:
                method[i] = QUOTE
            elif carry[1] != 0:
                direction = carry[1]
                method[i] = TICK
        out[i] = BOUGHT if direction > 0 else SOLD if direction < 0 else NOT_KNOWN
    return out, method
