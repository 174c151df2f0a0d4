"""From what a person types to a recipe, with errors that say what is allowed. Shared by flows and the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tasks.depth_recipe import DepthRecipe
from tasks.errors import UsageError
from tasks.filtering.predicate import check_filter
from tasks.partitions import EventFilter, MboRecipe
from tasks.specs import parse_bar, parse_interval

RUNNERS = ("threads", "processes", "dask")


def recipe_of(
    *, symbols: Sequence[str], publishers: Sequence[int], start: str, end: str, hours: str, zone: str, depth: int, interval: str,
    bars: Sequence[str], clock: str, on_book_error: str, starts_empty: bool, sequence: str, stale_after: str, heatmap_axis: str,
) -> MboRecipe:  # fmt: skip
    """The recipe for the options of the market-by-order flow. Raises UsageError naming the option and what it may be."""
    wanted = EventFilter(
        symbols=tuple(symbols),
        publishers=tuple(publishers),
        start_ns=parse_time(start, zone, "start") if start else None,
        end_ns=parse_time(end, zone, "end") if end else None,
        hours=_hours(hours) if hours else None,
        zone=zone,
    )
    check_filter(wanted)
    for name in bars:
        parse_bar(name)
    return MboRecipe(
        filter=wanted, depth=depth, interval_ns=parse_interval(interval), bars=tuple(bars), clock=clock, on_book_error=on_book_error,
        starts_empty=starts_empty, sequence=sequence, stale_after_ns=_stale_after(stale_after),
        heatmap_axis=heatmap_axis,
    )  # fmt: skip


def depth_recipe_of(
    *, depths: Sequence[int], interval: str, clock: str, stale_after: str, on_book_error: str, bars: Sequence[str], updates: bool
) -> DepthRecipe:
    """The recipe for the options of the depth flow. Raises UsageError naming the option and what it may be."""
    if wrong := [name for name in bars if parse_bar(name).kind != "time"]:
        raise UsageError(f"bars is {wrong[0]!r}; allowed: lengths of time such as 1s, 1m: bars of the mid have no trades to count")
    return DepthRecipe(
        depths=tuple(depths), interval_ns=parse_interval(interval), clock=clock, on_book_error=on_book_error, bars=tuple(bars), updates=updates,
        stale_after_ns=_stale_after(stale_after),
    )  # fmt: skip


def check_count(name: str, value: int) -> int:
    """`value` when it can be a number of things. Raises UsageError: -1 would leave out the last one, where it is taken for all."""
    if value < 0:
        raise UsageError(f"{name} is {value}; allowed: 0 or more")
    return value


def check_runner(runner: str, dask_address: str) -> str:
    """`runner` when it may be chosen here. Raises UsageError."""
    if runner not in RUNNERS:
        raise UsageError(f"runner is {runner!r}; allowed: {', '.join(RUNNERS)}")
    if dask_address and runner != "dask":
        raise UsageError(f"dask_address is {dask_address!r} and the runner is {runner}; say --runner dask, or leave the address out")
    if dask_address and not re.fullmatch(r"((tcp|tls|ws|wss|ucx)://)?[^\s:/]+:\d+", dask_address):
        raise UsageError(f"dask_address is {dask_address!r}; allowed: that of a scheduler, such as tcp://10.0.0.5:8786")
    if runner == "dask" and find_spec("prefect_dask") is None:
        raise UsageError("The runner dask needs prefect-dask, which is not installed here: pip install -c deployments/constraints.txt -e '.[dask]'")
    return runner


def _stale_after(text: str) -> int | None:
    return None if text in ("off", "") else parse_interval(text, "stale_after")


def parse_time(text: str, zone: str, option: str) -> int:
    """ns UTC of an ISO 8601 date or time with up to nine decimals of a second; without an offset it is in `zone`."""
    whole, point, rest = text.replace(",", ".").partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        moment = datetime.fromisoformat(whole + rest[len(digits) :])
        # The standard allows decimals of minutes and hours, too; nobody writes them, and they are not taken for those of seconds.
        if len(digits) > 9 or (point and not (digits and re.search(r"[T ]\d\d:?\d\d:?\d\d$", whole))):
            raise ValueError
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=ZoneInfo(zone))
    except ZoneInfoNotFoundError as fault:
        raise UsageError(f"zone is {zone!r}; allowed: names such as UTC, America/New_York, Asia/Tokyo") from fault
    except ValueError as fault:
        raise UsageError(
            f"{option} is {text!r}; allowed: ISO 8601 such as 2025-10-22 or 2025-10-22T13:30:00.5, with an offset or in --zone"
        ) from fault
    return int(moment.timestamp()) * 1_000_000_000 + int(digits.ljust(9, "0") or 0)


def _hours(text: str) -> tuple[str, str]:
    first, dash, last = text.partition("-")
    if not dash:
        raise UsageError(f"hours is {text!r}; allowed: HH:MM-HH:MM such as 09:30-16:00")
    return first.strip(), last.strip()
