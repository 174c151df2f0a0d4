"""Mid bars and features of depth books against their naive twins, and the promise that no row knows the future."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.aggregation.depth_aggregate import DepthAggregates, aggregate_depth, depth_aggregate_layers, is_depth_aggregated
from tasks.aggregation.depth_bars import build_mid_bars, mid_layer
from tasks.aggregation.depth_features import build_depth_features
from tasks.aggregation.depth_layers import silences
from tasks.errors import BookmillError, SchemaMismatch, UsageError
from tasks.footers import is_done, read_facts
from tasks.partitions import Partition, Stamp
from tasks.schemas import BANDS_BPS, DEPTH_BBO, DEPTH_FEATURES, MID_BARS, UNDEF_PRICE, depth_books_schema
from tasks.storage import write_table
from tests.oracles import naive_features, naive_mid_bars
from tests.oracles.naive_mid_bars import Touch

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
PARTITION = Partition("BYBIT", "2025-10-22", "BTCUSDT", 0, 0)
STAMP = Stamp("in", "recipe")
SECOND = 1_000_000_000
DAY = 1_761_091_200 * SECOND  # the start of the partition's day
DEPTH = 3
DIGITS = (11, 4)  # of prices and sizes

price = st.one_of(st.integers(1, 40), st.integers(10**13, 10**13 + 40), st.just(UNDEF_PRICE))
size = st.one_of(st.integers(1, 4), st.integers(1, 2**40))
STATES = [("valid", ""), ("valid", ""), ("suspect", "gap"), ("suspect", "quarantined"), ("no_book", "no_snapshot")]


@st.composite
def touches(draw, most: int = 25) -> list[Touch]:
    """Touch rows, often at equal times, now and then with a clock that steps back; empty sides have no size."""
    rows = []
    for _ in range(draw(st.integers(0, most))):
        as_of, bid, ask = draw(st.integers(0, 120)), draw(price), draw(price)
        status, reason = draw(st.sampled_from(STATES))
        bid_size, ask_size = (0 if px == UNDEF_PRICE else draw(size) for px in (bid, ask))
        rows.append(Touch(as_of, bid, ask, bid_size, ask_size, status, reason, draw(st.integers(0, as_of))))
    return sorted(rows, key=lambda row: row.as_of) if draw(st.booleans()) else rows


@st.composite
def spans(draw, most: int) -> list[tuple[int, int]]:
    """Ascending half-open spans; neighbours may touch."""
    edges = sorted(draw(st.lists(st.integers(0, 150), min_size=2 * most, max_size=2 * most)))
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


def table_of(schema: pa.Schema, known: dict[str, list], n: int) -> pa.Table:
    text = {"symbol": PARTITION.symbol, "status": "valid", "reason": "", "price_digits": DIGITS[0], "size_digits": DIGITS[1]}
    return pa.table({f.name: known.get(f.name, [text.get(f.name, 0)] * n) for f in schema}, schema=schema)


def write_bbo(path: Path, rows: list[Touch], facts: dict | None = None, **more: list) -> Path:
    names = ("as_of", "bid_px_00", "ask_px_00", "bid_sz_00", "ask_sz_00", "status", "reason", "status_since")
    known = {name: [row[k] for row in rows] for k, name in enumerate(names)} | more
    write_table(path, table_of(DEPTH_BBO, known, len(rows)), Stamp("bbo", "test"), facts)
    return path


def write_grid(path: Path, times: list[int], books: list[list[tuple[int, int, int, int]]], group: int = 1000, **more: list) -> Path:
    depth = len(books[0]) if books else DEPTH
    known: dict[str, list] = {"ts_event": times, "ts_recv": times, "as_of": times, "status_since": [0] * len(times)}
    for level in range(depth):
        for at, name in enumerate(("bid_px", "ask_px", "bid_sz", "ask_sz")):
            known[f"{name}_{level:02d}"] = [book[level][at] for book in books]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(depth_books_schema(depth), known | more, len(times)), path, row_group_size=group)
    return path


def rows_of(path: Path, schema: pa.Schema) -> list[dict]:
    table = pq.read_table(path, partitioning=None)
    assert table.schema.equals(schema)
    for name in ("ts_event", "ts_close", "as_of", "status_since"):
        if name in table.column_names:
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def assert_equal(found: list[dict], expected: list[dict]) -> None:
    """Integers, text and nulls exactly; floats, which are statistics, to 1e-12."""
    assert len(found) == len(expected)
    for row, want in zip(found, expected, strict=True):
        for name, value in want.items():
            if isinstance(value, float):
                assert row[name] is not None, name
                assert math.isclose(row[name], value, rel_tol=1e-12, abs_tol=1e-13), (name, row, want)
            else:
                assert row[name] == value, (name, row, want)


def mid_bars(folder: Path, rows: list[Touch], windows, silent, interval: int, **options) -> list[dict]:
    out = folder / "mid.parquet"
    build_mid_bars(
        write_bbo(folder / "bbo.parquet", rows), out, interval, STAMP, partition=PARTITION,
        windows=np.array(windows, np.int64).reshape(-1, 2), silent=np.array(silent, np.int64).reshape(-1, 2), **options,
    )  # fmt: skip
    return rows_of(out, MID_BARS)


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    rows=touches(), windows=spans(3), silent=spans(3), interval=st.integers(1, 60), batch_rows=st.integers(1, 30), room=st.sampled_from([1, 2, 1000])
)
def test_mid_bars_equal_the_naive_ones_whatever_the_batches(tmp_path_factory, rows, windows, silent, interval, batch_rows, room):
    found = mid_bars(tmp_path_factory.mktemp("bars"), rows, windows, silent, interval, batch_rows=batch_rows, room=room)
    assert_equal(found, naive_mid_bars.mid_bars(rows, windows, silent, interval, *DIGITS))
    for bar in found:
        assert bar["open"] is None or bar["low"] <= min(bar["open"], bar["close"], bar["twap"]) <= max(bar["open"], bar["close"]) <= bar["high"]


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(rows=touches(), windows=spans(2), interval=st.integers(1, 60), where=st.integers(0, 10))
def test_what_comes_at_or_after_the_end_of_a_bar_does_not_change_it(tmp_path_factory, rows, windows, interval, where):
    whole = mid_bars(tmp_path_factory.mktemp("whole"), rows, windows, [], interval)
    if not whole:
        return
    now = whole[min(where, len(whole) - 1)]["ts_close"]
    past = [row for row, t in zip(rows, naive_mid_bars.clocks(rows), strict=True) if t < now]
    cut = mid_bars(tmp_path_factory.mktemp("cut"), past, windows, [], interval)
    assert [bar for bar in cut if bar["ts_close"] <= now] == [bar for bar in whole if bar["ts_close"] <= now]


def quote(as_of: int, mid2: int, size: int = 1, status: str = "valid", reason: str = "") -> Touch:
    return Touch(as_of, mid2 // 2, mid2 - mid2 // 2, size, size, status, reason, as_of)


def test_a_change_at_exactly_the_start_is_the_open_and_one_at_the_end_belongs_to_the_next_bar(tmp_path):
    unit = 10 ** DIGITS[0]
    rows = [quote(0, 200 * unit), quote(4, 208 * unit), quote(10, 100 * unit), quote(10, 120 * unit), quote(15, 130 * unit)]
    first, second = mid_bars(tmp_path, rows, [(0, 20)], [], 10)
    assert [first[k] for k in ("open", "high", "low", "close", "twap", "changes")] == [100, 104, 100, 104, 102.4, 2]
    # Of the two states at 10 only the last stood for any time; both are changes.
    assert [second[k] for k in ("open", "high", "low", "close", "twap", "changes")] == [60, 65, 60, 65, 62.5, 3]


def test_a_bar_in_which_nothing_changed_has_a_row_with_the_touch_that_stood(tmp_path):
    rows = [Touch(5, 3 * 10**9, 5 * 10**9, 123_456, 7, "valid", "", 0)]
    bars = mid_bars(tmp_path, rows, [(DAY, DAY + 3 * SECOND)], [], SECOND)
    assert [(bar["ts_event"], bar["ts_close"], bar["changes"], bar["valid_share"]) for bar in bars] == [
        (DAY + k * SECOND, DAY + (k + 1) * SECOND, 0, 1.0) for k in range(3)
    ]
    assert {(bar["open"], bar["twap"], bar["spread_mean"], bar["bid_sz_mean"], bar["ask_sz_mean"]) for bar in bars} == {
        (0.04, 0.04, 0.02, 12.3456, 0.0007)
    }


def test_without_windows_every_bar_of_the_day_has_a_row(tmp_path):
    facts = build_mid_bars(write_bbo(tmp_path / "bbo.parquet", []), tmp_path / "mid.parquet", 60 * SECOND, STAMP, partition=PARTITION)
    bars = rows_of(tmp_path / "mid.parquet", MID_BARS)
    assert [bar["ts_event"] for bar in bars] == [DAY + k * 60 * SECOND for k in range(1440)]
    assert {(bar["status"], bar["reason"], bar["status_since"], bar["open"], bar["valid_share"]) for bar in bars} == {
        ("no_book", "no_snapshot", None, None, 0.0)
    }
    assert facts == {"rows_in": 0, "rows_used": 0, "rows_filtered": 0, "rows_out": 1440, "changes": 0}


def test_the_worst_status_of_a_bar_comes_with_the_reason_and_start_of_its_first_stretch(tmp_path):
    rows = [quote(0, 10), quote(2, 12, status="suspect", reason="gap"), quote(5, 14, status="suspect", reason="quarantined"), quote(8, 16)]
    (bar,) = mid_bars(tmp_path, rows, [(0, 10)], [(9, 10)], 10)
    assert [bar[k] for k in ("status", "reason", "status_since", "valid_share")] == ["suspect", "gap", 2, 0.3]


def test_a_silence_makes_a_valid_book_stale_until_the_next_row(tmp_path):
    bars = mid_bars(tmp_path, [quote(0, 10), quote(35, 12)], [(0, 50)], [(12, 40)], 10)
    assert [bar["valid_share"] for bar in bars] == [1.0, 0.2, 0.0, 0.5, 1.0]
    assert [bar["status"] for bar in bars] == ["valid", "stale", "stale", "stale", "valid"]
    assert {(bar["reason"], bar["status_since"]) for bar in bars if bar["status"] == "stale"} == {("silence", 12)}
    over = mid_bars(tmp_path, [quote(0, 10)], [(0, 40)], [(12, 25)], 10)  # messages came again and left the touch alone
    assert [bar["valid_share"] for bar in over] == [1.0, 0.2, 0.5, 1.0]


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(messages=st.lists(st.integers(0, 100), max_size=12), interval=st.integers(1, 20), limit=st.integers(1, 40), batch_rows=st.integers(1, 20))
def test_silences_are_what_the_stale_rows_of_a_grid_tell(tmp_path_factory, messages, interval, limit, batch_rows):
    grid = list(range(0, 120, interval))
    as_of = [max((t for t in messages if t <= now), default=None) for now in grid]
    stale = [last is not None and now - last > limit for now, last in zip(grid, as_of, strict=True)]
    path = write_grid(
        tmp_path_factory.mktemp("grid") / "grid.parquet", grid, [[(1, 2, 1, 1)]] * len(grid), as_of=as_of,
        status=["stale" if s else "valid" for s in stale], reason=["silence" if s else "" for s in stale],
        status_since=[last + limit if s else last for s, last in zip(stale, as_of, strict=True)],
    )  # fmt: skip
    assert silences(path, interval, batch_rows).tolist() == [list(s) for s in naive_mid_bars.silences(messages, grid, interval, limit)]


@st.composite
def books(draw) -> list[tuple[int, int, int, int]]:
    """A book of DEPTH levels: bids fall and asks rise from the touch, far or near, levels missing from the deep end, now and then crossed."""
    sides = []
    for sign in (-1, 1):
        n = draw(st.integers(0, DEPTH))
        steps = draw(st.lists(st.one_of(st.integers(1, 3), st.integers(1, 10**11)), min_size=n, max_size=n))
        prices = (10**13 + sign * np.cumsum([draw(st.integers(-2, 40)), *steps])[:n]).tolist()
        sides.append([(p, draw(size)) for p in prices] + [(UNDEF_PRICE, 0)] * (DEPTH - n))
    return [(b, a, bs, as_) for (b, bs), (a, as_) in zip(*sides, strict=True)]


@st.composite
def sessions(draw):
    """(grid times, books, touch rows, interval): times often tie."""
    interval = draw(st.integers(1, 30))
    steps = draw(st.lists(st.integers(0, 20), max_size=6))
    grid = np.cumsum([draw(st.integers(0, 30)), *(interval + s for s in steps)]).tolist()
    return grid, [draw(books()) for _ in grid], draw(touches()), interval


def features(folder: Path, session, batch_rows: int = 1000, group: int = 1000, **more: list) -> list[dict]:
    grid, levels, rows, interval = session
    out = folder / "features.parquet"
    build_depth_features(
        write_grid(folder / "grid.parquet", grid, levels, group, **more), write_bbo(folder / "bbo.parquet", rows), out, STAMP,
        interval_ns=interval, depth=DEPTH, batch_rows=batch_rows,
    )  # fmt: skip
    return rows_of(out, DEPTH_FEATURES)


def naive_rows(session) -> list[dict]:
    """The stream's features are those of the order-by-order flow; its twin takes the touch as it stands there."""
    grid, levels, rows, interval = session
    known = [naive_mid_bars.known(row) for row in rows]
    quotes = [naive_features.Quote(0, row.as_of, row.bid, row.ask, row.bid_size, row.ask_size, row.status) for row in known]
    stream = naive_features.features([naive_features.Grid(t, [(1, 2, 1, 1)]) for t in grid], quotes, [], interval, "ts_recv")
    changes = naive_mid_bars.changes_in(rows, grid, interval)
    return [
        {
            "ts_event": t, "ofi": row["ofi"] / 10 ** DIGITS[1], "realised_vol": row["realised_vol"], "changes": count,
            **naive_mid_bars.book_features(book, *DIGITS, BANDS_BPS),
        }
        for t, row, count, book in zip(grid, stream, changes, levels, strict=True)
    ]  # fmt: skip


