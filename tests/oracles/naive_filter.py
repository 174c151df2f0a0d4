"""Slow, obvious twins of the row filter, the row checks and the routing: one row at a time, Python integers and datetimes only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from tasks.partitions import EventFilter

UNDEFINED = 2**63 - 1


def naive_reject(wanted: EventFilter, symbol: str, publisher: int, ts: int, *, decoding: bool = False) -> str:
    """The first reason for which the filter drops a row, "" for none."""
    if wanted.symbols and symbol not in wanted.symbols:
        return "symbol"
    if wanted.publishers and publisher not in wanted.publishers:
        return "publisher"
    if wanted.end_ns is not None and ts >= wanted.end_ns:
        return "time"
    if decoding:
        return ""
    if wanted.start_ns is not None and ts < wanted.start_ns:
        return "time"
    if wanted.hours is not None and not naive_in_hours(wanted.hours, wanted.zone, ts):
        return "hours"
    return ""


def naive_in_hours(hours: tuple[str, str], zone: str, ts: int) -> bool:
    """What a clock on the wall shows, looked at row by row."""
    clock = datetime.fromtimestamp(ts // 10**9, ZoneInfo(zone)).time()
    start = time.fromisoformat(hours[0])
    if hours[1] == "24:00":
        return clock >= start
    end = time.fromisoformat(hours[1])
    return start <= clock < end if start < end else clock >= start or clock < end


def naive_check(row: dict[str, Any]) -> str:
    """The first rule a row breaks, "" for none. action and side are characters."""
    action, side, top = row["action"], row["side"], bool(row["flags"] & 64)
    if action not in "ACFMNRT" or action == "":
        return "action"
    if side not in "ABN" or side == "":
        return "side"
    if row["ts_event"] < 0 or row["ts_recv"] < 0:
        return "time_range"
    if row["price"] == UNDEFINED and action in "AFMT" and not top:
        return "price_undefined"
    if action == "A" and side == "N" and not top:
        return "side_none"
    if row["size"] == 0 and (action == "T" or (action == "A" and not top)):
        return "size_zero"
    if row["size"] > 2**31 - 1:
        return "size_range"
    return ""


@dataclass
class NaivePart:
    """What the events file of one partition must hold and say."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    rows_in: int = 0
    filtered: int = 0
    quarantined: int = 0
    suspect_rows: set[int] = field(default_factory=set)


def naive_decode(wanted: EventFilter, feed: list[dict[str, Any]]) -> tuple[dict[tuple, NaivePart], list[tuple[str, int]], dict[str, int]]:
    """(partitions by (date, symbol, publisher, instrument), quarantine as (reason, row of the feed), dropped rows of no partition by reason).

    A row of the feed with the key "lost" could not be read; its symbol may be "". Rows set aside are noted in a second pass, at the number of
    kept rows that each partition they may belong to had by then.
    """
    parts: dict[tuple, NaivePart] = defaultdict(NaivePart)
    gaps: list[tuple[int, str]] = []  # (row of the feed, symbol or "" for any)
    kept_at: dict[tuple, list[int]] = defaultdict(list)
    quarantine: list[tuple[str, int]] = []
    dropped: dict[str, int] = defaultdict(int)
    for k, row in enumerate(feed):
        if "lost" in row:
            if row["symbol"] and wanted.symbols and row["symbol"] not in wanted.symbols:
                dropped["symbol"] += 1
            else:
                quarantine.append((row["lost"], k))
                gaps.append((k, row["symbol"]))
            continue
        reject = naive_reject(wanted, row["symbol"], row["publisher_id"], row["ts_recv"], decoding=True)
        fault = naive_check(row)
        if reject != "symbol" and row["ts_recv"] < 0:
            gaps.append((k, row["symbol"]))
        if reject in ("symbol", "publisher"):
            dropped[reject] += 1
            continue
        if row["ts_recv"] < 0:
            quarantine.append((fault, k))
            continue
        date = datetime.fromtimestamp(row["ts_recv"] // 10**9, UTC).date().isoformat()
        key = (date, row["symbol"], row["publisher_id"], row["instrument_id"])
        part = parts[key]
        part.rows_in += 1
        if reject:
            part.filtered += 1
        elif fault:
            part.quarantined += 1
            part.suspect_rows.add(len(part.rows))
            quarantine.append((fault, k))
        else:
            part.rows.append(row)
            kept_at[key].append(k)
    for k, symbol in gaps:
        for key, part in parts.items():
            if symbol in ("", key[1]):
                part.suspect_rows.add(sum(at < k for at in kept_at[key]))
    return dict(parts), quarantine, dict(dropped)
