"""Every expectation of every suite: one broken row, and exactly that expectation fails. Cases are found by the suites' own rule names."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.schemas import BARS, BOOK_HEAD, CBBO, EVENTS, F_LAST, F_SNAPSHOT, FEATURES, TRADES, UNDEF_PRICE, books_schema
from tests.unit.test_book_rows import level_names, packed_table
from validation import profile
from validation.gate import GateReport, run_gate
from validation.rules import Context
from validation.suites import SUITES, suite_of
from validation.suites.events import EARLIEST_NS, LATEST_NS, UNDEF_SIZE

Rows = dict[str, list[Any]]  # column -> values; times as int64 ns
T0 = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
TICK = 250_000_000
N = 12
ALWAYS = {"publisher_id": 1, "instrument_id": 5602, "symbol": "ESH4"}


def table_of(rows: Rows, schema: pa.Schema) -> pa.Table:
    """The rows with the types of `schema`."""
    arrays = []
    for column in schema:
        kind = column.type
        if pa.types.is_timestamp(kind):
            arrays.append(pa.array(rows[column.name], pa.int64()).cast(kind))
        elif pa.types.is_dictionary(kind):
            arrays.append(pa.array(rows[column.name], pa.string()).dictionary_encode().cast(kind))
        else:
            arrays.append(pa.array(rows[column.name], kind))
    return pa.Table.from_arrays(arrays, schema=schema)


def write(path: Path, rows: Rows, schema: pa.Schema, row_group_size: int = 5) -> Path:
    """Several row groups, so that neighbours are compared across their borders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(rows, schema), path, row_group_size=row_group_size)
    return path