@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(session=sessions(), batch_rows=st.integers(1, 30), group=st.integers(1, 10))
def test_features_equal_the_naive_ones_whatever_the_batches(tmp_path_factory, session, batch_rows, group):
    times = session[0]
    states: dict[str, list] = {
        "as_of": [t if t % 3 else None for t in times],
        "status": [("valid", "stale")[t % 2] for t in times],
        "reason": [("", "silence")[t % 2] for t in times],
    }
    found = features(tmp_path_factory.mktemp("features"), session, batch_rows, group, **states)
    assert_equal(found, naive_rows(session))
    assert [{name: row[name] for name in states} for row in found] == [{name: states[name][k] for name in states} for k in range(len(times))]
    assert not any(isinstance(v, float) and math.isnan(v) for row in found for v in row.values())


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(session=sessions(), where=st.integers(0, 6))
def test_what_comes_after_a_grid_time_does_not_change_its_features(tmp_path_factory, session, where):
    grid, levels, rows, interval = session
    keep = min(where, len(grid) - 1) + 1
    past = [row for row, t in zip(rows, naive_mid_bars.clocks(rows), strict=True) if t <= grid[keep - 1]]
    cut = features(tmp_path_factory.mktemp("cut"), (grid[:keep], levels[:keep], past, interval))
    assert cut == features(tmp_path_factory.mktemp("whole"), session)[:keep]


