"""Row filter over event columns: arrays and integers in, one reason code per row out. What the codes mean to a user is in predicate.py."""

from __future__ import annotations

import numpy as np

from tasks.kernels import njit

_MIN, _MAX = np.int64(-(2**63)), np.int64(2**63 - 1)
KEPT, BY_SYMBOL, BY_PUBLISHER, BY_TIME, BY_HOURS = range(5)


@njit(nogil=True, cache=True)
def reject_rows(
    symbol_code: np.ndarray,
    publisher_id: np.ndarray,
    ts: np.ndarray,
    symbol_ok: np.ndarray,
    publisher_ok: np.ndarray,
    first_ns: int,
    last_ns: int,
    by_hours: bool,
    edges: np.ndarray,
    reason: np.ndarray,
) -> None:
    """Write for each row the first reason that rejects it, in the order symbol, publisher, time, hours; KEPT where none does.

    symbol_code int32[n] into symbol_ok uint8[s]; publisher_id uint16[n] into publisher_ok uint8[65536]; ts int64[n] ns;
    first_ns, last_ns: inclusive bounds of ts; edges int64[2w]: starts and ends of w ascending, disjoint half-open windows, read only when
    by_hours; reason uint8[n] written. Twin: tests/oracles/naive_filter.py
    """
    inside, low, high = False, np.int64(1), np.int64(0)  # [low, high): the span between two edges met last; starts empty
    for i in range(len(ts)):
        if symbol_ok[symbol_code[i]] == 0:
            reason[i] = BY_SYMBOL
        elif publisher_ok[publisher_id[i]] == 0:
            reason[i] = BY_PUBLISHER
        elif ts[i] < first_ns or ts[i] > last_ns:
            reason[i] = BY_TIME
        elif by_hours:
            if ts[i] < low or ts[i] >= high:
                above = np.searchsorted(edges, ts[i], side="right")
                inside = above % 2 == 1
                low = edges[above - 1] if above > 0 else _MIN
                high = edges[above] if above < len(edges) else _MAX
            reason[i] = KEPT if inside else BY_HOURS
        else:
            reason[i] = KEPT