def write_packed(path: Path, rows: Rows, depth: int, row_group_size: int = 5) -> Path:
    """Book rows as a layer at event ends has them: the levels of a row in one value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = packed_table({name: rows[name] for name in level_names(depth)}, table_of(rows, pa.schema(BOOK_HEAD)), depth)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def _rows(schema: pa.Schema, n: int = N, **columns: Any) -> Rows:
    filled: Rows = {name: [0] * n for name in schema.names}
    for name, value in {**ALWAYS, "status": "valid", "reason": "", **columns}.items():
        if name in filled:
            filled[name] = list(value) if isinstance(value, list | range | np.ndarray) else [value] * n
    return filled


def good_events() -> Rows:
    return _rows(
        EVENTS, ts_event=[T0 + k * SECOND for k in range(N)], ts_recv=[T0 + k * SECOND + 500 for k in range(N)],
        action=list("RAAAMTFCANAC"), side=list("NABAABABANBA"),
        price=[UNDEF_PRICE if a in "RN" else -100 * TICK + k * TICK for k, a in enumerate("RAAAMTFCANAC")],
        size=[0 if a in "RN" else 3 for a in "RAAAMTFCANAC"], order_id=range(100, 100 + N), flags=F_LAST | 2, sequence=range(N),
    )  # fmt: skip


def good_books(depth: int, *, grid: bool, counts: bool = True) -> Rows:
    times = [T0 + k * SECOND for k in range(N)]
    as_of = [None, *(t - 7 for t in times[1:])] if grid else [t + 500 for t in times]
    age = [-1] + [7] * (N - 1) if grid else 0
    rows = _rows(books_schema(depth), ts_event=times, ts_recv=times if grid else [t + 500 for t in times], as_of=as_of, age_ns=age, sequence=range(N))
    for level in range(depth):
        for side, sign in (("bid", -1), ("ask", 1)):
            rows[f"{side}_px_{level:02d}"] = [1000 * TICK + sign * (level + 1) * TICK] * N
            rows[f"{side}_sz_{level:02d}"] = [5 + level] * N
            rows[f"{side}_ct_{level:02d}"] = [2 if counts else 0] * N
    for side in ("bid", "ask"):  # row 0 has no book yet; row 1 has lost its deepest level
        for level, row in [(level, 0) for level in range(depth)] + [(depth - 1, 1)]:
            empty(rows, side, level, row)
    rows["status"][0], rows["reason"][0] = "no_book", "no_snapshot"
    return rows


def empty(rows: Rows, side: str, level: int, row: int) -> None:
    """Make a level empty."""
    for kind, value in (("px", UNDEF_PRICE), ("sz", 0), ("ct", 0)):
        rows[f"{side}_{kind}_{level:02d}"][row] = value


def good_trades() -> Rows:
    return _rows(
        TRADES, ts_event=[T0 + k * SECOND for k in range(N)], ts_recv=[T0 + k * SECOND + 500 for k in range(N)],
        as_of=[T0 + k * SECOND + 500 for k in range(N)], price=1000 * TICK, size=3,
        side=list("ABNABNABNABN"), side_method=["feed", "quote", "none"] * 4, sequence=range(N),
        bid_px_00=[UNDEF_PRICE] + [999 * TICK] * (N - 1), ask_px_00=1000 * TICK, bid_sz_00=[0] + [4] * (N - 1), ask_sz_00=4,
    )  # fmt: skip


def good_bars() -> Rows:
    starts = [T0 + k * SECOND for k in range(N)]
    return _rows(
        BARS, ts_event=starts, ts_close=[t + SECOND for t in starts], open=-5 * TICK, high=-2 * TICK, low=-9 * TICK, close=-3 * TICK,
        volume=10, vwap=-4 * TICK, trades=4, buy_volume=6, sell_volume=3, valid_share=[0.0, 1.0] * (N // 2),
    )  # fmt: skip


def good_features() -> Rows:
    times = [T0 + k * SECOND for k in range(N)]
    undefined = [None] + [0.5] * (N - 1)
    return _rows(
        FEATURES, ts_event=times, as_of=[None, *times[1:]], age_ns=[-1] + [0] * (N - 1), spread=[UNDEF_PRICE] + [TICK] * (N - 1), mid=undefined,
        microprice=undefined, imbalance_1=undefined, imbalance_n=[0.0] + [-1.0] * (N - 1), ofi=-4, realised_vol=0.0, trades=2, volume=5,
        signed_volume=-5, last_side=["N"] + ["B"] * (N - 1), last_side_method=["none"] + ["feed"] * (N - 1),
    )  # fmt: skip


def good_consolidated() -> Rows:
    times = [T0 + k * SECOND for k in range(N)]
    rows = _rows(
        CBBO, ts_event=times, ts_recv=[t + 500 for t in times], bid_px=999 * TICK, ask_px=1000 * TICK, bid_sz=range(4, 4 + N), ask_sz=3,
        bid_ct=2, ask_ct=0, bid_venues=[[1]] * N, ask_venues=[[1, 2]] * N, venues=2, status_since=times,
    )  # fmt: skip
    for name, value in {"bid_px": UNDEF_PRICE, "bid_sz": 0, "bid_ct": 0, "bid_venues": [], "ask_venues": [2], "venues": 1}.items():
        rows[name][0] = value  # publisher 1 has no book yet
    rows["status"][0], rows["reason"][0] = "no_book", "no_snapshot"
    return rows


def put(column: str, value: Any, row: int = 5) -> Callable[[Rows], None]:
    """Replace one cell."""

    def change(rows: Rows) -> None:
        rows[column][row] = value

    return change


def put_all(**cells: Any) -> Callable[[Rows], None]:
    """Replace several cells of row 5."""

    def change(rows: Rows) -> None:
        for column, value in cells.items():
            rows[column][5] = value

    return change


def repeat(row: int) -> Callable[[Rows], None]:
    """Write a row over the one after it."""

    def change(rows: Rows) -> None:
        for values in rows.values():
            values[row + 1] = values[row]

    return change


def drop(row: int) -> Callable[[Rows], None]:
    """Leave one row out."""

    def change(rows: Rows) -> None:
        for values in rows.values():
            del values[row]

    return change


def no_gap(rows: Rows) -> None:
    empty(rows, "ask", 0, 5)


def late_first_row(rows: Rows) -> None:
    """The first row was captured after the second; without a complete event before it, it has no as_of to betray it."""
    rows["ts_recv"][0], rows["as_of"][0], rows["age_ns"][0] = T0 + SECOND + 501, None, -1


STATUS = {
    "status_known": put_all(status="fine", reason="halt"),
    "reason_known": put_all(status="suspect", reason="hunch"),
    "reason_fits_status": put("reason", "halt"),
    "one_partition": put("instrument_id", 7, row=N - 1),
}
LEVELS = {
    **STATUS,
    "sizes_fit_prices": put("bid_sz_00", 0),
    "counts_fit_prices": put("ask_ct_00", 0),
    "not_crossed": put("bid_px_00", 1001 * TICK),
    "age_fits_as_of": put("age_ns", 8),
    "no_nulls": put("sequence", None),
}
DEEP = {**LEVELS, "levels_ordered": put("bid_px_01", 999 * TICK), "no_gap_levels": no_gap}
ON_EVENTS = {
    "status_began_before": put("status_since", T0 + 5 * SECOND + 501),
    "no_look_ahead": put("as_of", T0 + 5 * SECOND + 501),
    "time_ordered": put("as_of", T0 + 4 * SECOND + 499),
    "clock_ordered": late_first_row,
}
ON_GRID = {
    "status_began_before": put("status_since", T0 + 5 * SECOND + 1),
    "no_look_ahead": put("as_of", T0 + 5 * SECOND + 1),
    "grid_equally_spaced": drop(5),
}
BAR = {
    **STATUS,
    "high_is_highest": put_all(high=-4 * TICK, vwap=-5 * TICK),
    "low_is_lowest": put("low", -4 * TICK),
    "vwap_in_range": put("vwap", -2 * TICK + 1),
    "volume_not_negative": put("volume", -1),
    "sides_within_volume": put("buy_volume", 8),
    "has_trades": put("trades", 0),
    "valid_share_is_share": put("valid_share", 1.0000001),
    "no_nulls": put("open", None),
    "one_partition": put("symbol", "NQH4"),
}
FEATURE = {
    **STATUS,
    "status_began_before": put("status_since", T0 + 5 * SECOND + 1),
    "spread_not_negative": put("spread", -1),
    "imbalance_within_one": put("imbalance_n", 1.0000001),
    "volatility_not_negative": put("realised_vol", -1e-12),
    "signed_within_volume": put("signed_volume", -6),
    "no_look_ahead": put("as_of", T0 + 5 * SECOND + 1),
    "null_only_without_side": put("microprice", None),
    "finite_numbers": put("mid", math.nan),
    "last_side_known": put("last_side", "N"),
    "no_nulls": put("ofi", None),
}

# The windows that the good rows of a grid cover.
IN_WINDOWS = {"interval_ns": SECOND, "windows": ((T0 - 3, T0 + (N - 1) * SECOND + 1),)}

CONSOLIDATED = {
    **{name: change for name, change in STATUS.items() if name != "one_partition"},
    "one_symbol": put("symbol", "NQH4", row=N - 1),
    "sizes_fit_prices": put("ask_sz", 0),
    "counts_fit_prices": put("bid_ct", 1, row=0),
    "venues_fit_prices": put("ask_venues", [1, 2, 3]),
    "venues_ascending": put("ask_venues", [2, 1]),
    "time_ordered": put_all(ts_recv=T0 + 4 * SECOND + 499, status_since=T0),
    "no_look_ahead": put("status_since", T0 + 5 * SECOND + 501),
    "rows_differ": put_all(bid_sz=8, status_since=T0 + 4 * SECOND),
    "no_nulls": put("ts_event", None),
}

# Cases of this prefix are written as mbp-N at event ends: the levels of a row packed in one value.
PACKED = "packed-"

# suite, context, good rows, rule name -> the break that only this rule may notice
CASES: dict[str, tuple[str, dict[str, Any], Callable[[], Rows], dict[str, Callable[[Rows], None]]]] = {
    "events": ("events", {}, good_events, {
        "action_known": put("action", "AC", row=1),
        "side_known": put("side", ""),
        "price_defined": put("price", UNDEF_PRICE),
        "size_usable": put("size", UNDEF_SIZE),
        "times_in_range": put("ts_event", EARLIEST_NS - 1),
        "size_not_zero": put("size", 0),
        "received_after_event": put("ts_event", T0 + 6 * SECOND + 501),
        "flags_known": put("flags", F_LAST | 1),
        "received_in_order": put_all(ts_event=T0 + 4 * SECOND, ts_recv=T0 + 4 * SECOND + 499),
        "ends_with_last": put("flags", 0, row=N - 1),
        "no_repeated_record": repeat(7),
        "one_partition": put("publisher_id", 2, row=0),
        "no_nulls": put("order_id", None),
    }),
    "books-grid": ("books", {"depth": 3, "grid": True, "has_counts": True, "interval_ns": SECOND},
                   lambda: good_books(3, grid=True), {**DEEP, **ON_GRID, "age_fits_as_of": put("age_ns", 8)}),
    "books-grid-windows": ("books", {"depth": 3, "grid": True, **IN_WINDOWS}, lambda: good_books(3, grid=True),
                           {**DEEP, **ON_GRID, "reaches_end": drop(N - 1)}),
    "books-grid-any-step": ("books", {"depth": 3, "grid": True}, lambda: good_books(3, grid=True), {**DEEP, **ON_GRID}),
    "books-events": ("books", {"depth": 3, "clock": "ts_recv"}, lambda: good_books(3, grid=False), {**DEEP, **ON_EVENTS}),
    "books-events-venue-clock": ("books", {"depth": 3, "clock": "ts_event"}, lambda: good_books(3, grid=False),
                                 {**DEEP, **ON_EVENTS, "clock_ordered": put("ts_event", T0 + 4 * SECOND - 1)}),
    "books-without-counts": ("books", {"depth": 3, "has_counts": False}, lambda: good_books(3, grid=False, counts=False),
                             {**DEEP, **ON_EVENTS, "counts_fit_prices": put("bid_ct_02", 1)}),
    "bbo": ("books", {"depth": 1, "has_counts": True}, lambda: good_books(1, grid=False), {**LEVELS, **ON_EVENTS}),
    "packed-books": ("books", {"depth": 3, "clock": "ts_recv"}, lambda: good_books(3, grid=False), {**DEEP, **ON_EVENTS}),
    "packed-books-venue-clock": ("books", {"depth": 10, "clock": "ts_event", "has_counts": True}, lambda: good_books(10, grid=False),
                                 {**DEEP, **ON_EVENTS, "clock_ordered": put("ts_event", T0 + 4 * SECOND - 1)}),
    "packed-books-without-counts": ("books", {"depth": 2, "has_counts": False}, lambda: good_books(2, grid=False, counts=False),
                                    {**DEEP, **ON_EVENTS, "counts_fit_prices": put("ask_ct_01", 1)}),
    "packed-touch": ("books", {"depth": 1}, lambda: good_books(1, grid=False), {**LEVELS, **ON_EVENTS}),
    "trades": ("trades", {}, good_trades, {
        **STATUS,
        "size_positive": put("size", 0),
        "price_defined": put("price", UNDEF_PRICE),
        "side_known": put_all(side="AB", side_method="tick"),
        "method_known": put_all(side="A", side_method="guess"),
        "method_fits_side": put_all(side="A", side_method="none"),
        "inside_touch": put("price", 1000 * TICK + 1),
        "received_in_order": put("ts_recv", T0),
        "known_not_before": put("as_of", T0),
        "no_nulls": put("ask_sz_00", None),
    }),
    "bars-time": ("bars", {}, good_bars, {
        **BAR, "closes_after_start": put("ts_close", T0 + 5 * SECOND), "no_duplicate_start": put("ts_event", T0 + 4 * SECOND),
    }),
    "bars-activity": ("bars", {"time_bars": False}, good_bars, {
        **BAR, "closes_at_or_after_start": put("ts_close", T0 + 5 * SECOND - 1), "starts_in_order": put("ts_event", T0 + 4 * SECOND - 1),
    }),
    "features": ("features", {}, good_features, {**FEATURE, "time_ordered": put_all(ts_event=T0 + 4 * SECOND, as_of=T0 + 4 * SECOND)}),
    "features-grid": ("features", {"interval_ns": SECOND}, good_features, {**FEATURE, "grid_equally_spaced": drop(5)}),
    "features-windows": ("features", IN_WINDOWS, good_features, {**FEATURE, "grid_equally_spaced": drop(5), "reaches_end": drop(N - 1)}),
    "consolidated": ("consolidated", {}, good_consolidated, CONSOLIDATED),
    "consolidated-venue-clock": ("consolidated", {"clock": "ts_event"}, good_consolidated, {
        **CONSOLIDATED, "time_ordered": put_all(ts_event=T0 + 4 * SECOND - 1, status_since=T0),
        "no_look_ahead": put("status_since", T0 + 5 * SECOND + 1), "no_nulls": put("ts_recv", None),
    }),
}  # fmt: skip


def rule_names(case: str) -> list[str]:
    """The expectations on rows that the case's suite itself declares."""
    suite, context, _, _ = CASES[case]
    return [rule.name for rule in suite_of(suite, Context.of(context)).rules if rule.holds]


