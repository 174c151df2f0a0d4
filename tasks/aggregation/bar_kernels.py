"""Bar kernels: trades in, bars out, carried over batch borders. Arrays and integers only; what a bar means is in bars.py.

Exactness: a sum of price times size needs up to 126 bits. It is kept in three int64 limbs of base 2^31 (value = l[0] * 2^62 + l[1] * 2^31 +
l[2], the lower two in [0, 2^31)), so that no product and no sum leaves int64: correct for every int64 price and uint32 size as long as the
volume of one bar stays below 2^62. Floats, or 64-bit sums, would be wrong from some 9 * 10^9 units of notional on.
"""

import numpy as np

from tasks.kernels import njit

BAR = np.dtype(
    [
        ("start", "i8"),  # time bars: start of the bucket; others: time of the first trade
        ("last", "i8"),  # time of the last trade
        ("open", "i8"), ("high", "i8"), ("low", "i8"), ("close", "i8"),
        ("volume", "i8"), ("trades", "i8"), ("buys", "i8"), ("sells", "i8"),
        ("valid", "i8"),  # trades with severity 0
        ("worst", "i8"),  # greatest severity
        ("reason", "i8"), ("since", "i8"),  # of the first trade with it
        ("notional", "i8", (3,)),  # limbs of the sum of price * size
    ]
)  # fmt: skip

TICK, VOLUME, DOLLAR = 0, 1, 2
ASK, BID = 0, 1  # positions of the aggressor in tasks.schemas.SIDES

_BITS = 31
_MASK = (1 << 31) - 1


@njit(nogil=True, cache=True)
def add_product(limbs, price, size):
    """Add price * size to int64[3] `limbs`, exactly; price any int64, |size| < 2^32."""
    low = (price & _MASK) * size
    middle = ((price >> _BITS) & _MASK) * size
    total = limbs[2] + (low & _MASK)
    limbs[2] = total & _MASK
    total = limbs[1] + (low >> _BITS) + (middle & _MASK) + (total >> _BITS)
    limbs[1] = total & _MASK
    limbs[0] += (middle >> _BITS) + (price >> (2 * _BITS)) * size + (total >> _BITS)


@njit(nogil=True, cache=True)
def nearest_mean(limbs, volume):
    """limbs / volume rounded to nearest, halves up; 0 < volume < 2^62, and the quotient fits in int64 (a mean of int64 prices does)."""
    if limbs[0] == 0:
        # Nearly every bar: the sum fits in 62 bits, and one division replaces 62 steps.
        total = (limbs[1] << _BITS) + limbs[2]
        quotient = total // volume
        return quotient + 1 if 2 * (total - quotient * volume) >= volume else quotient
    quotient = limbs[0] // volume
    rest = limbs[0] - quotient * volume
    for limb in (limbs[1], limbs[2]):
        for bit in range(_BITS - 1, -1, -1):
            rest = 2 * rest + ((limb >> bit) & 1)
            quotient *= 2
            if rest >= volume:
                rest -= volume
                quotient += 1
    return quotient + 1 if 2 * rest >= volume else quotient


@njit(nogil=True, cache=True)
def _begin(bar, start, price):
    bar["start"] = start
    bar["open"] = price
    bar["high"] = price
    bar["low"] = price
    bar["volume"] = 0
    bar["trades"] = 0
    bar["buys"] = 0
    bar["sells"] = 0
    bar["valid"] = 0
    bar["worst"] = 0
    bar["notional"][:] = 0


@njit(nogil=True, cache=True)
def _count(bar, ts, price, size, side, severity, reason, since):
    if bar["trades"] == 0 or severity > bar["worst"]:
        bar["worst"] = severity
        bar["reason"] = reason
        bar["since"] = since
    bar["last"] = ts
    bar["high"] = max(bar["high"], price)
    bar["low"] = min(bar["low"], price)
    bar["close"] = price
    bar["volume"] += size
    bar["trades"] += 1
    if side == BID:
        bar["buys"] += size
    elif side == ASK:
        bar["sells"] += size
    if severity == 0:
        bar["valid"] += 1
    add_product(bar["notional"], price, size)


