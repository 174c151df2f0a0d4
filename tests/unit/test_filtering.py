"""One filter, four ways to ask it: mask, twin, DuckDB and Arrow agree row by row; the windows of a day are the mask's."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import UsageError
from tasks.filtering.predicate import FILTER_REASONS, check_filter, decode_mask, event_mask, output_windows, to_arrow, to_sql
from tasks.partitions import EventFilter
from tests.oracles.naive_filter import naive_in_hours, naive_reject

SYMBOLS = ["ES", "NQ", 'O\'X "1"', ""]
HOUR = 3_600_000_000_000
# Around both changes of the clock in New York, London and Lord Howe (which moves by 30 minutes), and a plain day.
DAYS = [
    datetime(*day, tzinfo=UTC) for day in ((2024, 3, 10), (2024, 11, 3), (2024, 3, 31), (2024, 10, 27), (2024, 4, 6), (2024, 10, 5), (1987, 7, 1))
]
ZONES = ["UTC", "America/New_York", "Europe/London", "Australia/Lord_Howe", "Asia/Kolkata"]
MINUTES = st.integers(0, 1439).map(lambda m: f"{m // 60:02d}:{m % 60:02d}")


def ns(text: str) -> int:
    """ns since the epoch of an ISO time."""
    return int(np.datetime64(text, "ns").astype(np.int64))


@st.composite
def instants(draw: st.DrawFn) -> int:
    day = int(draw(st.sampled_from(DAYS)).timestamp()) * 10**9
    near = draw(st.integers(-30, 54)) * HOUR // 2 + draw(st.sampled_from([-1, 0, 1, 60_000_000_000]))
    return day + near


@st.composite
def filters(draw: st.DrawFn) -> EventFilter:
    start, end = sorted([draw(instants()), draw(instants()) + 1])
    hours = draw(st.none() | st.tuples(MINUTES, MINUTES | st.just("24:00")).filter(lambda h: h[0] != h[1]))
    return EventFilter(
        symbols=tuple(draw(st.lists(st.sampled_from(SYMBOLS), max_size=2))),
        publishers=tuple(draw(st.lists(st.sampled_from([1, 2, 65_535]), max_size=2))),
        start_ns=start if draw(st.booleans()) and start < end else None,
        end_ns=end if draw(st.booleans()) else None,
        hours=hours,
        zone=draw(st.sampled_from(ZONES)),
    )


def table_of(codes: np.ndarray, publishers: np.ndarray, ts: np.ndarray) -> pa.Table:
    symbol = pa.DictionaryArray.from_arrays(codes, pa.array(SYMBOLS))
    return pa.table(
        {"symbol": symbol, "publisher_id": publishers, "ts_recv": pa.array(ts).view(pa.timestamp("ns", tz="UTC")), "row": np.arange(len(ts))}
    )


ROWS = st.lists(st.tuples(st.integers(0, len(SYMBOLS) - 1), st.sampled_from([1, 2, 65_535]), instants()), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(wanted=filters(), rows=ROWS)
def test_mask_twin_duckdb_and_arrow_choose_the_same_rows(wanted, rows):
    codes, publishers, ts = (np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), ("i4", "u2", "i8"), strict=True))
    columns = {"publisher_id": publishers, "ts_recv": ts}
    reasons = [naive_reject(wanted, SYMBOLS[c], p, t) for c, p, t in rows]
    mask, counts = event_mask(wanted, SYMBOLS, codes, columns)
    assert mask.tolist() == [not reason for reason in reasons]
    assert counts == {name: reasons.count(name) for name in FILTER_REASONS[1:] if name in reasons}

    events = table_of(codes, publishers, ts)
    where, values = to_sql(wanted)
    with duckdb.connect() as con:
        con.execute("SET TimeZone='Asia/Tokyo'")  # the session's zone must not matter
        con.register("events", events)
        chosen = con.execute(f"SELECT row FROM events WHERE {where} ORDER BY row", values).fetchall()
    assert [row for (row,) in chosen] == np.flatnonzero(mask).tolist()
    assert ds.dataset(events).to_table(filter=to_arrow(wanted))["row"].to_pylist() == np.flatnonzero(mask).tolist()

    early = [naive_reject(wanted, SYMBOLS[c], p, t, decoding=True) for c, p, t in rows]
    mask, counts = decode_mask(wanted, SYMBOLS, codes, columns)
    assert mask.tolist() == [not reason for reason in early]
    assert set(counts) <= {"symbol", "publisher", "time"}


@settings(max_examples=60, deadline=None)
@given(wanted=filters(), day=st.sampled_from(DAYS), offset=st.integers(0, 24 * 60 - 1), nudge=st.sampled_from([-1, 0, 1]))
def test_output_windows_hold_exactly_the_instants_that_range_and_hours_want(wanted, day, offset, nudge):
    ts = int(day.timestamp()) * 10**9 + min(max(offset * 60_000_000_000 + nudge, 0), 24 * HOUR - 1)
    windows = output_windows(wanted, day.date().isoformat())
    assert all(a < b for a, b in windows)
    assert all(b < a for (_, b), (a, _) in pairwise(windows)), "disjoint, ascending, and joined where they touch"
    free = EventFilter(start_ns=wanted.start_ns, end_ns=wanted.end_ns, hours=wanted.hours, zone=wanted.zone)
    assert any(a <= ts < b for a, b in windows) == (naive_reject(free, "", 0, ts) == "")


@settings(max_examples=60, deadline=None)
@given(wanted=filters(), day=st.sampled_from(DAYS), offset=st.integers(-24 * 60, 48 * 60 - 1), nudge=st.sampled_from([-1, 0, 1]))
def test_windows_on_ts_event_hold_what_is_wanted_of_the_days_beside_too(wanted, day, offset, nudge):
    midnight = int(day.timestamp()) * 10**9
    ts = min(max(midnight + offset * 60_000_000_000 + nudge, midnight - 24 * HOUR), midnight + 48 * HOUR - 1)
    windows = output_windows(wanted, day.date().isoformat(), "ts_event")
    assert all(a < b for a, b in windows)
    assert all(b < a for (_, b), (a, _) in pairwise(windows)), "disjoint, ascending, and joined where they touch"
    free = EventFilter(start_ns=wanted.start_ns, end_ns=wanted.end_ns, hours=wanted.hours, zone=wanted.zone)
    assert any(a <= ts < b for a, b in windows) == (naive_reject(free, "", 0, ts) == "")


def test_new_york_hours_move_by_an_hour_of_utc_with_daylight_saving():
    wanted = EventFilter(hours=("09:30", "16:00"), zone="America/New_York")
    assert output_windows(wanted, "2024-03-08") == [(ns("2024-03-08T14:30"), ns("2024-03-08T21:00"))]
    assert output_windows(wanted, "2024-03-11") == [(ns("2024-03-11T13:30"), ns("2024-03-11T20:00"))]


def test_hours_over_midnight_are_two_windows_of_a_utc_day():
    wanted = EventFilter(hours=("22:00", "01:30"))
    assert output_windows(wanted, "2024-01-02") == [
        (ns("2024-01-02T00:00"), ns("2024-01-02T01:30")),
        (ns("2024-01-02T22:00"), ns("2024-01-03T00:00")),
    ]


def test_an_hour_that_the_clock_skips_never_matches_and_one_that_it_repeats_matches_twice():
    wanted = EventFilter(hours=("02:15", "02:45"), zone="America/New_York")
    assert output_windows(wanted, "2024-03-10") == []
    again = EventFilter(hours=("01:15", "01:45"), zone="America/New_York")
    assert output_windows(again, "2024-11-03") == [
        (ns("2024-11-03T05:15"), ns("2024-11-03T05:45")),
        (ns("2024-11-03T06:15"), ns("2024-11-03T06:45")),
    ]
    assert naive_in_hours(("01:15", "01:45"), again.zone, ns("2024-11-03T06:20"))


def test_a_filter_without_conditions_wants_every_row():
    assert to_sql(EventFilter()) == ("TRUE", [])
    assert output_windows(EventFilter(), "1970-01-02") == [(24 * HOUR, 48 * HOUR)]


def test_time_bounds_prune_row_groups_of_a_parquet_file(tmp_path: Path):
    ts = np.arange(4000, dtype=np.int64) * HOUR
    path = tmp_path / "events.parquet"
    pq.write_table(table_of(np.zeros(4000, np.int32), np.ones(4000, np.uint16), ts), path, row_group_size=100)
    where, values = to_sql(EventFilter(start_ns=3950 * HOUR, hours=("00:00", "12:00")))
    with duckdb.connect() as con:
        plan = con.execute(f"EXPLAIN SELECT row FROM '{path}' WHERE {where}", values).fetchall()[0][1]
    assert "ts_recv >= '1970-06-14 14:00:00+00'::TIMESTAMPTZ_NS" in plan, "the bound reaches the scan as a comparison of the column"
    fragment = next(iter(ds.dataset(path).get_fragments()))
    assert len(fragment.split_by_row_group(to_arrow(EventFilter(start_ns=3950 * HOUR)))) == 1


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (EventFilter(zone="America/NewYork"), "America/New_York"),
        (EventFilter(zone="../etc/passwd"), "IANA"),
        (EventFilter(hours=("9:30", "16:00")), "HH:MM"),
        (EventFilter(hours=("09:30", "25:00")), "'25:00'"),
        (EventFilter(hours=("24:00", "01:00")), "24:00-01:00"),
        (EventFilter(hours=("09:30", "09:30")), "09:30-09:30"),
        (EventFilter(start_ns=20, end_ns=20), "start <= time < end"),
        (EventFilter(start_ns=-1), "since the epoch"),
        (EventFilter(publishers=(65_536,)), "0 to 65535"),
    ],
)
def test_a_filter_that_is_not_allowed_says_what_is(wanted, says):
    with pytest.raises(UsageError, match=says):
        check_filter(wanted)


def test_arrow_expression_works_on_plain_and_dictionary_symbols():
    events = table_of(np.array([0, 1], np.int32), np.ones(2, np.uint16), np.zeros(2, np.int64))
    plain = events.set_column(0, "symbol", pc.cast(events["symbol"], pa.string()))
    for table in (events, plain):
        assert ds.dataset(table).to_table(filter=to_arrow(EventFilter(symbols=("NQ",))))["row"].to_pylist() == [1]
