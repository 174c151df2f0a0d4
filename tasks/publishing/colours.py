"""Colours of everything that is drawn: ramps of resting size, trades, statuses, and the size at which a ramp ends. No drawing here.

The ramps are those that users of market-by-order heatmaps know (formats of the reference picture): bids from pale to dark blue, asks
from tan through red to dark red, on white.
"""

from __future__ import annotations

import numpy as np

from tasks.errors import UsageError

RGB = tuple[int, int, int]

BID_STOPS: tuple[RGB, ...] = ((172, 215, 255), (0, 0, 255), (0, 0, 190))
ASK_STOPS: tuple[RGB, ...] = ((205, 158, 118), (255, 75, 0), (157, 0, 0))

INK: RGB = (28, 32, 38)
MUTED: RGB = (104, 112, 122)
GRID_LINE: RGB = (233, 236, 240)
FRAME: RGB = (176, 182, 190)
WHITE: RGB = (255, 255, 255)

# Trades must stay apart from both ramps, also for eyes that confuse red and green: hence shapes as well (up, down, disc).
BUY: RGB = (0, 158, 88)
SELL: RGB = (196, 0, 176)
UNKNOWN_SIDE: RGB = (90, 90, 90)
BID_LINE: RGB = (0, 0, 120)
ASK_LINE: RGB = (110, 0, 0)

# Status of a book that is not valid: line colour of its hatch.
STATUS_COLOURS: dict[str, RGB] = {
    "suspect": (226, 140, 0),
    "stale": (120, 140, 170),
    "no_book": (120, 126, 134),
    "halted": (70, 60, 90),
}

# Of each status: rising lines, falling lines, and the tint between them.
HATCHES: dict[str, tuple[bool, bool, float]] = {
    "suspect": (True, False, 0.16),
    "stale": (False, True, 0.10),
    "no_book": (False, True, 0.14),
    "halted": (True, True, 0.14),
}

SCALES = ("linear", "sqrt", "log")
# A level that rests all day is one row of about forty, 2.5% of the filled pixels: the ramp ends below it, so one giant order cannot
# wash out the rest.
TOP_PERCENTILE = 97.0
LOG_RANGE = 255.0  # log scale: the pale end is 1/255 of the dark end


def ramp(stops: tuple[RGB, ...], steps: int = 256) -> np.ndarray:
    """uint8[steps, 3]: colours from the first stop to the last, linear between equally spaced stops."""
    positions = np.linspace(0.0, len(stops) - 1.0, steps)
    table = np.array(stops, np.float64)
    return np.stack([np.interp(positions, np.arange(len(stops)), table[:, channel]).round() for channel in range(3)], axis=1).astype(np.uint8)


def scale_code(scale: str) -> int:
    """Position of `scale` in SCALES, as the kernels take it. Raises UsageError for any other name."""
    if scale not in SCALES:
        raise UsageError(f"heatmap scale is {scale!r}; allowed: {', '.join(SCALES)}")
    return SCALES.index(scale)


def top_size(*planes: np.ndarray) -> float:
    """The size at which the ramps end: a high percentile of all sizes above zero in `planes`; 1.0 when there is none."""
    values = np.concatenate([plane[plane > 0].ravel() for plane in planes]) if planes else np.empty(0, np.float32)
    if len(values) == 0:
        return 1.0
    rank = min(int(len(values) * TOP_PERCENTILE / 100.0), len(values) - 1)
    return float(np.partition(values, rank)[rank])


def intensity(values: np.ndarray, top: float, scale: str) -> np.ndarray:
    """float64 in 0..1 of sizes; the kernels compute the same per pixel."""
    share = np.clip(np.asarray(values, np.float64) / top, 0.0, 1.0)
    code = scale_code(scale)
    if code == 1:
        return np.sqrt(share)
    if code == 2:
        return np.log1p(share * LOG_RANGE) / np.log1p(LOG_RANGE)
    return share


def css(colour: RGB, alpha: float | None = None) -> str:
    """`colour` as CSS and Plotly write it."""
    red, green, blue = colour
    return f"rgb({red},{green},{blue})" if alpha is None else f"rgba({red},{green},{blue},{alpha:g})"


def plotly_scale(stops: tuple[RGB, ...]) -> list[list[object]]:
    """`stops` as a Plotly colour scale."""
    return [[round(i / (len(stops) - 1), 6), css(stop)] for i, stop in enumerate(stops)]