@njit(nogil=True, cache=True)
def time_runs(ts, price, size, side, severity, reason, since, interval, bars):
    """One bar per run of consecutive trades in the same bucket; the same bucket may come again after a late trade.

    ts, price, size, since int64[n] (ns; 1e-9; >= 0; ns); side, severity, reason int8[n]; interval ns; bars BAR[>= n] written from 0.
    Returns the number of runs. Twin: tests/oracles/naive_bars.py
    """
    runs = 0
    start = np.int64(0)
    for i in range(len(ts)):
        # The division is the dearest step; it is paid only on leaving a bucket.
        if runs == 0 or ts[i] < start or ts[i] - start >= interval:
            start = ts[i] - ts[i] % interval
            _begin(bars[runs], start, price[i])
            runs += 1
        _count(bars[runs - 1], ts[i], price[i], size[i], side[i], severity[i], reason[i], since[i])
    return runs


@njit(nogil=True, cache=True)
def merge_equal(bars):
    """Join neighbours of equal start, earlier in the file first, in place: BAR[n], ordered by start. Returns how many are left."""
    kept = 0
    for i in range(len(bars)):
        row = bars[i]
        if kept == 0 or bars[kept - 1]["start"] != row["start"]:
            if kept != i:
                bars[kept] = bars[i]
            kept += 1
            continue
        bar = bars[kept - 1]
        bar["last"] = row["last"]
        bar["high"] = max(bar["high"], row["high"])
        bar["low"] = min(bar["low"], row["low"])
        bar["close"] = row["close"]
        bar["volume"] += row["volume"]
        bar["trades"] += row["trades"]
        bar["buys"] += row["buys"]
        bar["sells"] += row["sells"]
        bar["valid"] += row["valid"]
        if row["worst"] > bar["worst"]:
            bar["worst"] = row["worst"]
            bar["reason"] = row["reason"]
            bar["since"] = row["since"]
        mine, other = bar["notional"], row["notional"]
        low = mine[2] + other[2]
        middle = mine[1] + other[1] + (low >> _BITS)
        mine[2] = low & _MASK
        mine[1] = middle & _MASK
        mine[0] += other[0] + (middle >> _BITS)
    return kept


@njit(nogil=True, cache=True)
def activity_bars(kind, limit, spent, ts, price, size, side, severity, reason, since, bars):
    """Tick, volume and dollar bars: a bar closes with the trade at which what was spent reaches the limit; no trade is split.

    kind TICK, VOLUME or DOLLAR; limit int64[3] limbs; spent int64[3] limbs, carried between calls; ts ... since as in `time_runs`;
    bars BAR[>= n + 1]: bars[0] is the open bar on entry (trades 0: none).
    Returns k: bars[:k] are closed, bars[k] is the open one (trades 0: none). Twin: tests/oracles/naive_bars.py
    """
    k = 0
    for i in range(len(ts)):
        if bars[k]["trades"] == 0:
            _begin(bars[k], ts[i], price[i])
        _count(bars[k], ts[i], price[i], size[i], side[i], severity[i], reason[i], since[i])
        if kind == TICK:
            add_product(spent, np.int64(1), np.int64(1))
        elif kind == VOLUME:
            add_product(spent, np.int64(1), size[i])
        elif price[i] < 0:
            add_product(spent, price[i], -size[i])
        else:
            add_product(spent, price[i], size[i])
        if spent[0] != limit[0]:
            reached = spent[0] > limit[0]
        elif spent[1] != limit[1]:
            reached = spent[1] > limit[1]
        else:
            reached = spent[2] >= limit[2]
        if reached:
            spent[:] = 0
            k += 1
            bars[k]["trades"] = 0
    return k


@njit(nogil=True, cache=True)
def vwaps(bars, undefined):
    """int64[n] mean price by size of BAR[n], rounded to nearest, halves up; `undefined` where nothing was traded (all sizes 0)."""
    out = np.empty(len(bars), np.int64)
    for i in range(len(bars)):
        volume = bars[i]["volume"]
        out[i] = nearest_mean(bars[i]["notional"], volume) if volume > 0 else undefined
    return out
