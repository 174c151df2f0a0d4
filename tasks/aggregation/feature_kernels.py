"""Feature kernels: two streams, touch rows and trades, each folded onto the grid times with state carried over batch borders.

Both merge in the order of time: an event at time t counts in the row of grid time T when T - interval < t <= T, where t is the running
maximum of the stream's clock, so that a row that comes late in the file counts when it could first be seen and never earlier.
"""

import math

import numpy as np

from tasks.kernels import njit

QUOTES = np.dtype(
    [
        ("clock", "i8"),  # running maximum
        ("known", "i8"),  # 1 when the previous row's touch is known
        ("bid", "i8"), ("ask", "i8"), ("bid_size", "i8"), ("ask_size", "i8"),  # the previous row
        ("mid2", "i8"),  # bid + ask of the last row with a positive mid, 0 when none
        ("flow", "i8"), ("variance", "f8"),  # sums of the grid row in work
        ("used", "i8"),  # rows at or before the last grid time
    ]
)  # fmt: skip

# The same for sizes of many decimals, of which a few sum up to more than int64 holds.
WIDE_QUOTES = np.dtype([(name, "f8" if name in ("bid_size", "ask_size", "flow") else QUOTES[name]) for name in QUOTES.names or ()])

PRINTS = np.dtype(
    [
        ("clock", "i8"),
        ("side", "i8"), ("method", "i8"),  # codes of the last trade
        ("trades", "i8"), ("volume", "i8"), ("signed", "i8"),  # sums of the grid row in work
        ("used", "i8"),
    ]
)  # fmt: skip

_UNDEF = np.int64(2**63 - 1)
_NO_BID = np.int64(-(2**63))


@njit(nogil=True, cache=True)
def order_flow(bid, ask, bid_size, ask_size, bid0, ask0, bid_size0, ask_size0):
    """e_n of Cont, Kukanov and Stoikov (2014), eq. 2, from a touch and the one before (suffix 0); sizes 0 and prices -inf, +inf where empty."""
    flow = np.int64(0)
    if bid >= bid0:
        flow += bid_size
    if bid <= bid0:
        flow -= bid_size0
    if ask <= ask0:
        flow -= ask_size
    if ask >= ask0:
        flow += ask_size0
    return flow


@njit(nogil=True, cache=True)
def _apply_quote(state, bid, ask, bid_size, ask_size, counts):
    """Take one touch row into the state; its flow and return are added where `counts`."""
    two_sided = bid != _UNDEF and ask != _UNDEF
    if bid == _UNDEF:
        bid, bid_size = _NO_BID, np.int64(0)
    if ask == _UNDEF:
        ask_size = np.int64(0)
    if counts and state["known"] == 1:
        state["flow"] += order_flow(bid, ask, bid_size, ask_size, state["bid"], state["ask"], state["bid_size"], state["ask_size"])
    if two_sided:
        mid2 = bid + ask
        if mid2 > 0:
            if counts and state["mid2"] > 0:
                # log1p of the exact difference: the log of a quotient near 1 would lose five digits.
                change = math.log1p((mid2 - state["mid2"]) / state["mid2"])
                state["variance"] += change * change
            state["mid2"] = mid2
    state["known"] = 1
    state["bid"] = bid
    state["ask"] = ask
    state["bid_size"] = bid_size
    state["ask_size"] = ask_size


@njit(nogil=True, cache=True)
def fold_quotes(ts, bid, ask, bid_size, ask_size, no_book, fresh, i, ended, grid, g, interval, states, flow, volatility):
    """Fold touch rows from i on into grid rows from g on, until either runs out.

    ts, bid, ask, bid_size, ask_size int64[n] (ns; 1e-9, 2^63-1 empty; size); no_book bool[n]: the touch is not known; fresh bool[n]: it does
    not follow from the row before; ended: no batch follows; grid int64[m] ns ascending by at least interval; states QUOTES[1], carried;
    flow int64[m] and volatility float64[m] written. Where sums of sizes may leave int64, sizes and flow are float64 in all three (WIDE_QUOTES).
    Returns (i, g). Twin: tests/oracles/naive_features.py
    """
    state = states[0]
    while g < len(grid):
        while i < len(ts) and max(state["clock"], ts[i]) <= grid[g]:
            state["clock"] = max(state["clock"], ts[i])
            if no_book[i] or fresh[i]:
                state["known"] = 0
                state["mid2"] = 0
            if not no_book[i]:
                _apply_quote(state, bid[i], ask[i], bid_size[i], ask_size[i], state["clock"] > grid[g] - interval)
            state["used"] += 1
            i += 1
        if i == len(ts) and not ended:
            break
        flow[g] = state["flow"]
        volatility[g] = math.sqrt(state["variance"])
        state["flow"] = 0
        state["variance"] = 0.0
        g += 1
    return i, g


@njit(nogil=True, cache=True)
def fold_trades(ts, price, size, side, method, i, ended, grid, g, interval, states, sums, last):
    """Fold trades from i on into grid rows from g on, until either runs out.

    ts, price, size int64[n] (a price of 2^63-1 is none: the trade only moves the clock); side int8[n] (0 sold, 1 bought, 2 not known),
    method int8[n]; ended, grid, interval as in `fold_quotes`;
    states PRINTS[1], carried; sums int64[m, 3] written: trades, volume, signed volume; last int8[m, 2] written: side and method.
    Returns (i, g). Twin: tests/oracles/naive_features.py
    """
    state = states[0]
    while g < len(grid):
        while i < len(ts) and max(state["clock"], ts[i]) <= grid[g]:
            state["clock"] = max(state["clock"], ts[i])
            if price[i] != _UNDEF:
                if state["clock"] > grid[g] - interval:
                    state["trades"] += 1
                    state["volume"] += size[i]
                    if side[i] == 1:
                        state["signed"] += size[i]
                    elif side[i] == 0:
                        state["signed"] -= size[i]
                state["side"] = side[i]
                state["method"] = method[i]
            state["used"] += 1
            i += 1
        if i == len(ts) and not ended:
            break
        sums[g, 0] = state["trades"]
        sums[g, 1] = state["volume"]
        sums[g, 2] = state["signed"]
        last[g, 0] = state["side"]
        last[g, 1] = state["method"]
        state["trades"] = 0
        state["volume"] = 0
        state["signed"] = 0
        g += 1
    return i, g
