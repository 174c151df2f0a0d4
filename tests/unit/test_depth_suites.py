"""Every expectation of the depth suites: one broken row, and exactly that expectation fails. The ways to break and judge are those of test_suites."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.aggregation.depth_aggregate import aggregate_depth
from tasks.errors import UsageError
from tasks.schemas import BANDS_BPS, DEPTH_FEATURES, DEPTH_TRADES, MID_BARS, UNDEF_PRICE, depth_books_schema
from validation import profile
from validation.gate import run_gate
from validation.rules import Context
from validation.suites import DEPTH_SUITES, SUITES, suite_of

from . import test_depth_aggregates as aggregates
from . import test_suites as shared
from .test_suites import SECOND, T0, TICK, N, Rows, drop, put, put_all, repeat


@pytest.fixture(autouse=True)
def _pass_pays(monkeypatch):
    """Levels of a few rows, too, are looked at in the compiled pass, as those of whole days are."""
    monkeypatch.setattr(profile, "PASS_NUMBERS", 0)


TIMES = [T0 + k * SECOND for k in range(N)]
WINDOWS = ((T0 - SECOND // 2, T0 + (N - 1) * SECOND + 1),)
STEP = {"interval_ns": SECOND, "windows": WINDOWS}
BAR_STEP = {"interval_ns": SECOND, "windows": ((T0 + 1, T0 + N * SECOND),)}


def unknown_first(rows: Rows) -> Rows:
    """Row 0 is before the first message."""
    rows["status"][0], rows["reason"][0], rows["status_since"][0] = "no_book", "no_snapshot", None
    return rows


def good_books(depth: int, *, grid: bool) -> Rows:
    received = TIMES if grid else [t + 500 for t in TIMES]
    times: Any = {"as_of": [None, *(t - 7 for t in TIMES[1:])], "age_ns": [-1] + [7] * (N - 1)} if grid else {"as_of": received}
    rows = shared._rows(
        depth_books_schema(depth), ts_event=TIMES, update_id=range(N), sequence=range(N), price_digits=9, size_digits=3,
        ts_recv=received, **times,
    )  # fmt: skip
    for level in range(depth):
        for side, sign in (("bid", -1), ("ask", 1)):
            rows[f"{side}_px_{level:02d}"] = [1000 * TICK + sign * (level + 1) * TICK] * N
            rows[f"{side}_sz_{level:02d}"] = [5 + level + k for k in range(N)]
    for side, level, row in [(side, level, 0) for side in ("bid", "ask") for level in range(depth) if grid] + [("ask", depth - 1, 1)] * (depth > 1):
        empty(side, level, row)(rows)
    return unknown_first(rows) if grid else rows


def empty(side: str, level: int, row: int = 5) -> Callable[[Rows], None]:
    """Make a level empty."""

    def change(rows: Rows) -> None:
        rows[f"{side}_px_{level:02d}"][row], rows[f"{side}_sz_{level:02d}"][row] = UNDEF_PRICE, 0

    return change


def good_trades() -> Rows:
    return shared._rows(
        DEPTH_TRADES, ts_event=TIMES, ts_recv=[t + 500 for t in TIMES], id=[str(k) for k in range(N)], side=["B", "A"] * (N // 2) + ["N"] * (N % 2),
        price=[1000 + k for k in range(N)], size=[1 + k for k in range(N)], price_digits=1, size_digits=0,
    )  # fmt: skip


TRADES = {
    "size_positive": put("size", 0),
    "price_positive": put("price", 0),
    "side_known": put("side", "X"),
    "captured_in_order": put("ts_recv", T0),
    "no_nulls": put("id", None),
    "one_symbol": put("symbol", "OTHER"),
}


def good_bars() -> Rows:
    columns: Any = {name: [None] + [value] * (N - 1) for name, value in (
        ("open", 2.5), ("high", 3.0), ("low", 2.0), ("close", 2.0), ("twap", 2.25), ("spread_mean", 0.5), ("bid_sz_mean", 4.0), ("ask_sz_mean", 0.1),
    )}  # fmt: skip
    share = [0.0] + [1.0] * (N - 1)
    return unknown_first(
        shared._rows(MID_BARS, ts_event=TIMES, ts_close=[t + SECOND for t in TIMES], valid_share=share, changes=range(N), status_since=T0, **columns)
    )


def good_features() -> Rows:
    of_book: Any = {"spread": 0.5, "mid": 2.25, "microprice": 2.5, "imbalance_1": 1.0, "imbalance_n": -1.0, "bid_depth": 3.0, "ask_depth": 4.0}
    of_book |= {f"{side}_depth_{bps}bps": bps / 25 for bps in BANDS_BPS for side in ("bid", "ask")}
    columns: Any = {name: [None] + [value] * (N - 1) for name, value in of_book.items()}
    rows = shared._rows(
        DEPTH_FEATURES, ts_event=TIMES, as_of=[None, *TIMES[1:]], age_ns=[-1] + [0] * (N - 1), status_since=T0, ofi=-4.5, realised_vol=0.0,
        changes=range(N), **columns,
    )  # fmt: skip
    return unknown_first(rows)


STATUS = {
    **{name: change for name, change in shared.STATUS.items() if name != "one_partition"},
    "one_symbol": put("symbol", "ETHUSDT", row=N - 1),
}
BOOKS = {
    **STATUS,
    "sizes_fit_prices": put("bid_sz_00", 0),
    "not_crossed": put("bid_px_00", 1001 * TICK),
    "one_scale": put("size_digits", 4),
    "age_fits_as_of": put("age_ns", 8),
    "no_nulls": put("sequence", None),
}
DEEP = {"levels_ordered": put("bid_px_01", 999 * TICK), "no_gap_levels": empty("ask", 0)}
SAMPLED = {
    "status_began_before": put("status_since", T0 + 5 * SECOND + 1),
    "no_look_ahead": put("as_of", T0 + 5 * SECOND + 1),
    "every_grid_time": drop(5),
}
BARS = {
    **STATUS,
    "reason_known": put_all(status="suspect", reason="hunch", valid_share=0.5),
    "high_is_highest": put("twap", 3.0000001),
    "low_is_lowest": put("low", 2.1),
    "spread_not_negative": put("spread_mean", -0.1),
    "sizes_positive": put("ask_sz_mean", 0.0),
    "valid_share_fits_status": put("valid_share", 0.999),
    "status_known": put_all(status="fine", reason="halt", valid_share=0.5),
    "changes_not_negative": put("changes", -1),
    "status_began_before": put("status_since", T0 + 6 * SECOND),
    "closes_after_start": put("ts_close", T0 + 5 * SECOND),
    "every_grid_time": put_all(ts_event=T0 + 4 * SECOND, ts_close=T0 + 5 * SECOND),
    "no_nulls": put("changes", None),
    "null_together": put("ask_sz_mean", None),
    "finite_numbers": put("bid_sz_mean", math.inf),
}
FEATURES = {
    **STATUS,
    **SAMPLED,
    "age_fits_as_of": put("age_ns", 8),
    "spread_not_negative": put("spread", -0.5),
    "mid_and_microprice_agree": put("microprice", 2.51),
    "bands_nested": put("bid_depth_25bps", 0.3),
    "imbalance_within_one": put("imbalance_n", 1.0000001),
    "volatility_not_negative": put("realised_vol", -1e-12),
    "changes_not_negative": put("changes", -1),
    "no_nulls": put("ofi", None),
    "null_together": put("bid_depth", None),
    "finite_numbers": put("mid", math.nan),
}


def late_first_row(rows: Rows) -> None:
    """The first message was sent after the second."""
    rows["ts_recv"][0] = T0 + SECOND + 501


# suite, context, good rows, rule name -> the break that only this rule may notice
CASES: dict[str, tuple[str, dict[str, Any], Callable[[], Rows], dict[str, Callable[[Rows], None]]]] = {
    "grid": ("depth_books", {"depth": 3, "grid": True, **STEP}, lambda: good_books(3, grid=True), {
        **BOOKS, **DEEP, **SAMPLED, "reaches_end": drop(N - 1),
    }),
    "grid-any-step": ("depth_books", {"depth": 3, "grid": True}, lambda: good_books(3, grid=True), {**BOOKS, **DEEP, **SAMPLED}),
    "bbo": ("depth_books", {"depth": 1}, lambda: good_books(1, grid=False), {
        **BOOKS,
        "status_began_before": put("status_since", T0 + 5 * SECOND + 501),
        "no_look_ahead": put("as_of", T0 + 5 * SECOND + 501),
        "time_ordered": put("as_of", T0 + 4 * SECOND + 499),
        "clock_ordered": late_first_row,
        "rows_differ": repeat(7),
    }),
    "trades": ("depth_trades", {}, good_trades, TRADES),
    "mid_bars": ("mid_bars", BAR_STEP, good_bars, {**BARS, "reaches_end": drop(N - 1)}),
    "mid_bars-any-step": ("mid_bars", {}, good_bars, {**BARS, "every_grid_time": drop(3)}),
    "features": ("depth_features", STEP, good_features, {**FEATURES, "reaches_end": drop(N - 1)}),
    "features-any-step": ("depth_features", {}, good_features, FEATURES),
}  # fmt: skip
RULES = [(case, rule.name) for case in CASES for rule in suite_of(CASES[case][0], Context.of(CASES[case][1])).rules if rule.holds]


@pytest.fixture(autouse=True)
def cases(monkeypatch):
    """What test_suites does, it does here with the depth suites."""
    monkeypatch.setattr(shared, "CASES", CASES)


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Callable[[str], shared.Judged]:
    known: dict[str, shared.Judged] = {}

    def of(case: str) -> shared.Judged:
        if case not in known:
            known[case] = shared.Judged(tmp_path_factory.mktemp(case), case)
        return known[case]

    return of


@pytest.mark.parametrize("case", CASES)
def test_good_rows_fail_nothing(judged, case):
    assert judged(case).failures("good") == set()


@pytest.mark.parametrize(("case", "rule"), RULES)
def test_a_broken_row_fails_exactly_the_expectation_it_breaks(judged, case, rule):
    assert rule in CASES[case][3], f"{rule} has no breaking case: add one to CASES[{case!r}]"
    assert judged(case).failures(rule) == {rule}


@pytest.mark.parametrize("case", CASES)
def test_files_counted_alone_and_together_get_the_same_counts(judged, case, monkeypatch):
    shared.test_files_counted_alone_and_together_get_the_same_counts(judged, case, monkeypatch)


@pytest.mark.parametrize("case", CASES)
def test_no_value_of_any_column_raises(tmp_path, case):
    shared.test_no_value_of_any_column_raises(tmp_path, case)


@pytest.mark.parametrize("case", ["grid", "bbo", "trades", "mid_bars", "features"])
def test_a_null_is_reported_but_for_the_time_of_a_message_that_never_came(tmp_path, case):
    suite, context, good, _ = CASES[case]
    schema = suite_of(suite, Context.of(context)).schema
    paths = {}
    for name in schema.names:
        rows = good()
        put(name, None)(rows)
        paths[str(shared.write(tmp_path / f"{name}.parquet", rows, schema))] = name
    report = run_gate(suite, list(map(Path, paths)), context=context)
    silent = set(paths.values()) - {paths[path] for outcome in report.results for path in outcome.by_file}
    # Without as_of the age is -1, which age_fits_as_of knows.
    assert silent == {"grid": {"status_since"}, "bbo": set(), "trades": set(), "mid_bars": {"status_since"}, "features": {"status_since"}}[case]


def test_every_suite_has_cases_and_every_rule_says_why_and_where():
    assert {suite for suite, _, _, _ in CASES.values()} == set(DEPTH_SUITES)
    assert not set(DEPTH_SUITES) & set(SUITES)
    for case, (suite, context, _, breaks) in CASES.items():
        rules = suite_of(suite, Context.of(context)).rules
        assert len({rule.name for rule in rules}) == len(rules), case
        assert set(breaks) <= {rule.name for rule in rules}, case
        assert all(len(rule.why) > 20 and len(rule.look) > 15 for rule in rules), case
    with pytest.raises(UsageError, match="mid_bars, depth_features"):
        suite_of("depth", Context())


@pytest.mark.parametrize(("rule", "change"), [
    ("levels_ordered", put("ask_px_99", 1099 * TICK)), ("no_gap_levels", empty("bid", 98)), ("sizes_fit_prices", put("ask_sz_99", -1)),
    ("no_nulls", put("bid_sz_99", None)),
])  # fmt: skip
def test_the_deepest_levels_are_checked_too(tmp_path, rule, change):
    rows = good_books(100, grid=True)
    change(rows)
    path = shared.write(tmp_path / "deep.parquet", rows, depth_books_schema(100))
    failed = {outcome.name: outcome.unexpected for outcome in run_gate("depth_books", [path], context={"depth": 100, "grid": True}).failed}
    # A null in a size breaks the comparison with its price as well.
    assert failed == {rule: 1} | ({"sizes_fit_prices": 1} if rule == "no_nulls" else {})


def test_a_grid_may_jump_only_from_the_end_of_a_window_to_the_start_of_the_next(tmp_path):
    rows = good_books(1, grid=True)
    for name in ("ts_event", "ts_recv", "as_of"):
        rows[name][6:] = [t + 100 * SECOND for t in rows[name][6:]]
    path = shared.write(tmp_path / "grid.parquet", rows, depth_books_schema(1))
    second = (T0 + 106 * SECOND - 3, T0 + (99 + N) * SECOND + 1)

    def failed(*windows: tuple[int, int]) -> dict[str, int]:
        report = run_gate("depth_books", [path], context={"depth": 1, "grid": True, "interval_ns": SECOND, "windows": windows})
        return {outcome.name: outcome.unexpected for outcome in report.failed}

    assert failed((T0, T0 + 6 * SECOND), second) == {}
    # Another window of the run, a day on, is for other files.
    assert failed((T0, T0 + 6 * SECOND), second, (T0 + 86_400 * SECOND, T0 + 86_410 * SECOND)) == {}
    assert failed((T0, T0 + 7 * SECOND), second) == {"every_grid_time": 1}
    assert failed((T0 - SECOND, T0 + 6 * SECOND), second) == {"every_grid_time": 1}
    assert failed((T0, T0 + 6 * SECOND), (second[0], second[1] + SECOND)) == {"reaches_end": 1}


def test_two_windows_in_one_bar_are_one_row(tmp_path):
    path = shared.write(tmp_path / "bars.parquet", good_bars(), MID_BARS)
    middle = T0 + 3 * SECOND + SECOND // 2
    windows = ((T0 + 5, middle), (middle + 7, T0 + N * SECOND))
    assert run_gate("mid_bars", [path], context={"interval_ns": SECOND, "windows": windows}).status == "ok"


def test_what_the_aggregates_write_passes_its_gates(tmp_path):
    lake = aggregates.lake_of(tmp_path)
    aggregate_depth(lake, aggregates.PARTITION, aggregates.WANTED)
    windows = ((aggregates.DAY, aggregates.DAY + 1200 * SECOND),)
    for layer, suite, step in (("mid-1s", "mid_bars", 1), ("mid-1m", "mid_bars", 60), ("depth-features-1m", "depth_features", 60)):
        report = run_gate(suite, [lake / aggregates.PARTITION.path(layer)], context={"interval_ns": step * SECOND, "windows": windows})
        assert (report.status, report.failed) == ("ok", ()), layer
