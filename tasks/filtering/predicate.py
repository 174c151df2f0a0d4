"""The one meaning of an EventFilter: as a mask over event columns, as SQL for DuckDB, as an Arrow expression, and as windows of a day.

A book needs what came before the span a user asks for, so two questions are kept apart:

- `decode_mask`: which rows enter the lake at all. Symbols, publishers and the end of the range drop rows; rows before the start and outside
  the trading hours stay, because the book is built from them.
- `output_windows`: in which spans of time outputs (samples, bars, features) of a UTC day are wanted: start, end and hours intersected.

`event_mask`, `to_sql` and `to_arrow` apply the whole filter to rows; the three agree row by row. What trading hours mean is in hours.py.

Reading rows, and what a filter of other tables (orders, bars) means, do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date as Date
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import UsageError
from tasks.filtering.hours import DAY_S, SECOND, clock_seconds, hour_windows, merged, offset_eras, zone_named
from tasks.filtering.kernels import reject_rows
from tasks.partitions import EventFilter

# Why a row is not wanted, the code is the position; each row counts under the first that applies.
FILTER_REASONS = ("", "symbol", "publisher", "time", "hours")

DAY = DAY_S * SECOND
_MIN, _MAX = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_TS = pa.timestamp("ns", tz="UTC")
# Zone rules are tabulated this far; later times take the last offset.
_LAST_ERA_S = int(datetime.fromisoformat("2100-01-01T00:00:00+00:00").timestamp())


def check_filter(wanted: EventFilter) -> None:
    """Raise UsageError, naming what is allowed, for an unknown zone, a time that is not HH:MM, an empty range or a publisher out of range."""
    zone_named(wanted.zone)
    if wanted.hours is not None:
        clock_seconds(wanted.hours)
    for name, value in (("start", wanted.start_ns), ("end", wanted.end_ns)):
        if value is not None and not 0 <= value <= _MAX:
            raise UsageError(f"{name} is {value} ns; allowed: 0 (1970) to {_MAX} (2262), in ns since the epoch UTC")
    if wanted.start_ns is not None and wanted.end_ns is not None and wanted.start_ns >= wanted.end_ns:
        raise UsageError(f"start {_iso(wanted.start_ns)} is not before end {_iso(wanted.end_ns)}; the range is start <= time < end")
    for publisher in wanted.publishers:
        if not 0 <= publisher <= 65_535:
            raise UsageError(f"publisher is {publisher}; allowed: 0 to 65535")


class RowFilter:
    """A filter made ready for many batches of one source.

    decoding: only what may drop rows before the book is built (see the module): start and hours are left out.
    """

    def __init__(self, wanted: EventFilter, *, decoding: bool = False) -> None:
        check_filter(wanted)
        self._wanted, self._by_hours = wanted, wanted.hours is not None and not decoding
        self._first = _MIN if decoding or wanted.start_ns is None else wanted.start_ns
        self._last = _MAX if wanted.end_ns is None else wanted.end_ns - 1
        self._publisher_ok = np.full(65_536, not wanted.publishers, np.uint8)
        self._publisher_ok[list(wanted.publishers)] = 1
        self._names = frozenset(wanted.symbols)
        self._symbol_ok = np.empty(0, np.uint8)

    def wants(self, symbol: str) -> bool:
        """Whether rows of `symbol` pass the symbol filter."""
        return not self._names or symbol in self._names

    def reasons(self, symbols: Sequence[str], symbol_code: np.ndarray, publisher_id: np.ndarray, ts_recv: np.ndarray) -> np.ndarray:
        """uint8[n] positions in FILTER_REASONS, 0 = wanted. symbols may have grown since the last call, never changed."""
        if len(self._symbol_ok) < len(symbols):
            fresh = [self.wants(symbol) for symbol in symbols[len(self._symbol_ok) :]]
            self._symbol_ok = np.concatenate([self._symbol_ok, np.array(fresh, np.uint8)])
        edges = self._edges(ts_recv) if self._by_hours else np.empty(0, np.int64)
        reason = np.empty(len(ts_recv), np.uint8)
        reject_rows(
            symbol_code, publisher_id, ts_recv, self._symbol_ok, self._publisher_ok, self._first, self._last, self._by_hours, edges, reason
        )  # fmt: skip
        return reason

    def _edges(self, ts: np.ndarray) -> np.ndarray:
        # Time zones are asked once per UTC day met, never per row.
        days = np.unique(ts // DAY)
        assert self._wanted.hours is not None
        windows = [window for day in days.tolist() for window in hour_windows(self._wanted.hours, self._wanted.zone, day)]
        return np.array([(start, min(end, _MAX)) for start, end in merged(windows)], np.int64).reshape(-1)


def event_mask(
    wanted: EventFilter, symbols: Sequence[str], symbol_code: np.ndarray, columns: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, int]]:
    """The whole filter: bool[n] of wanted rows, and how many were dropped under each reason (reasons that dropped none are left out).

    symbols: names by code; symbol_code int32[n]; columns: event columns, of which publisher_id and ts_recv are read.
    """
    return _mask(RowFilter(wanted), symbols, symbol_code, columns)


def decode_mask(
    wanted: EventFilter, symbols: Sequence[str], symbol_code: np.ndarray, columns: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, int]]:
    """Rows that enter the lake: symbol, publisher and end of the range only, since the book needs what came before. As `event_mask`."""
    return _mask(RowFilter(wanted, decoding=True), symbols, symbol_code, columns)


def _mask(rows: RowFilter, symbols: Sequence[str], symbol_code: np.ndarray, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    reason = rows.reasons(symbols, symbol_code, columns["publisher_id"], columns["ts_recv"])
    return reason == 0, reason_counts(reason)


def reason_counts(reason: np.ndarray) -> dict[str, int]:
    """How many rows each reason dropped; reasons that dropped none are left out."""
    counts = np.bincount(reason, minlength=len(FILTER_REASONS)).tolist()
    return {name: count for name, count in zip(FILTER_REASONS, counts, strict=True) if name and count}


def output_windows(wanted: EventFilter, date: str, clock: str = "ts_recv") -> list[tuple[int, int]]:
    """Half-open ns windows in which outputs of the UTC day `date` (YYYY-MM-DD) are wanted: range and hours intersected, ascending, disjoint.

    A day is one of ts_recv. On the clock ts_event its first records can be of the day before, and where two machines' clocks differ its last ones
    of the day after: the windows then reach into both, without hours as far as the range.
    """
    check_filter(wanted)
    day, beside = (Date.fromisoformat(date) - Date(1970, 1, 1)).days, int(clock == "ts_event")
    if wanted.hours is not None:
        windows = merged([window for d in range(day - beside, day + beside + 1) for window in hour_windows(wanted.hours, wanted.zone, d)])
    else:
        windows = [(0, _MAX)] if beside else [(day * DAY, (day + 1) * DAY)]
    first = _MIN if wanted.start_ns is None else wanted.start_ns
    end = _MAX if wanted.end_ns is None else wanted.end_ns
    return [(max(a, first), min(b, end)) for a, b in windows if max(a, first) < min(b, end)]


def to_sql(wanted: EventFilter) -> tuple[str, list[Any]]:
    """The whole filter as a DuckDB predicate over symbol, publisher_id and ts_recv (TIMESTAMPTZ_NS) with its parameters.

    It holds under any session time zone and needs no extension. Times are compared as timestamps, so row groups are pruned.
    """
    check_filter(wanted)
    terms: list[str] = []
    values: list[Any] = []
    for column, chosen in (("symbol", wanted.symbols), ("publisher_id", wanted.publishers)):
        if chosen:
            terms.append(f"{column} IN ({', '.join('?' * len(chosen))})")
            values += chosen
    for sign, bound in ((">=", wanted.start_ns), ("<", wanted.end_ns)):
        if bound is not None:
            # An ISO text with its offset: make_timestamp_ns(?) casts through the session's zone and was off by hours there.
            terms.append(f"ts_recv {sign} ?::TIMESTAMPTZ_NS")
            values.append(_iso(bound))
    if wanted.hours is not None:
        start, span = _start_and_span(wanted.hours)
        offset, offsets = _offset_sql(_range_eras(wanted))
        # Seconds since the hours last opened, on the clock of the zone.
        terms.append(f"(epoch_ns(ts_recv) // {SECOND} + {offset} + ?) % {DAY_S} < ?")
        values += [*offsets, DAY_S - start + DAY_S, span]
    return " AND ".join(terms) or "TRUE", values


def to_arrow(wanted: EventFilter) -> pc.Expression:
    """The whole filter as a pyarrow.dataset expression over symbol, publisher_id and ts_recv."""
    check_filter(wanted)
    ts, result = pc.field("ts_recv"), pc.scalar(True)
    for name, chosen, kind in (("symbol", wanted.symbols, pa.string()), ("publisher_id", wanted.publishers, pa.uint16())):
        if chosen:
            # `is_in` has no kernel between a dictionary column and plain values; equality has.
            result &= reduce(or_, (pc.field(name) == pa.scalar(value, kind) for value in chosen))
    if wanted.start_ns is not None:
        result &= ts >= pa.scalar(wanted.start_ns, _TS)
    if wanted.end_ns is not None:
        result &= ts < pa.scalar(wanted.end_ns, _TS)
    if wanted.hours is not None:
        start, span = _start_and_span(wanted.hours)
        local = pc.divide(ts.cast(pa.int64()), SECOND) + _offset_arrow(_range_eras(wanted), ts) + (DAY_S - start + DAY_S)
        result &= local - pc.divide(local, DAY_S) * DAY_S < span
    return result


def _start_and_span(hours: tuple[str, str]) -> tuple[int, int]:
    start, end = clock_seconds(hours)
    return start, (end - start) % DAY_S or DAY_S


def _iso(ns: int) -> str:
    return f"{np.datetime64(ns, 'ns')}+00"


def _range_eras(wanted: EventFilter) -> tuple[tuple[int, int], ...]:
    start = 0 if wanted.start_ns is None else wanted.start_ns // DAY * DAY_S
    end = _LAST_ERA_S if wanted.end_ns is None else min(_LAST_ERA_S, -(-wanted.end_ns // DAY) * DAY_S)
    return offset_eras(wanted.zone, start, max(start, end))


def _offset_sql(eras: tuple[tuple[int, int], ...]) -> tuple[str, list[int]]:
    # A balanced tree of CASEs: eight comparisons a row for 130 years of daylight saving, where a flat CASE makes up to 260.
    if len(eras) == 1:
        return "?", [eras[0][1]]
    middle = len(eras) // 2
    (before, early), (after, late) = _offset_sql(eras[:middle]), _offset_sql(eras[middle:])
    return f"CASE WHEN epoch_ns(ts_recv) < ? THEN {before} ELSE {after} END", [eras[middle][0] * SECOND, *early, *late]


def _offset_arrow(eras: tuple[tuple[int, int], ...], ts: pc.Expression) -> pc.Expression:
    if len(eras) == 1:
        return pc.scalar(eras[0][1])
    middle = len(eras) // 2
    earlier = ts < pa.scalar(eras[middle][0] * SECOND, _TS)
    return pc.if_else(earlier, _offset_arrow(eras[:middle], ts), _offset_arrow(eras[middle:], ts))
