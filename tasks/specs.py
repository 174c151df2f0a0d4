"""What a person writes for an interval or a kind of bar ("100ms", "1m", "tick:1000"), read into numbers and layer names. Reads no data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from tasks.errors import UsageError

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
DAY_NS = UNITS_NS["d"]
BAR_KINDS = ("time", "tick", "volume", "dollar")
# Keeps every threshold, also 1e9 times a dollar amount, inside the kernels' three 31-bit limbs.
MAX_BAR_SIZE = 10**18

_INTERVAL = re.compile(r"([1-9][0-9]{0,18})(ns|us|ms|s|m|h|d)")
_ACTIVITY = re.compile(r"(tick|volume|dollar):([1-9][0-9]{0,18})")
_MAX_INTERVAL_NS = 2**62


@dataclass(frozen=True)
class BarSpec:
    """A kind of bar.

    kind: one of BAR_KINDS; size: ns for time bars, trades for tick bars, traded size for volume bars, currency units of price times size for
    dollar bars; layer: the lake layer that holds them.
    """

    kind: str
    size: int
    layer: str


def parse_interval(text: str, name: str = "interval") -> int:
    """Nanoseconds of "250us", "100ms", "1s", "5m", "1h", "1d"; raises UsageError. name: of the option, for that."""
    match = _INTERVAL.fullmatch(text.strip())
    nanoseconds = int(match[1]) * UNITS_NS[match[2]] if match else 0
    if not 0 < nanoseconds < _MAX_INTERVAL_NS:
        raise UsageError(f"{name} is {text!r}; allowed: a whole number above 0 and one of {', '.join(UNITS_NS)}, e.g. 250us, 100ms, 1s, 5m, 1h, 1d")
    return nanoseconds


def interval_name(nanoseconds: int) -> str:
    """The shortest name that `parse_interval` reads back: 60_000_000_000 is "1m", 1_500_000_000 is "1500ms"."""
    if nanoseconds <= 0:
        raise UsageError(f"interval is {nanoseconds} ns; it must be positive")
    unit = next(name for name in reversed(UNITS_NS) if nanoseconds % UNITS_NS[name] == 0)
    return f"{nanoseconds // UNITS_NS[unit]}{unit}"


@lru_cache(256)
def parse_bar(text: str) -> BarSpec:
    """A BarSpec of "1s", "1m", "tick:1000", "volume:5000" or "dollar:1000000"; raises UsageError.

    An interval must divide a day: partitions end at midnight UTC, and a bar across two of them would be two half bars.
    """
    text = text.strip()
    if match := _ACTIVITY.fullmatch(text):
        kind, size = match[1], int(match[2])
        if size > MAX_BAR_SIZE:
            raise UsageError(f"bar is {text!r}; the size must be at most {MAX_BAR_SIZE:,}")
        return BarSpec(kind, size, f"bars-{kind}-{size}")
    if not _INTERVAL.fullmatch(text):
        raise UsageError(
            f"bar is {text!r}; allowed: an interval (1s, 1m, 1h, 1d, 100ms, 250us), tick:N, volume:N or dollar:N with N a whole number above 0"
        )
    size = parse_interval(text)
    if DAY_NS % size:
        raise UsageError(f"bar is {text!r}; an interval of bars must divide a day (24h), e.g. 1s, 5s, 1m, 5m, 15m, 1h, 4h, 1d")
    return BarSpec("time", size, f"ohlcv-{interval_name(size)}")
