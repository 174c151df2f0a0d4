"""Trading hours on a wall clock: as windows of a UTC day, and as stretches of one offset from UTC that a query can compute with.

A row is inside the hours when a clock in the zone shows start <= time < end, or, for hours over midnight, time >= start or time < end. An
hour that daylight saving skips never matches, one that it repeats matches twice. Zone rules come from zoneinfo, looked up at midnights UTC
and never per row. Filters and rows do not belong here.
"""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from tasks.errors import UsageError

SECOND, DAY_S = 1_000_000_000, 86_400
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


def zone_named(name: str) -> ZoneInfo:
    """The time zone `name`; UsageError with near names when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
        close = difflib.get_close_matches(name, sorted(available_timezones()), n=3) or ["America/New_York", "Europe/London", "UTC"]
        raise UsageError(f"zone is {name!r}; allowed: names of the IANA time zone database, such as {', '.join(close)}") from fault


def clock_seconds(hours: tuple[str, str]) -> tuple[int, int]:
    """Start and end as seconds after local midnight; 24:00 is allowed as an end. UsageError for anything but HH:MM and for an empty span."""
    for text in hours:
        if not _CLOCK.fullmatch(text):
            raise UsageError(f"hours hold {text!r}; allowed: HH:MM from 00:00 to 23:59, and 24:00 as an end")
    start, end = (int(text[:2]) * 3600 + int(text[3:]) * 60 for text in hours)
    if start in (DAY_S, end):
        raise UsageError(f"hours are {hours[0]}-{hours[1]}, which is no span; for whole days leave them out (00:00-24:00 is the same)")
    return start, end


@lru_cache(maxsize=4096)
def offset_eras(zone: str, start_s: int, end_s: int) -> tuple[tuple[int, int], ...]:
    """(first second UTC, offset from UTC in seconds) of each stretch of one offset within [start_s, end_s]; looked up at midnights UTC."""
    info = zone_named(zone)

    def offset(at: int) -> int:
        shift = datetime.fromtimestamp(at, info).utcoffset()
        return 0 if shift is None else int(shift.total_seconds())

    found = [(start_s, offset(start_s))]
    for day in range(start_s, end_s, DAY_S):
        low, high = day, min(day + DAY_S, end_s)
        after = offset(high)
        if after == found[-1][1]:
            continue
        while high - low > 1:  # the second at which the clock changes
            middle = (low + high) // 2
            low, high = (low, middle) if offset(middle) == after else (middle, high)
        found.append((high, after))
    return tuple(found)


def hour_windows(hours: tuple[str, str], zone: str, day: int) -> list[tuple[int, int]]:
    """Half-open ns windows of UTC day number `day` (0 is 1970-01-01) in which the clock of `zone` is within the hours, ascending, disjoint."""
    start, end = clock_seconds(hours)
    span = end - start if start < end else end - start + DAY_S
    eras = offset_eras(zone, day * DAY_S, (day + 1) * DAY_S)
    windows = []
    for (low, offset), high in zip(eras, [era[0] for era in eras[1:]] + [(day + 1) * DAY_S], strict=True):
        for local_day in range((low + offset) // DAY_S - 1, (high + offset) // DAY_S + 1):
            opens = local_day * DAY_S + start - offset
            a, b = max(opens, low), min(opens + span, high)
            if a < b:
                windows.append((a * SECOND, b * SECOND))
    return merged(windows)


def merged(windows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Windows in ascending order, touching ones joined."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(windows):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