def test_a_change_at_exactly_the_start_of_the_span_is_not_in_it_and_one_at_its_end_is(tmp_path):
    rows = [quote(t, 10 + t) for t in (50, 100, 101, 200, 201)]
    found = features(tmp_path, ([150, 200], [[(10, 20, 5, 5)] * DEPTH] * 2, rows, 50))
    assert [row["changes"] for row in found] == [1, 1]


@pytest.mark.parametrize("size", [2**40, 5 * 10**18 + 1, 2**63 - 1])
def test_sums_of_sizes_that_no_64_bit_integer_holds_are_right(tmp_path, size):
    # A bid that rises 49 times by its whole size, and beside it an ask that stays.
    rows = [Touch(t, 10**13 + t, 2 * 10**13, size, size, "valid", "", 0) for t in range(50)]
    book = [(10**13 + 49 - level, 2 * 10**13 + level, size, size) for level in range(DEPTH)]
    session = [49], [book], rows, 50
    found = features(tmp_path, session)
    assert_equal(found, naive_rows(session))
    assert found[0]["ofi"] == pytest.approx(49 * size / 10 ** DIGITS[1], rel=1e-15)
    assert (found[0]["imbalance_1"], found[0]["microprice"]) == (0, pytest.approx(found[0]["mid"], rel=1e-15))