class Judged:
    """All broken files of one case, judged together; `failures(name)` is what failed in one of them."""

    def __init__(self, folder: Path, case: str) -> None:
        suite, context, good, breaks = CASES[case]
        self.schema = suite_of(suite, Context.of(context)).schema
        self.paths: dict[str, Path] = {}
        for name in ("good", *breaks):
            rows = good()
            if name != "good":
                breaks[name](rows)
            path = folder / f"{name}.parquet"
            self.paths[name] = write_packed(path, rows, context["depth"]) if case.startswith(PACKED) else write(path, rows, self.schema)
        self.report: GateReport = run_gate(suite, list(self.paths.values()), context=context)

    def failures(self, name: str) -> set[str]:
        return {outcome.name for outcome in self.report.results if str(self.paths[name]) in outcome.by_file}


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Callable[[str], Judged]:
    known: dict[str, Judged] = {}

    def of(case: str) -> Judged:
        if case not in known:
            known[case] = Judged(tmp_path_factory.mktemp(case), case)
        return known[case]

    return of


@pytest.mark.parametrize("case", CASES)
def test_good_rows_fail_nothing(judged, case):
    assert judged(case).failures("good") == set()


@pytest.mark.parametrize(("case", "rule"), [(case, rule) for case in CASES for rule in rule_names(case)])
def test_a_broken_row_fails_exactly_the_expectation_it_breaks(judged, case, rule):
    assert rule in CASES[case][3], f"{rule} has no breaking case: add one to CASES[{case!r}]"
    assert judged(case).failures(rule) == {rule}


