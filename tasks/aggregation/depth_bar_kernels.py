"""Mid-bar kernel: the touch as a function of time, cut at bars, windows and silences. What a bar means is in depth_bars.py.

Means are kept as sums of differences from the first value of the bar: a value that does not change is then met exactly, however long it stands.
"""

from __future__ import annotations

import numpy as np

from tasks.kernels import inner, kernel
from tasks.schemas import REASONS, SEVERITY, UNDEF_PRICE

MID_BAR = np.dtype(
    [
        ("start", "i8"), ("end", "i8"),  # ns
        ("total", "i8"), ("valid", "i8"), ("sided", "i8"),  # ns of it inside the windows; with a valid book; with both sides
        ("open", "i8"), ("high", "i8"), ("low", "i8"), ("close", "i8"),  # bid + ask
        ("spread", "i8"), ("bid_size", "i8"), ("ask_size", "i8"),  # the first ones with both sides
        ("mid_sum", "f8"), ("spread_sum", "f8"), ("bid_sum", "f8"), ("ask_sum", "f8"),  # (value - first value) * ns
        ("changes", "i8"),
        ("worst", "i8"), ("reason", "i8"), ("since", "i8"),
    ]
)  # fmt: skip

MID_STATE = np.dtype(
    [
        ("now", "i8"),  # everything before it is in the bars; the running maximum of the clock
        ("window", "i8"), ("silence", "i8"),  # the one at hand or next
        ("made", "i8"), ("open", "i8"),  # finished bars of the buffer; 1 when bars[made] is in the making
        ("bid", "i8"), ("ask", "i8"), ("bid_size", "i8"), ("ask_size", "i8"),
        ("severity", "i8"), ("reason", "i8"), ("since", "i8"),
        ("changes", "i8"),  # at exactly `now`: they belong to what begins there
    ]
)  # fmt: skip

R_SILENCE = REASONS.index("silence")
_STALE = SEVERITY.index("stale")
_UNDEF = np.int64(UNDEF_PRICE)


@inner
def _begin(bar, start, interval):
    bar["start"] = start
    bar["end"] = start + interval
    bar["total"] = 0
    bar["valid"] = 0
    bar["sided"] = 0
    bar["changes"] = 0
    bar["mid_sum"] = 0.0
    bar["spread_sum"] = 0.0
    bar["bid_sum"] = 0.0
    bar["ask_sum"] = 0.0


@inner
def _weigh(bar, state, ns):
    """Add the touch, which has both sides, for `ns`."""
    mid2 = state["bid"] + state["ask"]
    spread = state["ask"] - state["bid"]
    if bar["sided"] == 0:
        bar["open"] = mid2
        bar["high"] = mid2
        bar["low"] = mid2
        bar["spread"] = spread
        bar["bid_size"] = state["bid_size"]
        bar["ask_size"] = state["ask_size"]
    bar["high"] = max(bar["high"], mid2)
    bar["low"] = min(bar["low"], mid2)
    bar["close"] = mid2
    bar["sided"] += ns
    weight = float(ns)
    bar["mid_sum"] += float(mid2 - bar["open"]) * weight
    bar["spread_sum"] += float(spread - bar["spread"]) * weight
    bar["bid_sum"] += float(state["bid_size"] - bar["bid_size"]) * weight
    bar["ask_sum"] += float(state["ask_size"] - bar["ask_size"]) * weight


@inner
def _hold(bar, state, ns, silent_since):
    """Let the state stand for `ns` > 0. silent_since: start of the silence it lies in, -1 for none."""
    severity, reason, since = state["severity"], state["reason"], state["since"]
    if severity == 0 and silent_since >= 0:
        severity, reason, since = np.int64(_STALE), np.int64(R_SILENCE), silent_since
    if bar["total"] == 0 or severity > bar["worst"]:
        bar["worst"] = severity
        bar["reason"] = reason
        bar["since"] = since
    bar["total"] += ns
    if severity == 0:
        bar["valid"] += ns
    bar["changes"] += state["changes"]
    state["changes"] = 0
    if state["bid"] != _UNDEF and state["ask"] != _UNDEF:
        _weigh(bar, state, ns)


@inner
def _advance(state, until, windows, silent, interval, bars):
    """Let the state stand until `until`, which may have passed; False when a bar must begin and the buffer is full."""
    while state["now"] < until:
        now = state["now"]
        w = state["window"]
        if w == len(windows) or now < windows[w, 0]:
            state["now"] = until if w == len(windows) else min(windows[w, 0], until)
            state["changes"] = 0  # outside of all windows
            continue
        if now >= windows[w, 1]:
            state["window"] = w + 1
            continue
        if state["open"] == 1 and now >= bars[state["made"]]["end"]:
            state["made"] += 1
            state["open"] = 0
        if state["open"] == 0:
            if state["made"] == len(bars):
                return False
            _begin(bars[state["made"]], now - now % interval, interval)
            state["open"] = 1
        bar = bars[state["made"]]
        end = min(until, windows[w, 1], bar["end"])
        while state["silence"] < len(silent) and silent[state["silence"], 1] <= now:
            state["silence"] += 1
        since = np.int64(-1)
        if state["silence"] < len(silent):
            start = silent[state["silence"], 0]
            if start <= now:
                since = start
                end = min(end, silent[state["silence"], 1])
            else:
                end = min(end, start)
        _hold(bar, state, end - now, since)
        state["now"] = end
    return True


@kernel
def fold_touch(clock, bid, ask, bid_size, ask_size, severity, reason, since, changed, i, windows, silent, interval, states, bars):
    """Take touch rows from i on into bars, until they run out or the buffer is full.

    clock, bid, ask, bid_size, ask_size, since int64[n] (ns; price units, 2^63-1 empty; size units; ns); severity, reason int8[n]; changed bool[n];
    windows int64[w, 2], silent int64[s, 2] ns, half-open, ascending and disjoint; interval ns; states MID_STATE[1], carried; bars MID_BAR[m],
    the first `made` finished. Returns the next row: below n when the buffer is full. Twin: tests/oracles/naive_mid_bars.py
    """
    state = states[0]
    while i < len(clock):
        if not _advance(state, clock[i], windows, silent, interval, bars):
            break
        state["bid"] = bid[i]
        state["ask"] = ask[i]
        state["bid_size"] = bid_size[i]
        state["ask_size"] = ask_size[i]
        state["severity"] = severity[i]
        state["reason"] = reason[i]
        state["since"] = since[i]
        state["changes"] += changed[i]
        # A row is a message: the silence that was is over.
        while state["silence"] < len(silent) and silent[state["silence"], 0] <= state["now"]:
            state["silence"] += 1
        i += 1
    return i


@kernel
def end_touch(windows, silent, interval, states, bars):
    """Let the last touch stand until the last window ends. Returns whether it is done; False when the buffer is full."""
    state = states[0]
    if len(windows) and not _advance(state, windows[len(windows) - 1, 1], windows, silent, interval, bars):
        return False
    if state["open"] == 1:
        state["made"] += 1
        state["open"] = 0
    return True