@pytest.mark.parametrize("mid", [10**13, 10**13 + 2_500])
def test_a_level_at_exactly_the_border_of_a_band_is_in_it_and_one_unit_beyond_is_not(tmp_path, mid):
    reach = [mid * bps // 10_000 for bps in BANDS_BPS]  # the farthest whole unit within
    book = [(mid - reach[0], mid + reach[0], 1, 10), (mid - reach[1], mid + reach[1] + 1, 2, 20), (mid - reach[2] - 1, mid + reach[2], 4, 40)]
    (row,) = features(tmp_path, ([5], [book], [], 5))
    names = [f"{side}_depth_{bps}bps" for bps in BANDS_BPS for side in ("bid", "ask")] + ["bid_depth", "ask_depth"]
    assert [row[name] for name in names] == [units / 10 ** DIGITS[1] for units in (1, 10, 3, 10, 3, 70, 7, 70)]


def lake_of(folder: Path, facts: dict | None = None) -> Path:
    """A lake with the touch and the grid of one partition, 20 minutes of a book that moves, silent for 5 of them."""
    rng = np.random.default_rng(7)
    at = np.sort(rng.integers(0, 20 * 60, 3000))
    at = DAY + SECOND * at[(at < 600) | (at >= 900)]
    mids = 10**13 + 100 * np.cumsum(rng.integers(-3, 4, len(at)))
    rows = [Touch(int(t), int(m) - 50, int(m) + 50, int(m) % 7 + 1, int(m) % 5 + 1, "valid", "", DAY) for t, m in zip(at, mids, strict=True)]
    grid = [DAY + 60 * SECOND * k for k in range(20)]
    before = [[r for r in rows if r.as_of <= t] for t in grid]
    levels = [[(r[-1].bid - 100 * k, r[-1].ask + 100 * k, 3, 4) if r else (UNDEF_PRICE, UNDEF_PRICE, 0, 0) for k in range(DEPTH)] for r in before]
    as_of = [r[-1].as_of if r else None for r in before]
    stale = [last is not None and t - last > 10 * SECOND for t, last in zip(grid, as_of, strict=True)]
    write_grid(
        folder / PARTITION.path(f"depth-{DEPTH}-1m"), grid, levels, as_of=as_of, status=["stale" if s else "valid" for s in stale],
        reason=["silence" if s else "" for s in stale],
        status_since=[(last or 0) + 10 * SECOND if s else DAY for s, last in zip(stale, as_of, strict=True)],
        age_ns=[-1 if last is None else t - last for t, last in zip(grid, as_of, strict=True)],
    )  # fmt: skip
    table = pq.read_table(folder / PARTITION.path(f"depth-{DEPTH}-1m"), partitioning=None)
    write_table(folder / PARTITION.path(f"depth-{DEPTH}-1m"), table, Stamp("grid", "test"))
    write_bbo(folder / PARTITION.path("depth-bbo"), rows, facts if facts is not None else {"windows": [[DAY, DAY + 1200 * SECOND]]})
    return folder


WANTED = DepthAggregates(depth=DEPTH, bars=("1s", "60s"))


def test_all_layers_of_a_partition_are_made_once_and_again_when_the_books_change(tmp_path):
    lake = lake_of(tmp_path)
    assert not is_depth_aggregated(lake, PARTITION, WANTED)
    facts = aggregate_depth(lake, PARTITION, WANTED)
    assert list(facts) == depth_aggregate_layers(WANTED) == ["mid-1s", "mid-1m", "depth-features-1m"]
    assert {layer: f["rows_out"] for layer, f in facts.items()} == {"mid-1s": 1200, "mid-1m": 20, "depth-features-1m": 20}
    paths = [lake / PARTITION.path(layer) for layer in facts]
    before = [path.stat().st_mtime_ns for path in paths]
    assert is_depth_aggregated(lake, PARTITION, WANTED)
    assert aggregate_depth(lake, PARTITION, WANTED) == facts == {layer: read_facts(p) for layer, p in zip(facts, paths, strict=True)}
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert not is_depth_aggregated(lake, PARTITION, DepthAggregates(depth=DEPTH, bars=("5m",)))
    grid = lake / PARTITION.path(WANTED.grid_layer)
    fewer = DepthAggregates(depth=DEPTH - 1, bars=WANTED.bars)  # another grid of the same build
    write_table(lake / PARTITION.path(fewer.grid_layer), pq.read_table(grid, partitioning=None), Stamp("grid", "test"))
    assert not is_depth_aggregated(lake, PARTITION, fewer)
    write_table(grid, pq.read_table(grid, partitioning=None), Stamp("other grid", "test"))
    assert not is_depth_aggregated(lake, PARTITION, WANTED)


def test_an_outage_shows_in_the_bars_although_the_touch_has_no_row_in_it(tmp_path):
    lake = lake_of(tmp_path)
    aggregate_depth(lake, PARTITION, WANTED)
    bars = rows_of(lake / PARTITION.path("mid-1m"), MID_BARS)
    silent = [bar for bar in bars if bar["status"] == "stale"]
    assert [(bar["ts_event"] - DAY) // (60 * SECOND) for bar in silent] == [10, 11, 12, 13, 14]
    assert silent[0]["valid_share"] == pytest.approx(1 / 6, abs=0.02)
    assert [bar["valid_share"] for bar in silent[1:]] == [0.0] * 4
    grid = {row["ts_event"]: row for row in rows_of(lake / PARTITION.path("depth-features-1m"), DEPTH_FEATURES)}
    # The open of a bar is the mid of the grid row at its start.
    assert all(bar["open"] == grid[bar["ts_event"]]["mid"] for bar in bars[1:])


def test_bytes_do_not_depend_on_the_batch_size(tmp_path):
    made = set()
    for batch_rows in (13, 500, 65_536):
        lake = lake_of(tmp_path / str(batch_rows))
        aggregate_depth(lake, PARTITION, WANTED, batch_rows=batch_rows)
        made.add(tuple((lake / PARTITION.path(layer)).read_bytes() for layer in depth_aggregate_layers(WANTED)))
    assert len(made) == 1


def test_facts_count_every_touch_row(tmp_path):
    rows = [quote(t, 10 + t) for t in range(10)]
    out = tmp_path / "mid.parquet"
    windows = np.array([(1, 4), (4, 5), (8, 9)], np.int64)
    facts = build_mid_bars(write_bbo(tmp_path / "bbo.parquet", rows), out, 100, STAMP, partition=PARTITION, windows=windows)
    assert facts == {"rows_in": 10, "rows_used": 5, "rows_filtered": 5, "rows_out": 1, "changes": 5}
    assert (read_facts(out), is_done(out, STAMP)) == (facts, True)


def test_a_faulty_layer_or_option_is_named_and_leaves_no_file(tmp_path):
    rows = [quote(0, 10), quote(1, 12)]
    scales = write_bbo(tmp_path / "scales.parquet", rows, price_digits=[9, 10])
    wide = write_bbo(tmp_path / "wide.parquet", [Touch(0, 2**62, UNDEF_PRICE, 1, 0, "valid", "", 0)])
    large = write_bbo(tmp_path / "large.parquet", [Touch(0, 2**62, UNDEF_PRICE, 1, 0, "valid", "", 0)], price_digits=[9])
    out = tmp_path / "mid.parquet"
    finer = (
        r"wide\.parquet: a price is 4,611,686,018,427,387,904 units of 10\^-11; .*2\^62 \(4\.61169e\+07\).* with 11 decimals: set it aside .*--pairs"
    )
    coarsest = r"904 units of 10\^-9; .*2\^62 \(4\.61169e\+09\) on both sides of 0, so that a mid can be taken\. Books and touch .*--pairs"
    for path, words in ((scales, r"scales\.parquet: price_digits is 9 and then 10"), (wide, finer), (large, coarsest)):
        with pytest.raises(SchemaMismatch, match=words):
            build_mid_bars(path, out, 10, STAMP, partition=PARTITION)
    for windows in ([(5, 5)], [(0, 5), (4, 6)]):
        with pytest.raises(UsageError, match="ascending and disjoint"):
            build_mid_bars(wide, out, 10, STAMP, partition=PARTITION, windows=np.array(windows))
    for batch_rows in (1, 100):
        with pytest.raises(UsageError, match=r"grid\.parquet: grid row 2 comes 9 ns after"):
            features(tmp_path, ([0, 10, 19], [[(10, 20, 5, 5)] * DEPTH] * 3, [], 10), batch_rows)
    for name in ("tick:5", "7s", "fast"):
        with pytest.raises(UsageError, match=r"e\.g\.|allowed"):
            mid_layer(name)
    with pytest.raises(BookmillError, match=r"depth-bbo.* is missing"):
        aggregate_depth(tmp_path, PARTITION, WANTED)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(("mid", "features"))]