@pytest.mark.parametrize("case", CASES)
def test_files_counted_alone_and_together_get_the_same_counts(judged, case, monkeypatch):
    """Alone: proofs from the footer, screens, the last row by itself. Together: every condition on every row of all files in one stream."""
    together = judged(case)
    paths = list(together.paths.values())
    monkeypatch.setattr(profile, "SMALL_ROWS", 1)
    suite, context, _, _ = CASES[case]
    alone = suite_of(suite, Context.of(context))
    with profile.scanner(2, 1 << 28) as connection:
        found = {str(p.path): p.counts for p in profile.profile_files(connection, alone, paths, 2)}
    for outcome in together.report.results:
        assert {path: counts[outcome.name] for path, counts in found.items() if counts[outcome.name]} == outcome.by_file


def test_every_suite_has_cases_and_every_rule_says_why_and_where():
    assert {suite for suite, _, _, _ in CASES.values()} == set(SUITES)
    for case, (suite, context, _, breaks) in CASES.items():
        rules = suite_of(suite, Context.of(context)).rules
        assert len({rule.name for rule in rules}) == len(rules), case
        assert set(breaks) <= {rule.name for rule in rules}, case
        assert all(len(rule.why) > 20 and len(rule.look) > 15 for rule in rules), case


@pytest.mark.parametrize("case", ["events", "books-grid", "books-events", "trades", "bars-time", "features", "consolidated"])
def test_a_null_in_any_column_is_reported_where_null_has_no_meaning(tmp_path, case):
    suite, context, good, _ = CASES[case]
    schema = suite_of(suite, Context.of(context)).schema
    nullable = {"as_of", "mid", "microprice", "imbalance_1", "imbalance_n"}
    nullable |= {"status_since"} if case in ("books-grid", "features") else set()
    paths = {}
    for name in schema.names:
        rows = good()
        rows[name][0 if name in nullable else 6] = None
        paths[name] = write(tmp_path / f"{name}.parquet", rows, schema)
    report = run_gate(suite, list(paths.values()), context=context)
    silent = {name for name, path in paths.items() if not any(str(path) in outcome.by_file for outcome in report.results)}
    assert silent <= nullable


