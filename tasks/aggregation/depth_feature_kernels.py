"""Depth-feature kernel: the size near the mid and the size of all levels of each grid row. What a feature means is in depth_features.py."""

from __future__ import annotations

from tasks.kernels import kernel
from tasks.schemas import UNDEF_PRICE


@kernel
def sum_levels(px, sz, mid2, sided, reach, near, whole):
    """Sum the sizes of each side, over all levels and within each band of the mid.

    px, sz int64[2 * levels, n] (bid and ask by turns, best first; price units, 2^63-1 empty; size units); mid2 int64[n] bid + ask at the touch;
    sided bool[n]: both sides stand, other rows are left alone; reach int64[bands, n] twice the distance that a band allows, price units;
    near float64[2 * bands, n] (bid and ask by turns) and whole float64[2, n] are added to. Twin: tests/oracles/naive_mid_bars.py
    """
    # Levels outside, rows inside: a row's levels lie n cells apart. The order of the sums is that of the levels, whatever n is.
    for k in range(px.shape[0]):
        side = k & 1
        for r in range(px.shape[1]):
            if not sided[r] or px[k, r] == UNDEF_PRICE:
                continue
            size = float(sz[k, r])
            whole[side, r] += size
            distance = abs(2 * px[k, r] - mid2[r])
            for band in range(reach.shape[0]):
                if distance <= reach[band, r]:
                    near[2 * band + side, r] += size