@pytest.mark.parametrize("case", CASES)
def test_no_value_of_any_column_raises(tmp_path, case):
    suite, context, good, _ = CASES[case]
    schema = suite_of(suite, Context.of(context)).schema
    paths = []
    for label, pick in (("min", 0), ("max", 1), ("mixed", 2)):
        rows = good()
        for k, name in enumerate(schema.names):
            extremes = _extremes(schema.field(name).type)
            rows[name][3:6] = [extremes[(k + r if pick == 2 else pick) % 2] for r in range(3)]
        path = tmp_path / f"{label}.parquet"
        paths.append(write_packed(path, rows, context["depth"]) if case.startswith(PACKED) else write(path, rows, schema))
    report = run_gate(suite, paths, context=context)
    assert report.unjudged_files == ()
    assert set(report.blocked_files) == set(map(str, paths))


def _extremes(kind: pa.DataType) -> tuple[Any, Any]:
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        return "", "\x00'\"%"
    if pa.types.is_floating(kind):
        return -math.inf, math.nan
    if pa.types.is_list(kind):
        return [], [65_535, 0, 0]
    limits = np.iinfo(np.int64 if pa.types.is_timestamp(kind) else kind.to_pandas_dtype())
    return int(limits.min), int(limits.max)


@pytest.mark.parametrize(("column", "value", "holds"), [
    ("ts_event", EARLIEST_NS, True), ("ts_event", EARLIEST_NS - 1, False),
    ("ts_recv", LATEST_NS, True), ("ts_recv", LATEST_NS + 1, False),
])  # fmt: skip
def test_time_bounds_are_exact_to_the_nanosecond(tmp_path, column, value, holds):
    rows = good_events()
    rows[column][5] = value
    report = run_gate("events", [write(tmp_path / "events.parquet", rows, EVENTS)])
    assert {outcome.name: outcome.success for outcome in report.results}["times_in_range"] is holds


def test_price_bounds_are_exact_to_the_last_unit(tmp_path):
    """2^62 and 2^62 + 1 are the same float64."""
    at, above = good_trades(), good_trades()
    for rows in (at, above):
        rows["ask_px_00"] = [2**62] * N
    at["price"][5], above["price"][5] = 2**62, 2**62 + 1
    paths = [write(tmp_path / "at.parquet", at, TRADES), write(tmp_path / "above.parquet", above, TRADES)]
    outcome = {o.name: o for o in run_gate("trades", paths).results}["inside_touch"]
    assert outcome.by_file == {str(paths[1]): 1}


# A grid of minutes in two windows of one UTC day, as --hours 22:00-02:00 gives them: 00:00 to 01:59 and 22:00 to 23:59.
MIDNIGHT = T0 // (86_400 * SECOND) * 86_400 * SECOND
HOUR = 3_600 * SECOND
WINDOWS = ((MIDNIGHT, MIDNIGHT + 2 * HOUR), (MIDNIGHT + 22 * HOUR, MIDNIGHT + 24 * HOUR))
WINDOW_TIMES = [start + 60 * SECOND * k for start, _ in WINDOWS for k in range(120)]


@pytest.mark.parametrize("suite", ["books", "features"])
@pytest.mark.parametrize(("kept", "found"), [
    (range(240), {}),
    ([*range(30), *range(31, 240)], {"grid_equally_spaced": 1}),
    ([*range(30), *range(29, 240)], {"grid_equally_spaced": 1}),
    ([*range(60), *range(120, 240)], {"grid_equally_spaced": 1}),
    ([*range(120), *range(121, 240)], {"grid_equally_spaced": 1}),
    (range(1, 240), {"grid_equally_spaced": 1}),
    (range(120, 240), {"grid_equally_spaced": 1}),
    (range(239), {"reaches_end": 1}),
    (range(180), {"reaches_end": 1}),
    (range(120), {"reaches_end": 1}),
], ids=["whole", "minute", "twice", "window's end", "window's start", "start", "first window", "end", "last hour", "last window"])  # fmt: skip
def test_rows_missing_anywhere_in_the_windows_of_a_grid_are_found(tmp_path, suite, kept, found):
    columns = {"ts_event": [WINDOW_TIMES[k] for k in kept], "status_since": MIDNIGHT, "as_of": MIDNIGHT}
    if suite == "books":
        age = [t - MIDNIGHT for t in columns["ts_event"]]
        levels = {
            f"{side}_{kind}_00": value for side, px in (("bid", 999), ("ask", 1000)) for kind, value in (("px", px * TICK), ("sz", 5), ("ct", 2))
        }
        schema, rows = books_schema(1), _rows(books_schema(1), len(kept), ts_recv=columns["ts_event"], age_ns=age, **columns, **levels)
    else:
        undefined = dict.fromkeys(("mid", "microprice", "imbalance_1", "imbalance_n"))
        schema, rows = FEATURES, _rows(FEATURES, len(kept), last_side="N", last_side_method="none", spread=UNDEF_PRICE, **columns, **undefined)
    path = write(tmp_path / "grid.parquet", rows, schema)
    # The windows of another day are for other files.
    for windows in (WINDOWS, tuple((start + day, end + day) for day in (0, 24 * HOUR) for start, end in WINDOWS)):
        context = {"depth": 1, "grid": True, "interval_ns": 60 * SECOND, "windows": windows}
        assert {o.name: o.unexpected for o in run_gate(suite, [path], context=context).failed} == found


def test_a_window_begins_with_the_first_time_of_the_grid_in_it(tmp_path):
    rows = good_books(2, grid=True)
    for name in ("ts_event", "ts_recv", "as_of"):
        rows[name][6:] = [t + 100 * SECOND for t in rows[name][6:]]
    path = write(tmp_path / "grid.parquet", rows, books_schema(2))
    end = T0 + (99 + N) * SECOND + 1
    shared = {"depth": 2, "grid": True, "interval_ns": SECOND}
    windows = ((T0, T0 + 6 * SECOND), (T0 + 106 * SECOND - 3, end))
    assert run_gate("books", [path], context={**shared, "windows": windows}).status == "ok"
    early = (windows[0], (T0 + 105 * SECOND - 3, end))
    assert {o.name for o in run_gate("books", [path], context={**shared, "windows": early}).failed} == {"grid_equally_spaced"}


def test_snapshot_rows_may_be_days_old_on_arrival_and_top_of_book_rows_need_no_price(tmp_path):
    rows = good_events()
    rows["ts_event"][1] = T0 - 4 * 86_400 * SECOND
    rows["ts_event"][2], rows["flags"][2] = T0 + 60 * SECOND, F_SNAPSHOT
    rows["price"][3], rows["size"][3], rows["flags"][3] = UNDEF_PRICE, 0, F_LAST | 64
    assert run_gate("events", [write(tmp_path / "events.parquet", rows, EVENTS)]).status == "ok"
